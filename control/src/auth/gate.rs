//! Authenticates and authorises every request before the API sees it.
//!
//! Decides nothing itself: it has the request read once, reads the credential, asks, and answers 400, 401 or 403.

use std::{sync::Arc, time::SystemTime};

use axum::{body::Body, response::IntoResponse};
use http::{HeaderMap, Request, Response, StatusCode, header};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Identity,
    attributes::Attributes,
    authorize::{self, Decision},
    bootstrap_token::BootstrapToken,
    client_certificate::{BadCertificate, CertificateIdentity},
    ending_body::EndingBody,
    stored_facts::{StoredFacts, Unreadable},
};
use crate::{
    metrics::RequestMetrics,
    request::{
        RequestInfo,
        audit_id::{AUDIT_ID, AuditId},
    },
    status::Status,
    store::Store,
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
    facts: StoredFacts,
    metrics: Arc<RequestMetrics>,
    closing: CancellationToken,
}

impl Gate {
    /// `handler` serves whoever the gate lets through; `store` holds what it asks about; watches end with `closing`.
    pub fn new(
        handler: Arc<dyn Handler>,
        store: Arc<dyn Store>,
        metrics: Arc<RequestMetrics>,
        closing: CancellationToken,
    ) -> Self {
        Self { handler, facts: StoredFacts::new(store), metrics, closing }
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
        if is_public(parts) {
            return info;
        }
        // A stranger learns nothing of the request, not even that it is malformed.
        let identity = self.authenticate(&parts.headers, certificate)?;
        let mut info = info?;
        let attributes = Attributes::of(&info);
        let refused = |reason: &str| Err(authorize::forbidden(&identity, &attributes, reason));
        match authorize::authorize(&identity, &attributes) {
            Decision::Allow => {}
            Decision::Deny(reason) => return refused(&reason),
            Decision::AllowIf(fact) => match self.facts.holds(&fact) {
                Ok(true) => {}
                Ok(false) => return refused("no relationship found between it and this object"),
                Err(e) => return Err(unreadable(&e)),
            },
        }
        info.user = Some(identity);
        Ok(info)
    }

    /// A certificate first; a bearer token where there is none, or none that is good.
    fn authenticate(&self, headers: &HeaderMap, certificate: &ConnectionCertificate) -> Result<Identity, Status> {
        match certificate.as_ref().map(|c| c.as_ref().map(|c| c.at(SystemTime::now()))) {
            Some(Ok(Ok(identity))) => return Ok(identity.clone()),
            Some(Ok(Err(e))) => tracing::debug!("{e}"),
            Some(Err(e)) => tracing::debug!("{e}"),
            None => {}
        }
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .and_then(|(_, token)| token.trim().parse::<BootstrapToken>().ok())
            .ok_or_else(Status::unauthorized)?;
        let secret = self.facts.secret_of(&token).map_err(|e| unreadable(&e))?;
        secret.and_then(|s| token.identity(&s, Timestamp::now())).ok_or_else(Status::unauthorized)
    }
}

/// Health and version say nothing of what is stored.
fn is_public(request: &http::request::Parts) -> bool {
    matches!(request.method, http::Method::GET | http::Method::HEAD)
        && matches!(request.uri.path(), "/healthz" | "/livez" | "/readyz" | "/version")
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
