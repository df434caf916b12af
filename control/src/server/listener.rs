//! Accepts connections, shakes hands, and hands requests to the gate until told to stop.
//!
//! Decides how many connections there may be and how long one may take for what; knows nothing of the API.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::auth::{client_certificate::ClientCertificates, gate::Gate};

/// Connections at one time; beyond them new ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// HTTP/2 pings: a client that is gone is noticed although it has nothing to say.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long requests under way may take to end after a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection: client-go puts every watch of a process on one.
const MAX_STREAMS: u32 = 1000;

/// Serves the gate over TLS until it is drained.
pub struct Listener {
    closing: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    acceptor: TlsAcceptor,
    clients: Arc<ClientCertificates>,
    gate: Gate,
    http: auto::Builder<TokioExecutor>,
    closing: CancellationToken,
}

impl Listener {
    /// Starts to accept. `closing` is cancelled by [`Listener::drain`]; the gate ends its watches on it.
    pub fn start(
        socket: TcpListener,
        tls: rustls::ServerConfig,
        clients: Arc<ClientCertificates>,
        gate: Gate,
        closing: CancellationToken,
    ) -> Self {
        let tasks = TaskTracker::new();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let shared = Arc::new(Shared { acceptor, clients, gate, http: http(), closing: closing.clone() });
        tasks.spawn(accept(socket, shared, tasks.clone()));
        Self { closing, tasks }
    }

    /// Accepts no more, ends watches, lets requests under way come to their end, and cuts what takes too long.
    pub async fn drain(self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

async fn accept(socket: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shared.closing.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let shared = shared.clone();
                tasks.spawn(async move {
                    let _permit = permit;
                    serve(stream, peer, shared).await;
                });
            }
            // What went wrong with the one connection is over; a lack of descriptors passes when others end.
            Err(e) if is_of_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    // A watch event is small and must not wait for the next one.
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(%peer, "cannot set TCP_NODELAY: {e}");
    }
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, shared.acceptor.accept(stream));
    let stream = tokio::select! {
        () = shared.closing.cancelled() => return,
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return tracing::debug!(%peer, "TLS handshake failed: {e}"),
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        },
    };
    let certificate = Arc::new(judged(&stream, &shared.clients));
    let gate = shared.gate.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (gate, certificate) = (gate.clone(), certificate.clone());
        async move { Ok::<_, std::convert::Infallible>(gate.answer(request.map(Body::new), certificate).await) }
    });
    let connection = shared.http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(%peer, "cut: it did not end in time"),
            }
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%peer, "connection ended: {e}");
    }
}

fn judged(stream: &TlsStream<TcpStream>, clients: &ClientCertificates) -> crate::auth::gate::ConnectionCertificate {
    stream.get_ref().1.peer_certificates().map(|chain| clients.identify(chain))
}
