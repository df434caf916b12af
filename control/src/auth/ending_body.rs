//! A response body that comes to a clean end when the service stops, so that a watch does not hold a shutdown up.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// A body that ends when the service stops.
pub struct EndingBody {
    inner: Body,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl EndingBody {
    /// `closing` completes when the service stops.
    pub fn new(inner: Body, closing: WaitForCancellationFutureOwned) -> Self {
        Self { inner, closing: Box::pin(closing) }
    }
}

impl HttpBody for EndingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // What is ready goes out first: an event that was committed is an event that a watcher may see.
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => self.closing.as_mut().poll(cx).map(|()| None),
            ready => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::BodyExt;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn a_stream_without_end_ends_when_the_service_closes() {
        let closing = CancellationToken::new();
        let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"one"))]);
        let endless = Body::from_stream(first.chain(futures::stream::pending()));
        let mut body = EndingBody::new(endless, closing.clone().cancelled_owned());
        closing.cancel();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert!(body.frame().await.is_none());
    }
}
