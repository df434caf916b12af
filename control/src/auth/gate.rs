//! Stands before the API's router: nobody passes whose name is not known and whose request is not allowed.
//!
//! Decides nothing itself: it reads the credential, asks, and answers 401 or 403.

use std::{sync::Arc, time::SystemTime};

use axum::{Router, body::Body, response::IntoResponse};
use http::{HeaderMap, Request, Response, StatusCode, header};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Identity,
    attributes::Attributes,
    authorize::{self, Decision},
    bootstrap_token::BootstrapToken,
    client_certificate::{BadCertificate, CertificateIdentity},
    ending_body::EndingBody,
    stored_facts::{StoredFacts, Unreadable},
};
use crate::{api::Status, store::Store};

/// The certificate a connection came with, if any, judged once.
pub type ConnectionCertificate = Option<Result<CertificateIdentity, BadCertificate>>;

#[derive(Clone)]
pub struct Gate {
    router: Router,
    facts: StoredFacts,
    closing: CancellationToken,
}

impl Gate {
    /// `router` serves whoever the gate lets through; `store` holds what it asks about; watches end with `closing`.
    pub fn new(router: Router, store: Arc<dyn Store>, closing: CancellationToken) -> Self {
        Self { router, facts: StoredFacts::new(store), closing }
    }

    /// Answers one request that came over a connection with this certificate.
    pub async fn answer(self, mut request: Request<Body>, certificate: Arc<ConnectionCertificate>) -> Response<Body> {
        let attributes = Attributes::of(request.method(), request.uri().path(), request.uri().query());
        if !is_public(&request) {
            match self.admit(request.headers(), &attributes, &certificate) {
                Ok(identity) => {
                    request.extensions_mut().insert(identity);
                }
                Err(status) => return refusal(&status),
            }
        }
        let Ok(response) = self.router.oneshot(request).await;
        if attributes.is_long_running() {
            response.map(|body| Body::new(EndingBody::new(body, self.closing.cancelled_owned())))
        } else {
            response
        }
    }

    fn admit(
        &self,
        headers: &HeaderMap,
        attributes: &Attributes,
        certificate: &ConnectionCertificate,
    ) -> Result<Identity, Status> {
        let identity = self.authenticate(headers, certificate)?;
        match authorize::authorize(&identity, attributes) {
            Decision::Allow => Ok(identity),
            Decision::Deny(reason) => Err(authorize::forbidden(&identity, attributes, &reason)),
            Decision::AllowIf(fact) => match self.facts.holds(&fact) {
                Ok(true) => Ok(identity),
                Ok(false) => {
                    let reason = "no relationship found between it and this object";
                    Err(authorize::forbidden(&identity, attributes, reason))
                }
                Err(e) => Err(unreadable(&e)),
            },
        }
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
fn is_public(request: &Request<Body>) -> bool {
    matches!(*request.method(), http::Method::GET | http::Method::HEAD)
        && matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz" | "/version")
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
