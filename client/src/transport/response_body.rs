//! The body of an answer, which holds the stream that it comes by until it has ended.
//!
//! Unlike `GuardedBody` of `fairlead_serving`, which keeps what it has until it is dropped, it gives its stream back
//! with its last frame: whoever reads an answer to its end may keep the body, and others need the stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connections::OpenStream;

/// A body, and its stream where it shares a connection with others.
pub(super) struct ResponseBody {
    body: Incoming,
    stream: Option<OpenStream>,
}

impl ResponseBody {
    /// Has a connection of its own.
    pub fn alone(body: Incoming) -> Self {
        Self { body, stream: None }
    }

    /// One of several on a connection.
    pub fn of(stream: OpenStream, body: Incoming) -> Self {
        // An answer without a body is over when its header has come.
        let stream = Some(stream).filter(|_| !body.is_end_stream());
        Self { body, stream }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.stream = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
