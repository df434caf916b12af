//! Accepts connections, performs TLS handshakes, and passes requests to the gate until it is stopped.
//!
//! Decides how many connections there may be, and how long each step of one may take; knows nothing of the API.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use futures::FutureExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::connection_limit::{ConnectionLimit, Counted};
use crate::{
    auth::{client_certificate::ClientCertificates, gate::Gate},
    request::{ConnectionPermit, PeerAddress},
    supervise::Supervisor,
};

/// Connections at one time; beyond them new ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16 * 1024;
/// Connections of one address, and of all, that have not shown a good certificate.
const MOST_OF_ONE_STRANGER: usize = 256;
const MOST_STRANGERS: usize = 2048;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of one answer to the next request's header. Longer than clients keep an idle connection (90 s in Go and
/// in hyper): the one who sends requests should be the one who closes, or a request may meet a connection that is just
/// going.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// HTTP/2 pings, so that a client that is gone is noticed even while nothing is sent.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// TCP's own probes, of a connection on which nothing was sent for that long: HTTP/1 has no pings, and a watch may be
/// silent for an hour. A node that lost power leaves its connections open; in time they would fill the limit above.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// Between two probes. After four without an answer the connection is closed.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
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
    /// Starts to accept, as a task of `supervisor`. `closing` is cancelled by [`Listener::drain`]; the gate ends its
    /// watches on it.
    pub fn start(
        supervisor: &Supervisor,
        socket: TcpListener,
        tls: rustls::ServerConfig,
        clients: Arc<ClientCertificates>,
        gate: Gate,
        closing: CancellationToken,
    ) -> Self {
        let tasks = TaskTracker::new();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let shared = Arc::new(Shared { acceptor, clients, gate, http: http(), closing: closing.clone() });
        let (strangers, connections) = (ConnectionLimit::new(MOST_OF_ONE_STRANGER, MOST_STRANGERS), tasks.clone());
        accept_supervised(supervisor, socket, move |stream, peer, permit| {
            let (shared, stranger) = (shared.clone(), strangers.admit(peer.ip()));
            connections.spawn(async move {
                serve(stream, peer, ConnectionPermit(Arc::new(permit)), stranger, shared).await;
            });
        });
        Self { closing, tasks }
    }

    /// Ends watches, waits for requests in progress, and closes connections that take too long. New connections are
    /// accepted until the supervisor shuts down, which is to come before.
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

/// Gives every connection to `take`, with what it gives back when it ends. Connections that are there are not touched
/// when the task has to be started again.
fn accept_supervised(
    supervisor: &Supervisor,
    socket: TcpListener,
    take: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) + Send + Sync + 'static,
) {
    let (socket, permits, take) = (Arc::new(socket), Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(take));
    supervisor.spawn("listener", move |stop| {
        let (socket, permits, take) = (socket.clone(), permits.clone(), take.clone());
        async move { accept(&socket, &permits, &*take, &stop).await }.boxed()
    });
}

async fn accept(
    socket: &TcpListener,
    permits: &Arc<Semaphore>,
    take: &(impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) + Sync),
    stop: &CancellationToken,
) {
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.expect("nobody closes the semaphore");
            (permit, socket.accept().await)
        };
        let Some((permit, accepted)) = stop.run_until_cancelled(next).await else { return };
        match accepted {
            Ok((stream, peer)) => take(stream, peer, permit),
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

async fn serve(stream: TcpStream, peer: SocketAddr, place: ConnectionPermit, stranger: Counted, shared: Arc<Shared>) {
    if let Err(e) = set_options(&stream) {
        tracing::debug!(%peer, "cannot set the options of a connection: {e}");
    }
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, shared.acceptor.accept(stream));
    let stream = tokio::select! {
        () = shared.closing.cancelled() => return,
        () = stranger.is_cut() => return tracing::debug!(%peer, "cut: it has not shown who it is, and others wait"),
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return tracing::debug!(%peer, "TLS handshake failed: {e}"),
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        },
    };
    let certificate = Arc::new(connection_certificate(&stream, &shared.clients));
    let stranger = Some(stranger).filter(|_| !matches!(*certificate, Some(Ok(_))));
    let gate = shared.gate.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        request.extensions_mut().insert(place.clone());
        let (gate, certificate) = (gate.clone(), certificate.clone());
        async move { Ok::<_, std::convert::Infallible>(gate.answer(request.map(Body::new), certificate).await) }
    });
    let connection = shared.http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let cut = async {
        match &stranger {
            Some(stranger) => stranger.is_cut().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = shared.closing.cancelled() => {}, () = cut => {} } } => {
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

fn set_options(stream: &TcpStream) -> io::Result<()> {
    // A watch event is small and must not wait for the next one.
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

fn connection_certificate(
    stream: &TlsStream<TcpStream>,
    clients: &ClientCertificates,
) -> crate::auth::gate::ConnectionCertificate {
    stream.get_ref().1.peer_certificates().map(|chain| clients.identify(chain))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::{BodyExt, Empty};
    use hyper::body::Bytes;
    use rustls::{ClientConfig, RootCertStore, crypto::ring};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
    use tokio::io::AsyncReadExt;
    use tokio_rustls::TlsConnector;

    use super::{super::certificates::Certificates, *};
    use crate::{
        Config,
        auth::{authorizer::Authorizer, gate::Handler},
        metrics::Metrics,
        request::{RequestInfo, Verb},
        store::Embedded,
    };

    /// Answers every watch with one line and no end, and everything else with nothing.
    struct EndlessWatch;

    #[async_trait::async_trait]
    impl Handler for EndlessWatch {
        fn is_long_running(&self, info: &RequestInfo) -> bool {
            info.verb == Verb::Watch
        }

        async fn answer(&self, info: RequestInfo, request: http::Request<Body>) -> http::Response<Body> {
            assert!(request.extensions().get::<ConnectionPermit>().is_some());
            if info.verb != Verb::Watch {
                return http::Response::default();
            }
            let first = futures::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"first\n"))]);
            http::Response::new(Body::from_stream(first.chain(futures::stream::pending())))
        }
    }

    /// A listener before [`EndlessWatch`].
    struct Served {
        listener: Listener,
        supervisor: Supervisor,
        address: SocketAddr,
        roots: RootCertStore,
        admin: (CertificateDer<'static>, PrivateKeyDer<'static>),
        _dir: tempfile::TempDir,
    }

    async fn serve_endless_watch() -> Served {
        let dir = tempfile::tempdir().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = Config::new(dir.path());
        let certificates = Certificates::set_up(&config, address, None, provider.clone()).unwrap();
        let store = Embedded::open(&dir.path().join("store"), |_: &str, _: &str, _: &[u8]| {
            Err(serde::de::Error::custom("it is empty"))
        })
        .unwrap();
        let closing = CancellationToken::new();
        let (authorizer, metrics) = (Authorizer::new(Arc::new(store)), Metrics::default());
        let gate = Gate::new(Arc::new(EndlessWatch), authorizer, metrics.requests().clone(), closing.clone());
        let clients = certificates.clients.clone();
        let tls = super::super::tls::server_config(certificates.shown.clone(), clients.clone(), provider).unwrap();
        let admin = std::fs::read(dir.path().join("pki/admin.pem")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificates.authority.certificate().clone()).unwrap();
        let supervisor = Supervisor::default();
        Served {
            listener: Listener::start(&supervisor, socket, tls, clients, gate, closing),
            supervisor,
            address,
            roots,
            admin: (CertificateDer::from_pem_slice(&admin).unwrap(), PrivateKeyDer::from_pem_slice(&admin).unwrap()),
            _dir: dir,
        }
    }

    impl Served {
        async fn connect(&self, protocol: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
            let mut config = builder
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(self.roots.clone())
                .with_client_auth_cert(vec![self.admin.0.clone()], self.admin.1.clone_key())
                .unwrap();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            let tcp = TcpStream::connect(self.address).await.unwrap();
            let name = ServerName::from(self.address.ip());
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
        }

        fn request(&self, path: &str) -> hyper::Request<Empty<Bytes>> {
            hyper::Request::get(format!("https://{}{path}", self.address)).body(Empty::new()).unwrap()
        }
    }

    #[tokio::test]
    async fn a_connection_whose_other_end_lost_power_is_noticed() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (stream, _) = socket.accept().await.unwrap();
        set_options(&stream).unwrap();
        let options = SockRef::from(&stream);
        assert!(options.keepalive().unwrap() && stream.nodelay().unwrap());
        let noticed = options.tcp_keepalive_time().unwrap()
            + options.tcp_keepalive_interval().unwrap() * options.tcp_keepalive_retries().unwrap();
        assert_eq!(noticed, Duration::from_secs(120), "Linux probes after two hours unless told");
    }

    #[tokio::test]
    async fn a_watch_ends_when_the_listener_drains() {
        let served = serve_endless_watch().await;
        let (mut one, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(served.connect("http/1.1").await)).await.unwrap();
        tokio::spawn(connection);
        let stream = served.connect("h2").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut two, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let watch = "/api/v1/pods?watch=true";
        let mut bodies = [
            one.send_request(served.request(watch)).await.unwrap().into_body(),
            two.send_request(served.request(watch)).await.unwrap().into_body(),
        ];
        for body in &mut bodies {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first\n");
        }
        let ends = async {
            for body in &mut bodies {
                let rest = body.collect().await.expect("a clean end, no error");
                assert!(rest.to_bytes().is_empty());
            }
        };
        let stop = async {
            served.supervisor.shutdown().await;
            served.listener.drain().await;
        };
        tokio::time::timeout(DRAIN_TIMEOUT / 2, async { tokio::join!(stop, ends) }).await.unwrap();
        assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_listener_that_panics_accepts_again_and_is_counted() {
        let (supervisor, socket) = (Supervisor::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let (taken, mut peers) = tokio::sync::mpsc::unbounded_channel();
        let first = std::sync::atomic::AtomicBool::new(true);
        accept_supervised(&supervisor, socket, move |_, peer, _| {
            let is_first = first.swap(false, std::sync::atomic::Ordering::Relaxed);
            assert!(!is_first, "the first connection is one too many");
            taken.send(peer).unwrap();
        });
        let _lost = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        assert_eq!(peers.recv().await, Some(second.local_addr().unwrap()));
        let [status] = supervisor.tasks().try_into().expect("one task");
        assert_eq!((status.name, status.restarts), ("listener", 1));
        supervisor.shutdown().await;
    }

    #[tokio::test]
    async fn silent_strangers_do_not_pile_up() {
        let served = serve_endless_watch().await;
        let mut silent = Vec::new();
        for _ in 0..400 {
            silent.push(TcpStream::connect(served.address).await.unwrap());
        }
        // Well before the time that a handshake may take.
        let cut = tokio::time::timeout(HANDSHAKE_TIMEOUT / 2, silent[0].read_u8()).await;
        assert!(cut.expect("the oldest is cut").is_err());
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(served.connect("http/1.1").await)).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(client.send_request(served.request("/version")).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn a_client_that_speaks_no_tls_is_dropped_and_hurts_nobody() {
        let served = serve_endless_watch().await;
        let mut plain = TcpStream::connect(served.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"));
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(served.connect("http/1.1").await)).await.unwrap();
        tokio::spawn(connection);
        let answer = client.send_request(served.request("/version")).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["audit-id"].len(), 36);
    }
}
