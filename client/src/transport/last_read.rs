//! When a connection was last heard of.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Read, ReadBufCursor, Write};

/// The time at which something was last read: also the answer to a ping. Clones are of the same connection.
#[derive(Clone)]
pub(super) struct LastRead {
    opened: Instant,
    /// Nanoseconds from `opened`: enough for 500 years.
    after: Arc<AtomicU64>,
}

impl LastRead {
    /// Of a connection that answered when it was opened.
    pub fn now() -> Self {
        Self { opened: Instant::now(), after: Arc::default() }
    }

    /// Whether something was read then or later.
    pub fn is_since(&self, instant: Instant) -> bool {
        let after = Duration::from_nanos(self.after.load(Ordering::Relaxed));
        after >= instant.saturating_duration_since(self.opened)
    }

    fn set(&self) {
        let after = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.after.fetch_max(after, Ordering::Relaxed);
    }
}

/// A stream that says when it was last read from.
pub(super) struct Heard<S> {
    stream: S,
    last: LastRead,
}

impl<S> Heard<S> {
    pub fn new(stream: S, last: LastRead) -> Self {
        Self { stream, last }
    }
}

impl<S: Read + Unpin> Read for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.last.set();
        }
        read
    }
}

impl<S: Write + Unpin> Write for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}
