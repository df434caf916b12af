//! Authenticates and authorises every request before the API sees it.
//!
//! Decides nothing itself: it has the request read once, reads the credential, asks, and answers 400, 401 or 403. A
//! watch may last for an hour, so it is asked about again while it does.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{body::Body, response::IntoResponse};
use http::{Method, Request, Response, StatusCode, Version, header};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

mod held_answer;
mod long_running;

use held_answer::Sending;
use long_running::{ASK_AGAIN_EVERY, LongRunning};

pub use super::authenticate::ConnectionCertificate;
use super::{
    Identity,
    attributes::Attributes,
    audited,
    authenticate::{Authenticator, Credentials, KeptCredentials},
    authorize,
    authorizer::{AuthorizationError, Authorizer, Verdict},
    connection_places::ConnectionPlace,
    ending_body::EndingBody,
    impersonation::{Impersonation, ImpersonationError},
    open_answers::OpenAnswers,
    request_headers::FrontProxyConnection,
    shortened::{self, shortened},
    stream_access,
};
use crate::{
    audit::{Audit, current},
    flow_control::{in_flight::InFlight, request_limits::RequestLimits, seat::Seat},
    metrics::RequestMetrics,
    request::{
        RequestInfo,
        audit_id::{AUDIT_ID, AuditId},
    },
    status::Status,
    upgrade::UpgradedAnswer,
};

/// Answers requests that were let through.
#[async_trait::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Whether the answer may have no end: a watch, or what an agent streams.
    fn is_long_running(&self, info: &RequestInfo) -> bool;

    /// Answers one request. `info` is all that there is to know of it but the body, the user included.
    async fn answer(&self, info: RequestInfo, request: Request<Body>) -> Response<Body>;
}

/// Authentication and authorisation before a [`Handler`]. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    handler: Arc<dyn Handler>,
    authorizer: Authorizer,
    authenticator: Authenticator,
    metrics: Arc<RequestMetrics>,
    closing: CancellationToken,
    limits: RequestLimits,
    audit: Option<Audit>,
    ask_again_every: Duration,
}

impl Gate {
    /// `handler` serves whoever `authorizer` lets through; watches end with `closing`.
    pub fn new(
        handler: Arc<dyn Handler>,
        authorizer: Authorizer,
        metrics: Arc<RequestMetrics>,
        closing: CancellationToken,
    ) -> Self {
        let authenticator = Authenticator::new(&authorizer);
        let limits = InFlight::default().into();
        Self {
            handler,
            authorizer,
            authenticator,
            metrics,
            closing,
            limits,
            audit: None,
            ask_again_every: ASK_AGAIN_EVERY,
        }
    }

    /// With limits of requests that are handled at a time.
    pub fn limited_to(self, limits: impl Into<RequestLimits>) -> Self {
        Self { limits: limits.into(), ..self }
    }

    /// With others who know who sends a request.
    pub fn authenticating_by(self, authenticator: Authenticator) -> Self {
        Self { authenticator, ..self }
    }

    /// Who tells who sends a request.
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// With events of what is asked.
    pub fn audited_by(self, audit: Option<Audit>) -> Self {
        Self { audit, ..self }
    }

    /// With another time between two looks at what is under way.
    #[cfg(test)]
    pub fn asking_again_every(self, ask_again_every: Duration) -> Self {
        Self { ask_again_every, ..self }
    }

    /// Answers one request that came over a connection with this certificate.
    pub async fn answer(self, mut request: Request<Body>, certificate: Arc<ConnectionCertificate>) -> Response<Body> {
        let id = AuditId::of(request.headers());
        // For servers that the request is sent on to.
        request.headers_mut().insert(AUDIT_ID, id.clone().into_header());
        let span =
            tracing::info_span!("request", audit_id = %id, method = %request.method(), path = request.uri().path());
        let mut response = self.pass(request, certificate, &id).instrument(span).await;
        response.headers_mut().insert(AUDIT_ID, id.into_header());
        response
    }

    /// Audits the request, if the policy wants that, from before anything is decided but who sent it.
    async fn pass(
        self,
        request: Request<Body>,
        certificate: Arc<ConnectionCertificate>,
        id: &AuditId,
    ) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        self.authenticator.read_request_headers(&mut parts);
        let (asked, notes) = match &self.audit {
            Some(_) => current::gather(self.read(&parts, &certificate)).await,
            None => (self.read(&parts, &certificate).await, Vec::new()),
        };
        let begun = self.audit.as_ref().and_then(|audit| {
            audited::begin(audit, (&parts, id), asked.info.as_ref().ok(), asked.sender.as_ref().ok())
        });
        let Some(audited) = begun else { return self.handle(parts, body, certificate, asked).await };
        let (is_known, info) = (asked.sender.is_ok(), asked.info.as_ref());
        let is_heartbeat = match (&asked.sender, info) {
            (Ok(sender), Ok(info)) => Seat::is_for_heartbeat(sender, info),
            _ => false,
        };
        let lasts = info.is_ok_and(|info| self.handler.is_long_running(info));
        let audited = audited.lasting(lasts).of_heartbeat(is_heartbeat).noted(notes);
        if let Err(status) = audited.received(is_known).await {
            self.metrics.refused(status.code);
            return refusal(&status);
        }
        // In a box: requests that are not audited need not make room for both ways.
        let response = audited.scope(Box::pin(self.handle(parts, body, certificate, asked))).await;
        match is_known {
            true => audited.answered(response).await,
            false => audited.unauthenticated(response).await,
        }
    }

    async fn handle(
        self,
        parts: http::request::Parts,
        body: Body,
        certificate: Arc<ConnectionCertificate>,
        asked: Asked,
    ) -> Response<Body> {
        let (info, acting) = match self.admit(&parts, asked).await {
            Ok(admitted) => admitted,
            Err(status) => {
                self.metrics.refused(status.code);
                let message = shortened(&status.message, shortened::MESSAGE).into_owned();
                return refusal(&Status { message, ..status });
            }
        };
        let is_long_running = self.handler.is_long_running(&info);
        let admitted = |info, seat| AdmittedRequest { info, acting, is_long_running, seat };
        let Some(user) = &info.user else {
            return self.seated(parts, body, certificate, admitted(info, None)).await;
        };
        let (seat, flow) = self.limits.enter(user, &info, &parts, is_long_running).await.into_parts();
        let mut response = match seat {
            Ok(seat) => self.seated(parts, body, certificate, admitted(info, seat)).await,
            Err(too_many) => {
                self.metrics.refused(StatusCode::TOO_MANY_REQUESTS.as_u16());
                too_many.to_response()
            }
        };
        flow.mark(&mut response);
        response
    }

    /// Answers a request that was let in, if it needed to be.
    async fn seated(
        self,
        mut parts: http::request::Parts,
        body: Body,
        certificate: Arc<ConnectionCertificate>,
        AdmittedRequest { info, acting, is_long_running, seat }: AdmittedRequest,
    ) -> Response<Body> {
        if let Some(user) = &info.user
            && let Err(status) = self.authorize(user, &info).await
        {
            self.metrics.refused(status.code);
            return refusal(&status);
        }
        // One that asks for another protocol has its seat until that is agreed on, any other until its answer is made,
        // or sent where there are no levels; a write that has begun keeps it until it has ended, though its client may
        // go away.
        let seat = seat.map(Arc::new);
        if let Some(seat) = &seat {
            parts.extensions.insert(seat.clone());
        }
        let place = parts.extensions.get::<ConnectionPlace>().cloned();
        // A request that came over no connection of the listener has a client here, which takes its answer.
        let answers = parts.extensions.get::<OpenAnswers>().cloned().unwrap_or_default();
        let lasts = is_long_running || parts.headers.contains_key(header::UPGRADE);
        let admitted = lasts.then(|| {
            let (sender, as_whom) = match acting {
                Some(Acting { sender, as_whom }) => (Some(sender), Some(as_whom)),
                None => (info.user.clone(), None),
            };
            LongRunning {
                gate: self.clone(),
                info: info.without_parameters(),
                credentials: KeptCredentials::of(&parts, certificate),
                sender,
                as_whom,
                place: place_of_sender(&parts).cloned(),
            }
        });
        let sending = Sending {
            is_read: matches!(parts.method, Method::GET | Method::HEAD) || info.query.dry_run,
            may_stall: parts.version == Version::HTTP_2,
        };
        let response = self.handler.answer(info, Request::from_parts(parts, body)).await;
        let has_switched = response.extensions().get::<UpgradedAnswer>().is_some();
        let admitted = admitted.filter(|_| is_long_running || has_switched);
        let Some(admitted) = admitted else { return self.held(response, seat, sending, &answers) };
        drop(seat);
        let closing = self.closing.cancelled_owned();
        if let Some(UpgradedAnswer(cut)) = response.extensions().get::<UpgradedAnswer>().cloned() {
            tokio::spawn(async move {
                tokio::select! {
                    () = closing => cut.cancel(),
                    () = made_room(place) => cut.cancel(),
                    () = admitted.withdrawn() => cut.cancel(),
                    () = cut.cancelled() => {}
                }
            });
            return response;
        }
        response.map(|body| Body::new(EndingBody::new(body, closing, admitted.withdrawn())))
    }

    /// What is asked, and who asks.
    async fn read(&self, parts: &http::request::Parts, certificate: &ConnectionCertificate) -> Asked {
        let info = RequestInfo::of(parts);
        let sender = self.authenticator.authenticate(Credentials::of(parts, certificate)).await;
        let sender = sender.map_err(|why| why.to_status());
        match good_front_proxy(parts) {
            // One that found no share before may find one now.
            Some(proxy) => {
                if let Some(place) = parts.extensions.get::<ConnectionPlace>() {
                    place.belongs_to(&proxy.holder());
                }
            }
            None => {
                if let Some(place) = place_of_sender(parts) {
                    assign_place(place, &sender);
                }
            }
        }
        Asked { info, sender }
    }

    /// What is asked, with its user, and who acts as that user, if anybody does. Whether they may ask is not decided
    /// yet.
    async fn admit(&self, parts: &http::request::Parts, asked: Asked) -> Result<(RequestInfo, Option<Acting>), Status> {
        // A stranger learns nothing of the request, not even that it is malformed.
        let sender = asked.sender?;
        let mut info = asked.info?;
        let Some(as_whom) = Impersonation::of(&parts.headers)? else {
            info.user = Some(sender);
            return Ok((info, None));
        };
        let identity = self.assumed(&sender, &as_whom).await?;
        current::impersonated(&identity);
        info.user = Some(identity);
        Ok((info, Some(Acting { sender, as_whom })))
    }

    /// Whom the request of somebody is made as who impersonates another.
    async fn assumed(&self, sender: &Identity, as_whom: &Impersonation) -> Result<Identity, Status> {
        // In a box: most requests need no room for this.
        Box::pin(as_whom.assume(sender, &self.authorizer)).await.map_err(|error| match error {
            ImpersonationError::Refused(status) => status,
            ImpersonationError::Undecided(error) => error.to_status(),
        })
    }

    async fn authorize(&self, identity: &Identity, info: &RequestInfo) -> Result<(), Status> {
        let attributes = Attributes::of(info);
        match self.authorizer.decide(identity, &attributes).await {
            Ok(Verdict::Allowed { reason }) => {
                current::annotate(DECISION, || "allow".to_owned());
                current::annotate(REASON, || reason);
                stream_access::check(&self.authorizer, identity, info).await
            }
            Ok(Verdict::Refused { error: Some(error), .. }) => {
                current::annotate(REASON, || "internal error".to_owned());
                Err(Status::internal(error))
            }
            Ok(Verdict::Refused { reason, .. }) => {
                current::annotate(DECISION, || "forbid".to_owned());
                current::annotate(REASON, || reason.clone());
                Err(authorize::forbidden(identity, &attributes, &reason))
            }
            Err(error) => {
                if let AuthorizationError::Unreadable(_) = error {
                    current::annotate(REASON, || "internal error".to_owned());
                }
                Err(error.to_status())
            }
        }
    }
}

/// A request that was let in. Whether its user may ask this is not decided yet.
struct AdmittedRequest {
    info: RequestInfo,
    acting: Option<Acting>,
    is_long_running: bool,
    /// `None` where it needs none.
    seat: Option<Seat>,
}

/// What events note of a decision.
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

/// A request as it came.
struct Asked {
    /// What is asked, or why that cannot be said.
    info: Result<RequestInfo, Status>,
    /// Who was authenticated, or the refusal of a stranger.
    sender: Result<Identity, Status>,
}

/// Somebody who acts as another.
struct Acting {
    /// Who was authenticated.
    sender: Identity,
    as_whom: Impersonation,
}

/// The place of a request's connection, if who sends the request tells whose it is: that of a front proxy is the
/// proxy's, as long as its certificate is good.
fn place_of_sender(parts: &http::request::Parts) -> Option<&ConnectionPlace> {
    match good_front_proxy(parts) {
        Some(_) => None,
        None => parts.extensions.get(),
    }
}

/// The front proxy that a request comes from, as long as its certificate is good.
fn good_front_proxy(parts: &http::request::Parts) -> Option<&FrontProxyConnection> {
    parts.extensions.get::<FrontProxyConnection>().filter(|proxy| proxy.is_good_at(SystemTime::now()))
}

/// Completes when the connection has to make room for others.
async fn made_room(place: Option<ConnectionPlace>) {
    match place {
        Some(place) => place.is_cut().await,
        None => std::future::pending().await,
    }
}

/// A connection belongs to whoever shows a good credential over it, and to nobody once one is refused. What cannot be
/// read for the moment changes nothing.
fn assign_place(place: &ConnectionPlace, identity: &Result<Identity, Status>) {
    match identity {
        Ok(identity) => place.belongs_to(identity),
        Err(status) if status.code == StatusCode::UNAUTHORIZED.as_u16() => place.belongs_to_nobody(),
        Err(_) => {}
    }
}

/// A refusal, as JSON: clients that speak protobuf read it too.
fn refusal(status: &Status) -> Response<Body> {
    current::refused(status);
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (code, axum::Json(status.to_json())).into_response();
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    if code == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests;
