//! Listeners with real TLS on this host.

mod counted_allocations;
mod crowds;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fairlead_serving::{guarded_body::GuardedBody, http_connection::Pings};
use futures::{FutureExt, StreamExt, future::join_all};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

use super::{
    super::{
        certificates::Certificates,
        connection::{DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, StrangersTimes},
        descriptors,
    },
    *,
};
use crate::{
    Config,
    auth::{
        authorizer::Authorizer,
        connection_places::{ConnectionPlaces, PlaceLimits},
        gate::{Gate, Handler},
        pki::{Authority, CertificateSubject, Usage},
    },
    metrics::{ConnectionMetrics, Metrics},
    request::{ConnectionPermit, RequestInfo, Verb},
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

/// Answers with a short text, which keeps this alive.
struct Guarded(Arc<()>);

#[async_trait::async_trait]
impl Handler for Guarded {
    fn is_long_running(&self, _: &RequestInfo) -> bool {
        false
    }

    async fn answer(&self, _: RequestInfo, _: http::Request<Body>) -> http::Response<Body> {
        http::Response::new(Body::new(GuardedBody::new(Body::from("text"), self.0.clone())))
    }
}

/// A listener before a handler.
struct Served {
    listener: Listener,
    supervisor: Supervisor,
    address: SocketAddr,
    authority: Arc<Authority>,
    roots: RootCertStore,
    places: ConnectionPlaces,
    counts: Arc<ConnectionMetrics>,
    admin: (CertificateDer<'static>, PrivateKeyDer<'static>),
    _dir: tempfile::TempDir,
}

async fn serve_endless_watch() -> Served {
    serve(PlaceLimits::for_descriptors(1 << 20), Pings::default()).await
}

async fn serve(limits: PlaceLimits, pings: Pings) -> Served {
    serve_with(limits, |connections| connections.pinging(pings)).await
}

async fn serve_with(limits: PlaceLimits, change: impl FnOnce(Connections) -> Connections) -> Served {
    serve_handler(limits, Arc::new(EndlessWatch), change).await
}

async fn serve_handler(
    limits: PlaceLimits,
    handler: Arc<dyn Handler>,
    change: impl FnOnce(Connections) -> Connections,
) -> Served {
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
    let gate = Gate::new(handler, authorizer, metrics.requests().clone(), closing.clone());
    let clients = certificates.clients.clone();
    let tls = super::super::tls::ListenerTls::new(certificates.shown.clone(), clients.clone(), provider);
    let admin = std::fs::read(dir.path().join("pki/admin.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificates.authority.certificate().clone()).unwrap();
    let (supervisor, places) = (Supervisor::default(), ConnectionPlaces::new(limits));
    let counts = Arc::new(ConnectionMetrics::default());
    let connections =
        change(Connections::new(Arc::new(tls.unwrap()), clients, gate, counts.clone(), places.clone(), closing));
    Served {
        listener: Listener::start(&supervisor, socket, connections),
        supervisor,
        address,
        authority: certificates.authority.clone(),
        roots,
        places,
        counts,
        admin: (CertificateDer::from_pem_slice(&admin).unwrap(), PrivateKeyDer::from_pem_slice(&admin).unwrap()),
        _dir: dir,
    }
}

impl Served {
    async fn connect(&self, protocol: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
        let admin = (vec![self.admin.0.clone()], self.admin.1.clone_key());
        self.connect_as(protocol, Some(admin)).await
    }

    /// With a certificate, or as a stranger.
    async fn connect_as(
        &self,
        protocol: &str,
        certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(self.roots.clone());
        let mut config = match certificate {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    /// As an agent's.
    fn client_of_node(&self, name: &str) -> kube::Client {
        let subject = CertificateSubject {
            common_name: format!("system:node:{name}"),
            organization: Some("system:nodes".to_owned()),
            ..CertificateSubject::default()
        };
        let now = OffsetDateTime::now_utc();
        let issued = self.authority.issue(&subject, Usage::Client, Duration::from_secs(3600), now).unwrap();
        let mut config = kube::Config::new(format!("https://{}", self.address).parse().unwrap());
        config.root_cert = Some(vec![self.authority.certificate().to_vec()]);
        config.auth_info.client_certificate_data = Some(STANDARD.encode(&issued.certificate_pem));
        config.auth_info.client_key_data = Some(STANDARD.encode(&issued.key_pem).into());
        fairlead_client::transport::client(config).unwrap()
    }

    /// What `/metrics` says.
    fn metric(&self, name: &str) -> f64 {
        let (metrics, places, counts) = (Metrics::default(), self.places.clone(), self.counts.clone());
        metrics.add(move |scrape| places.tell(scrape));
        metrics.add(move |scrape| counts.tell(scrape));
        let text = metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.trim().parse().unwrap()
    }

    fn request(&self, path: &str) -> hyper::Request<Empty<Bytes>> {
        hyper::Request::get(format!("https://{}{path}", self.address)).body(Empty::new()).unwrap()
    }
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
    accept_supervised(&supervisor, socket, 4, move |_, peer, _| {
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
    let served = serve(PlaceLimits::for_descriptors(400), Pings::default()).await;
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
    assert_eq!(served.metric("apiserver_tls_handshake_errors_total{reason=\"malformed\"}"), 1.0);
    assert_eq!(served.metric("fairlead_connections_opened_total"), 1.0);
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(served.connect("http/1.1").await)).await.unwrap();
    tokio::spawn(connection);
    let answer = client.send_request(served.request("/version")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["audit-id"].len(), 36);
}

async fn open_watch(client: &kube::Client) -> kube::client::Body {
    let request = http::Request::get("/api/v1/services?watch=true").body(kube::client::Body::empty()).unwrap();
    let mut body = client.send(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first\n");
    body
}

async fn heartbeat(client: &kube::Client, node: &str) {
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}");
    let request = http::Request::put(lease).body(b"{}".to_vec()).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), client.request_text(request)).await;
    answer.expect("in time").expect("a heartbeat is answered");
}

/// A stranger who says nothing, at another address of this host.
async fn stranger(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(server).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_nodes_go_on_while_strangers_come_without_end() {
    const NODES: usize = 200;
    const WATCHES: usize = 14;
    descriptors::raise_limit();
    let limits = PlaceLimits { strangers: 512, of_one_address: 256, nodes: 300, of_one_node: 4, system: 8, users: 8 };
    let served = serve(limits, Pings::default()).await;
    let names: Vec<String> = (0..NODES).map(|index| format!("n{index}")).collect();
    let clients: Vec<kube::Client> = names.iter().map(|name| served.client_of_node(name)).collect();
    let mut watches =
        join_all(clients.iter().flat_map(|client| std::iter::repeat_n(client, WATCHES).map(open_watch))).await;
    assert_eq!(watches.len(), NODES * WATCHES);
    assert_eq!(served.metric("fairlead_connections{class=\"node\"}"), NODES as f64, "one for each node");

    let address = served.address;
    let flood = tokio::spawn(async move {
        let mut held = std::collections::VecDeque::new();
        loop {
            held.push_back(stranger(address).await);
            // More than there are places.
            if held.len() > 1_000 {
                held.pop_front();
            }
        }
    });
    while served.metric("fairlead_connections_cut_total") < 300.0 {
        tokio::task::yield_now().await;
    }
    join_all(clients.iter().zip(&names).map(|(client, name)| heartbeat(client, name))).await;
    heartbeat(&served.client_of_node("late"), "late").await;
    assert!(watches.iter_mut().all(|watch| watch.frame().now_or_never().is_none()), "no watch has ended");
    assert!(served.metric("fairlead_connections{class=\"stranger\"}") <= 512.0);
    flood.abort();
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_given_up() {
    let pings = Pings { interval: Duration::from_millis(100), timeout: Duration::from_millis(200) };
    let served = serve(PlaceLimits::for_descriptors(1 << 20), pings).await;
    let mut client = served.connect("h2").await;
    // The preface and empty settings (RFC 9113, section 3.4), and not a word more.
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), client.read_to_end(&mut said)).await;
    // With or without TLS' own end.
    drop(ended.expect("it is closed"));
    assert!(!said.is_empty());
}

#[tokio::test]
async fn a_connection_may_have_as_many_streams_as_gos_servers_allow() {
    let served = serve_endless_watch().await;
    let (_sender, mut connection) = hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(served.connect("h2").await),
    )
    .await
    .unwrap();
    let told = std::future::poll_fn(|cx| {
        assert!(std::pin::Pin::new(&mut connection).poll(cx).is_pending());
        match connection.current_max_send_streams() {
            250 => std::task::Poll::Ready(()),
            _ => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
}

#[tokio::test]
async fn a_stranger_who_takes_no_answer_is_cut_in_time() {
    let times = StrangersTimes { unanswered: Duration::from_millis(100), stay: Duration::from_secs(3600) };
    let limits = PlaceLimits::for_descriptors(1 << 20);
    let served = serve_with(limits, |connections| connections.bearing_strangers(times)).await;
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // No window: the answer's body cannot be sent.
    builder.initial_stream_window_size(0);
    let stream = TokioIo::new(served.connect_as("h2", None).await);
    let (mut client, connection) = builder.handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = client.send_request(served.request("/api/v1/secrets")).await.unwrap();
    assert_eq!(answer.status(), 403);
    let ended = tokio::time::timeout(Duration::from_secs(30), connection).await;
    // With or without TLS' own end.
    drop(ended.expect("it is closed"));
    assert!(answer.into_body().collect().await.is_err(), "the answer was not sent");
    while served.metric("fairlead_connections{class=\"stranger\"}") > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_that_a_known_user_does_not_take_is_let_go_of_in_time() {
    let (kept, limits) = (Arc::new(()), PlaceLimits::for_descriptors(1 << 20));
    let handler = Arc::new(Guarded(kept.clone()));
    let served =
        serve_handler(limits, handler, |connections| connections.sending_for(Duration::from_millis(100))).await;
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // No window: nobody polls the answer's body.
    builder.initial_stream_window_size(0);
    let (mut client, connection) = builder.handshake(TokioIo::new(served.connect("h2").await)).await.unwrap();
    tokio::spawn(connection);
    let answers = [(); 2].map(|()| client.send_request(served.request("/api/v1/secrets")));
    for answer in join_all(answers).await {
        assert_eq!(answer.as_ref().unwrap().status(), 200);
        drop(tokio::spawn(async move { answer.unwrap().into_body().collect().await.map(drop) }));
    }
    let let_go = async {
        while Arc::strong_count(&kept) > 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), let_go).await.expect("it is let go of");
    assert!(!client.is_closed(), "the connection goes on");
}
