//! Authenticates and authorises every request before the API sees it.
//!
//! Decides nothing itself: it has the request read once, reads the credential, asks, and answers 400, 401 or 403.

use std::{sync::Arc, time::SystemTime};

use axum::{body::Body, response::IntoResponse};
use http::{HeaderMap, Request, Response, StatusCode, header};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Identity,
    attributes::Attributes,
    authorize,
    authorizer::{Authorizer, Verdict},
    client_certificate::{BadCertificate, CertificateIdentity},
    ending_body::EndingBody,
    stored_facts::Unreadable,
    token::TokenAuthenticator,
};
use crate::{
    metrics::RequestMetrics,
    request::{
        RequestInfo,
        audit_id::{AUDIT_ID, AuditId},
    },
    status::Status,
};

/// The certificate a connection came with, if any, judged once.
pub type ConnectionCertificate = Option<Result<CertificateIdentity, BadCertificate>>;

/// Answers requests that were let through.
#[async_trait::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. `info` is all that there is to know of it but the body, the user included.
    async fn answer(&self, info: RequestInfo, request: Request<Body>) -> Response<Body>;
}

/// Authentication and authorisation before a [`Handler`]. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    handler: Arc<dyn Handler>,
    authorizer: Authorizer,
    tokens: TokenAuthenticator,
    metrics: Arc<RequestMetrics>,
    closing: CancellationToken,
}

impl Gate {
    /// `handler` serves whoever `authorizer` lets through; watches end with `closing`.
    pub fn new(
        handler: Arc<dyn Handler>,
        authorizer: Authorizer,
        metrics: Arc<RequestMetrics>,
        closing: CancellationToken,
    ) -> Self {
        let tokens = TokenAuthenticator::new(&authorizer);
        Self { handler, authorizer, tokens, metrics, closing }
    }

    /// Answers one request that came over a connection with this certificate.
    pub async fn answer(self, request: Request<Body>, certificate: Arc<ConnectionCertificate>) -> Response<Body> {
        let id = AuditId::of(request.headers());
        let span =
            tracing::info_span!("request", audit_id = %id, method = %request.method(), path = request.uri().path());
        let mut response = self.pass(request, &certificate).instrument(span).await;
        response.headers_mut().insert(AUDIT_ID, id.into_header());
        response
    }

    async fn pass(self, request: Request<Body>, certificate: &ConnectionCertificate) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let info = match self.admit(&parts, certificate) {
            Ok(info) => info,
            Err(status) => {
                self.metrics.refused(status.code);
                return refusal(&status);
            }
        };
        let long_running = info.is_long_running();
        let response = self.handler.answer(info, Request::from_parts(parts, body)).await;
        if long_running {
            response.map(|body| Body::new(EndingBody::new(body, self.closing.cancelled_owned())))
        } else {
            response
        }
    }

    fn admit(&self, parts: &http::request::Parts, certificate: &ConnectionCertificate) -> Result<RequestInfo, Status> {
        let info = RequestInfo::of(parts);
        // A stranger learns nothing of the request, not even that it is malformed.
        let identity = self.authenticate(&parts.headers, certificate)?;
        let mut info = info?;
        self.authorize(&identity, &info)?;
        info.user = Some(identity);
        Ok(info)
    }

    fn authorize(&self, identity: &Identity, info: &RequestInfo) -> Result<(), Status> {
        let attributes = Attributes::of(info);
        match self.authorizer.decide(identity, &attributes) {
            Ok(Verdict::Allowed { .. }) => Ok(()),
            Ok(Verdict::Refused { reason }) => Err(authorize::forbidden(identity, &attributes, &reason)),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// A certificate first; a bearer token where there is none, or none that is good. Who shows neither is anonymous.
    fn authenticate(&self, headers: &HeaderMap, certificate: &ConnectionCertificate) -> Result<Identity, Status> {
        match certificate.as_ref().map(|c| c.as_ref().map(|c| c.at(SystemTime::now()))) {
            Some(Ok(Ok(identity))) => return Ok(identity.clone()),
            Some(Ok(Err(e))) => tracing::debug!("{e}"),
            Some(Err(e)) => tracing::debug!("{e}"),
            None => {}
        }
        let Some(header) = headers.get(header::AUTHORIZATION) else {
            return if certificate.is_none() { Ok(Identity::anonymous()) } else { Err(Status::unauthorized()) };
        };
        let token = header
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(Status::unauthorized)?;
        let identity = self.tokens.identify(token).map_err(|e| unreadable(&e))?;
        identity.ok_or_else(Status::unauthorized)
    }
}

fn unreadable(error: &Unreadable) -> Status {
    tracing::error!(error = error as &dyn std::error::Error, "cannot look up what authorisation needs");
    Status::internal("cannot look up what authorisation needs")
}

/// A refusal, as JSON: clients that speak protobuf read it too.
fn refusal(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (code, axum::Json(status.to_json())).into_response();
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}
