//! The refusal of a request for which there is no room.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

use crate::status::Status;

/// There is no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are in flight")]
pub struct TooMany;

impl TooMany {
    /// The 429 where a body was waited for.
    pub fn to_status(self) -> Status {
        Status::too_many_requests("Too many requests, please try again later.", 1, "TooManyRequests", &self.to_string())
    }

    /// The 429, as Kubernetes sends it: no `Status`.
    pub fn to_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from("Too many requests, please try again later.\n"));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        for (name, value) in [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::RETRY_AFTER, "1"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
