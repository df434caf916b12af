//! One request as the machinery sees it: what it is about, who asks, with which options and in which form.

pub mod accept;
pub mod body;
pub mod path;
pub mod query;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, header};

use self::{accept::Form, body::ContentType, path::Target, query::Query};
use super::Status;
use crate::auth::Identity;

/// A request about objects, with its body still unread.
pub struct Call {
    pub method: Method,
    pub target: Target,
    pub identity: Identity,
    pub query: Query,
    pub form: Form,
    pub content_type: ContentType,
}

impl Call {
    /// Reads all but the body.
    pub fn of(parts: &http::request::Parts, target: Target) -> Result<Self, Status> {
        let identity = parts.extensions.get::<Identity>().cloned().ok_or_else(Status::unauthorized)?;
        let header = |name| parts.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        Ok(Self {
            method: parts.method.clone(),
            identity,
            query: Query::of(parts.uri.query().unwrap_or_default())?,
            form: Form::of(header(header::ACCEPT).unwrap_or_default())?,
            content_type: ContentType::of(header(header::CONTENT_TYPE).unwrap_or_default()),
            target,
        })
    }
}

/// The largest body taken, as in Kubernetes.
const MAX_BODY: usize = 3 << 20;

/// Reads a whole body.
pub async fn read(body: Body) -> Result<Bytes, Status> {
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(e) = source {
            if e.is::<http_body_util::LengthLimitError>() {
                return Status::too_large(format!("Request entity too large: limit is {MAX_BODY}"));
            }
            source = e.source();
        }
        Status::bad_request(format!("cannot read the body: {error}"))
    })
}
