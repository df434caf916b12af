//! A response body that comes to a clean end when the service stops, so that a watch does not hold a shutdown up, and
//! when its request would be refused now.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// A body that may end before its content does.
pub struct EndingBody {
    inner: Body,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    withdrawn: BoxFuture<'static, ()>,
    ended: bool,
}

impl EndingBody {
    /// `closing` completes when the service stops, `withdrawn` when the client may not have the rest.
    pub fn new(
        inner: Body,
        closing: WaitForCancellationFutureOwned,
        withdrawn: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { inner, closing: Box::pin(closing), withdrawn: Box::pin(withdrawn), ended: false }
    }
}

impl HttpBody for EndingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended || self.withdrawn.as_mut().poll(cx).is_ready() {
            self.ended = true;
            return Poll::Ready(None);
        }
        // What is ready goes out first: an event that was committed is an event that a watcher may see.
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => self.closing.as_mut().poll(cx).map(|()| None),
            ready => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
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
        let mut body = EndingBody::new(endless, closing.clone().cancelled_owned(), std::future::pending());
        closing.cancel();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn what_is_withdrawn_sends_nothing_more() {
        let ready = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(b"one")));
        let (withdraw, withdrawn) = tokio::sync::oneshot::channel::<()>();
        let closing = CancellationToken::new().cancelled_owned();
        let withdrawn = async { drop(withdrawn.await) };
        let mut body = EndingBody::new(Body::from_stream(ready), closing, withdrawn);
        assert!(body.frame().await.is_some());
        drop(withdraw);
        assert!(body.frame().await.is_none() && body.frame().await.is_none());
    }
}
