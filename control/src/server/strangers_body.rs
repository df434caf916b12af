//! The body of an answer to a stranger: the request counts as under way until all of it is sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};

use crate::auth::connection_places::StrangersRequest;

/// A body with the request that it answers.
pub struct StrangersBody {
    body: Body,
    /// Dropped with the body.
    _request: StrangersRequest,
}

impl StrangersBody {
    /// `body` is the answer to `request`.
    pub fn new(body: Body, request: StrangersRequest) -> Self {
        Self { body, _request: request }
    }
}

impl http_body::Body for StrangersBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
