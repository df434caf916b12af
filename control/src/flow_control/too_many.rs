//! The refusal of a request for which there is no room.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

use crate::status::Status;

/// There is no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are in flight")]
pub struct TooMany {
    /// After how many seconds its client is to come again.
    pub retry_after: u32,
}

impl TooMany {
    /// Where no level says when.
    pub const IN_A_SECOND: Self = Self { retry_after: 1 };

    /// The 429 where a body was waited for.
    pub fn to_status(self) -> Status {
        let message = "Too many requests, please try again later.";
        Status::too_many_requests(message, self.retry_after, "TooManyRequests", &self.to_string())
    }

    /// The 429, as Kubernetes sends it: no `Status`.
    pub fn to_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from("Too many requests, please try again later.\n"));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        for (name, value) in
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
        {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response.headers_mut().insert(header::RETRY_AFTER, self.retry_after.into());
        response
    }
}
