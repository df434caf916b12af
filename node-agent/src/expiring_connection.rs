//! A connection that carries nothing more once its time is over, whatever was made of it: requests, or a stream after
//! an upgrade, which the HTTP server knows nothing of any more.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// `inner`, until its end.
pub struct ExpiringConnection<S> {
    inner: S,
    end: Option<End>,
}

/// A timer for each half: these may belong to different tasks, and a timer wakes only one.
struct End {
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
}

impl<S> ExpiringConnection<S> {
    /// Ends after `lifetime`, or never.
    pub fn new(inner: S, lifetime: Option<Duration>) -> Self {
        let timer = |lifetime| Box::pin(tokio::time::sleep(lifetime));
        Self { inner, end: lifetime.map(|lifetime| End { reading: timer(lifetime), writing: timer(lifetime) }) }
    }
}

/// Polls until the timer's end, and has the task woken at it.
fn poll_until<T>(
    timer: Option<&mut Pin<Box<Sleep>>>,
    context: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    let Some(timer) = timer else { return poll(context) };
    if timer.deadline() > Instant::now() {
        let polled = poll(context);
        if polled.is_ready() {
            return polled;
        }
        ready!(timer.as_mut().poll(context));
    }
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client certificate of this connection has ended")))
}

impl<S: AsyncRead + Unpin> AsyncRead for ExpiringConnection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, end } = &mut *self;
        let timer = end.as_mut().map(|end| &mut end.reading);
        poll_until(timer, context, |context| Pin::new(inner).poll_read(context, buffer))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ExpiringConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { inner, end } = &mut *self;
        let timer = end.as_mut().map(|end| &mut end.writing);
        poll_until(timer, context, |context| Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, end } = &mut *self;
        let timer = end.as_mut().map(|end| &mut end.writing);
        poll_until(timer, context, |context| Pin::new(inner).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, end } = &mut *self;
        let timer = end.as_mut().map(|end| &mut end.writing);
        poll_until(timer, context, |context| Pin::new(inner).poll_flush(context))
    }

    /// Also after the end.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_connection_carries_nothing_after_its_end_and_who_waits_on_it_is_woken() {
        let (mut far, near) = tokio::io::duplex(4);
        let mut near = ExpiringConnection::new(near, Some(Duration::from_millis(50)));
        near.write_all(b"full").await.unwrap();
        let (mut reading, mut writing) = tokio::io::split(near);
        let reader = tokio::spawn(async move { reading.read(&mut [0; 8]).await.unwrap_err().kind() });
        // The far side takes nothing, so that this waits too.
        assert_eq!(writing.write(b"more").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(reader.await.unwrap(), io::ErrorKind::TimedOut);
        far.read_exact(&mut [0; 4]).await.unwrap();
        assert!(writing.write(b"more").await.is_err(), "though there is room now");
    }

    #[tokio::test]
    async fn a_connection_without_an_end_goes_on() {
        let (mut far, near) = tokio::io::duplex(4);
        let mut near = ExpiringConnection::new(near, None);
        near.write_all(b"text").await.unwrap();
        let mut text = [0; 4];
        far.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"text");
    }
}
