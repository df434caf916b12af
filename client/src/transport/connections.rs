//! The HTTP/2 connections of a client.
//!
//! One carries all streams while it has room: a server allows so many at a time (100 in kube-apiserver, 250 in Go and
//! here). A watch never ends by itself, so a request beyond them must not wait for one of them: it gets a connection
//! more. A connection is dropped from here when it closes, when the server says that it will (GOAWAY), when it is not
//! the first and has no stream left, and when its owner gives it up; streams that are on it go on to their end.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::{Request, Response};
use hyper::client::conn::{
    TrySendError,
    http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use parking_lot::Mutex;

use super::{
    KeepAlive,
    connector::{ConnectError, Connector},
    last_read::{Heard, LastRead},
    response_body::ResponseBody,
};

/// How much of one stream the server may send before somebody reads it.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all streams of a connection: so much that each of them may be full and none of them holds up another.
/// Go's client allows 4 MiB and 1 GiB.
const CONNECTION_WINDOW: u32 = 256 << 20;
/// Streams of a connection, even if the server allows more.
const MOST_STREAMS: usize = 250;
const _: () = assert!(MOST_STREAMS < (CONNECTION_WINDOW / STREAM_WINDOW) as usize);
/// What a server allows that has not said anything yet (RFC 9113, section 6.5.2, recommends no less).
const FIRST_STREAMS: usize = 100;
/// For how long a server is taken to speak HTTP/1.1 alone, once it has chosen that.
const HTTP1_LASTS: Duration = Duration::from_secs(600);

/// All HTTP/2 connections to one server with one credential.
pub(super) struct Connections {
    connector: Connector,
    http: http2::Builder<TokioExecutor>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Vec<Arc<Connection>>,
    /// The connection that is being opened: those who wait for one wait for the same.
    opening: Option<Opening>,
    speaks_http1_since: Option<Instant>,
}

/// Runs as a task of its own, since whoever asked may give up before it is done.
type Opening = Shared<BoxFuture<'static, Result<(), ConnectError>>>;

struct Connection {
    sender: SendRequest<Body>,
    /// Requests that have not got all of their answers.
    streams: AtomicUsize,
    /// How many the server allows.
    allowed: AtomicUsize,
    last_read: LastRead,
}

/// How a request is to be sent.
pub(super) enum Way {
    /// On this stream, which is counted from now on.
    Http2(OpenStream),
    Http1,
}

/// One of the streams that a connection has room for. Dropped, it leaves room for another.
pub(super) struct OpenStream(Arc<Connection>);

impl Connections {
    pub fn new(connector: Connector, keep_alive: KeepAlive) -> Self {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            .keep_alive_while_idle(true)
            // Not adaptive: that makes both windows equal, and one stalled watch would stop all others.
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(FIRST_STREAMS);
        Self { connector, http, state: Mutex::default() }
    }

    /// A stream of a connection that has room, opened now where there is none.
    pub async fn reserve(self: &Arc<Self>) -> Result<Way, ConnectError> {
        loop {
            let opening = {
                let mut state = self.state.lock();
                if let Some(way) = state.reserve(Instant::now()) {
                    return Ok(way);
                }
                match &state.opening {
                    Some(opening) if opening.peek().is_none() => opening.clone(),
                    _ => {
                        let opening = self.begin_opening();
                        state.opening.insert(opening).clone()
                    }
                }
            };
            opening.await?;
        }
    }

    fn begin_opening(self: &Arc<Self>) -> Opening {
        let connections = self.clone();
        let task = tokio::spawn(async move { connections.open().await });
        async move { task.await.unwrap_or(Err(ConnectError::Interrupted)) }.boxed().shared()
    }

    /// Ends with nothing being opened: where nobody waited for the outcome, the next request must not get this one.
    async fn open(&self) -> Result<(), ConnectError> {
        let Connector { server, within, .. } = &self.connector;
        let late = |_| ConnectError::Late { server: server.clone(), within: *within };
        let opened = tokio::time::timeout(*within, self.connect()).await.map_err(late).flatten();
        let mut state = self.state.lock();
        state.opening = None;
        let opened = opened?;
        state.speaks_http1_since = opened.is_none().then(Instant::now);
        state.open.extend(opened);
        Ok(())
    }

    /// `None` where the server speaks HTTP/1.1.
    async fn connect(&self) -> Result<Option<Arc<Connection>>, ConnectError> {
        let Some(stream) = self.connector.open().await? else { return Ok(None) };
        let last_read = LastRead::now();
        let failed = |e| ConnectError::Handshake { server: self.connector.server.clone(), source: Arc::new(e) };
        let (sender, driver) = self.http.handshake(Heard::new(stream, last_read.clone())).await.map_err(failed)?;
        let (streams, allowed) = (AtomicUsize::new(0), AtomicUsize::new(FIRST_STREAMS));
        let connection = Arc::new(Connection { sender, streams, allowed, last_read });
        // Weak: a connection that nobody can send on any more ends with its last stream.
        let told = Arc::downgrade(&connection);
        tokio::spawn(async move {
            let mut driver = pin!(driver);
            let mut streams = 0;
            let ended = poll_fn(|cx| {
                // Before its end: that ends the streams.
                streams = told.upgrade().map_or(0, |connection| connection.streams.load(Ordering::Relaxed));
                let polled = driver.as_mut().poll(cx);
                if let Some(connection) = told.upgrade() {
                    connection.allowed.store(driver.current_max_send_streams().min(MOST_STREAMS), Ordering::Relaxed);
                }
                polled
            });
            if let Err(error) = ended.await {
                let error = &error as &dyn std::error::Error;
                match streams {
                    0 => tracing::debug!(error, "a connection to the API without requests and watches ended"),
                    _ => tracing::warn!(
                        error,
                        streams,
                        "a connection to the API was lost, with its requests and watches"
                    ),
                }
            }
        });
        Ok(Some(connection))
    }

    /// Sends no more requests on connections on which nothing was read since then. Streams that are on them go on until
    /// they end, or until a ping is not answered.
    pub fn forget_silent_since(&self, instant: Instant) {
        self.state.lock().open.retain(|connection| connection.last_read.is_since(instant));
    }

    /// How many connections there are that requests are sent on.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.state.lock().open.iter().filter(|connection| !connection.sender.is_closed()).count()
    }
}

impl State {
    /// The first connection with room, so that later ones become idle; those that are so are given up.
    fn reserve(&mut self, now: Instant) -> Option<Way> {
        self.open.retain(|connection| !connection.sender.is_closed());
        if let Some(first) = self.open.iter().position(|connection| connection.has_room()) {
            let connection = self.open[first].clone();
            connection.streams.fetch_add(1, Ordering::Relaxed);
            let later = self.open.split_off(first);
            self.open.extend(later.into_iter().filter(|later| later.streams.load(Ordering::Relaxed) > 0));
            return Some(Way::Http2(OpenStream(connection)));
        }
        let since = self.speaks_http1_since?;
        (now.saturating_duration_since(since) < HTTP1_LASTS).then_some(Way::Http1)
    }
}

impl Connection {
    fn has_room(&self) -> bool {
        self.streams.load(Ordering::Relaxed) < self.allowed.load(Ordering::Relaxed).max(1)
    }
}

impl OpenStream {
    /// Sends a request; an error holds it where the server has not seen it.
    pub async fn send(self, request: Request<Body>) -> Result<Response<ResponseBody>, TrySendError<Request<Body>>> {
        let response = self.0.sender.clone().try_send_request(request).await?;
        Ok(response.map(|body| ResponseBody::of(self, body)))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
