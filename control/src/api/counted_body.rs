//! The body of a long-running answer, which counts as under way until it ends or is dropped.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::metrics::RunningRequest;

/// A body, and the request that it answers.
pub struct CountedBody {
    inner: Body,
    /// Let go of with the body.
    _running: RunningRequest,
}

impl CountedBody {
    /// `running` is the request that `inner` answers.
    pub fn new(inner: Body, running: RunningRequest) -> Self {
        Self { inner, _running: running }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
