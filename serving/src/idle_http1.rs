//! A connection over HTTP/1 that holds no buffers while nothing is asked on it.
//!
//! hyper keeps 16 KiB of buffers and its state for as long as a connection lasts, and most connections are idle most of
//! the time. So the connection is taken apart once nothing was asked for a moment ([`LINGER`]): its stream and service
//! are left, and the next bytes that come have it put together again.
//!
//! That is done only where hyper has nothing under way: it waits for the header of a request ([`header_timer`]), so
//! that all before was read to its end, all answers are sent and flushed, and no byte of another request has come. Else
//! one would have to know where in a message the stream is: such a connection stays as it is. What hyper has read
//! beyond the last request is taken over. HTTP itself, its limits and times are hyper's; the time that a request's
//! header may take goes on while the connection is taken apart.

mod header_timer;

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::Body;
use hyper::{
    Request, Response,
    body::Incoming,
    rt::{Read, ReadBuf, ReadBufCursor, Write},
    server::conn::http1,
    service::{HttpService, Service},
};
use tokio::time::{Instant, Sleep};

use self::header_timer::HeaderTimer;
use crate::{guarded_body::GuardedBody, http_connection};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// For how long nothing is asked before the connection is taken apart: whoever asks without a pause pays nothing.
const LINGER: Duration = Duration::from_millis(100);
/// How long the end of a connection may take: a client that takes nothing is not waited for.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// What is read of a request to begin with: most headers fit.
const FIRST_READ: usize = 1024;

/// The connection; a future that ends with it.
pub struct IdleHttp1<I, S>
where
    Counting<S>: HttpService<Incoming>,
{
    state: State<I, S>,
    /// Until when the header of a request is to have come while it is taken apart, and until when it is to have ended
    /// while it is closed. Else when to look whether it is idle.
    timer: Pin<Box<Sleep>>,
    is_closing: bool,
}

enum State<I, S>
where
    Counting<S>: HttpService<Incoming>,
{
    Apart { stream: I, service: S },
    Together { connection: Box<Together<I, S>>, seen: Arc<Seen>, looked_at: Option<usize> },
    Closing { stream: I },
    Ended,
}

type Together<I, S> = http1::UpgradeableConnection<Watched<I>, Counting<S>>;

/// What was seen of a connection since it was put together.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicUsize,
    /// Requests whose answer is not sent.
    under_way: AtomicUsize,
    /// hyper waits for the header of a request.
    awaits_header: AtomicBool,
    /// Something was read since it does.
    has_read: AtomicBool,
    /// All that was written is flushed.
    is_flushed: AtomicBool,
}

/// A stream whose use is noted.
struct Watched<I> {
    /// What is to be read before it.
    first: Bytes,
    stream: I,
    seen: Arc<Seen>,
}

/// A service whose requests are counted.
pub struct Counting<S> {
    service: S,
    seen: Arc<Seen>,
}

/// A request that is answered. Dropped, the answer is sent or given up.
pub struct UnderWay(Arc<Seen>);

/// An answer that is being made.
pub struct Answering<F> {
    answer: F,
    under_way: Option<UnderWay>,
}

impl<I, S, B> IdleHttp1<I, S>
where
    I: Read + Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Unpin,
    S::Error: Into<Error>,
    B: Body + Unpin + 'static,
    B::Error: Into<Error>,
{
    /// Serves a stream.
    pub fn serve(stream: I, service: S) -> Self {
        let timer = Box::pin(tokio::time::sleep(http_connection::HEADER_TIMEOUT));
        Self { state: State::Apart { stream, service }, timer, is_closing: false }
    }

    /// Ends the connection after the answers that are under way.
    pub fn graceful_shutdown(&mut self) {
        self.is_closing = true;
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Apart { stream, .. } => self.close(stream),
            State::Together { mut connection, seen, looked_at } => {
                Pin::new(&mut *connection).graceful_shutdown();
                self.state = State::Together { connection, seen, looked_at };
            }
            state @ (State::Closing { .. } | State::Ended) => self.state = state,
        }
    }

    fn close(&mut self, stream: I) {
        self.timer.as_mut().reset(after(CLOSE_WITHIN));
        self.state = State::Closing { stream };
    }

    /// The bytes that have come, none at the stream's end; pending while none have.
    fn poll_first(stream: &mut I, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut room = [MaybeUninit::uninit(); FIRST_READ];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(stream).poll_read(cx, read.unfilled()))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
    }

    fn put_together(stream: I, service: S, first: Bytes) -> State<I, S> {
        let seen = Arc::<Seen>::default();
        let stream = Watched { first, stream, seen: seen.clone() };
        let service = Counting { service, seen: seen.clone() };
        let mut http = http_connection::http1();
        http.timer(HeaderTimer(seen.clone()));
        let connection = Box::new(http.serve_connection(stream, service).with_upgrades());
        State::Together { connection, seen, looked_at: None }
    }

    /// Completes once nothing was asked for a moment; pending, too, for a connection that is not idle.
    fn poll_idle(
        timer: &mut Pin<Box<Sleep>>,
        seen: &Seen,
        looked_at: &mut Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        while seen.is_idle() {
            let requests = seen.requests.load(Ordering::Relaxed);
            if looked_at.is_none() {
                timer.as_mut().reset(after(LINGER));
                *looked_at = Some(requests);
            }
            ready!(timer.as_mut().poll(cx));
            if looked_at.take() == Some(requests) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Error>>> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Apart { mut stream, service } => match Self::poll_first(&mut stream, cx) {
                Poll::Ready(Ok(first)) if first.is_empty() => self.close(stream),
                Poll::Ready(Ok(first)) => {
                    // The timer runs on until a header has come: it is hyper's limit only from then on, which hyper
                    // takes for the time between requests, too.
                    self.state = Self::put_together(stream, service, first);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending if self.timer.as_mut().poll(cx).is_ready() => self.close(stream),
                Poll::Pending => {
                    self.state = State::Apart { stream, service };
                    return Poll::Pending;
                }
            },
            State::Together { mut connection, seen, mut looked_at } => {
                if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(cx) {
                    return Poll::Ready(Some(ended.map_err(Into::into)));
                }
                let has_header = seen.requests.load(Ordering::Relaxed) > 0;
                if !has_header && !self.is_closing && self.timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(Err("a request's header did not come in time".into())));
                }
                let is_idle =
                    !self.is_closing && Self::poll_idle(&mut self.timer, &seen, &mut looked_at, cx).is_ready();
                if !is_idle {
                    self.state = State::Together { connection, seen, looked_at };
                    return Poll::Pending;
                }
                let Some(parts) = connection.into_parts() else { return Poll::Ready(Some(Ok(()))) };
                let (Watched { first, stream, .. }, Counting { service, .. }) = (parts.io, parts.service);
                self.state = match parts.read_buf.is_empty() && first.is_empty() {
                    true => {
                        self.timer.as_mut().reset(after(http_connection::HEADER_TIMEOUT));
                        State::Apart { stream, service }
                    }
                    // The rest of `first` comes after what was read of it.
                    false => {
                        let read = [parts.read_buf, first].concat().into();
                        self.timer.as_mut().reset(after(http_connection::HEADER_TIMEOUT));
                        Self::put_together(stream, service, read)
                    }
                };
            }
            State::Closing { mut stream } => {
                let is_closed = Pin::new(&mut stream).poll_shutdown(cx)?.is_ready();
                if !is_closed && self.timer.as_mut().poll(cx).is_pending() {
                    self.state = State::Closing { stream };
                    return Poll::Pending;
                }
                return Poll::Ready(Some(Ok(())));
            }
            State::Ended => return Poll::Ready(Some(Ok(()))),
        }
        Poll::Ready(None)
    }
}

fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}

impl<I, S, B> Future for IdleHttp1<I, S>
where
    I: Read + Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Unpin,
    S::Future: Unpin,
    S::Error: Into<Error>,
    B: Body + Unpin + 'static,
    B::Error: Into<Error>,
{
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(ended) = ready!(self.poll_once(cx)) {
                return Poll::Ready(ended);
            }
        }
    }
}

impl Seen {
    fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.awaits_header.store(false, Ordering::Relaxed);
        self.is_flushed.store(false, Ordering::Relaxed);
    }

    fn awaits_header(&self) {
        self.awaits_header.store(true, Ordering::Relaxed);
        // What was read until now was of the messages before, or is in hyper's buffer, which is taken over.
        self.has_read.store(false, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        let [awaits_header, has_read, is_flushed] =
            [&self.awaits_header, &self.has_read, &self.is_flushed].map(|seen| seen.load(Ordering::Relaxed));
        let has_answered = self.requests.load(Ordering::Relaxed) > 0 && self.under_way.load(Ordering::Relaxed) == 0;
        has_answered && awaits_header && is_flushed && !has_read
    }
}

impl<S, B> Service<Request<Incoming>> for Counting<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Unpin,
    B: Body + Unpin,
{
    type Response = Response<GuardedBody<B, UnderWay>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.seen.requested();
        self.seen.under_way.fetch_add(1, Ordering::Relaxed);
        let under_way = Some(UnderWay(self.seen.clone()));
        Answering { answer: self.service.call(request), under_way }
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
    B: Body + Unpin,
{
    type Output = Result<Response<GuardedBody<B, UnderWay>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        let under_way = self.under_way.take().expect("a future is not polled once it is ready");
        Poll::Ready(answer.map(|answer| answer.map(|body| GuardedBody::new(body, under_way))))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<I: Read + Unpin> Read for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..length]);
            self.first.advance(length);
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.seen.has_read.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<I: Write + Unpin> Watched<I> {
    fn stream_to_write(&mut self) -> Pin<&mut I> {
        self.seen.is_flushed.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream)
    }
}

impl<I: Write + Unpin> Write for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream_to_write().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream_to_write().poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream_to_write().poll_flush(cx))?;
        self.seen.is_flushed.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream_to_write().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
