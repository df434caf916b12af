//! An agent's streams behind an HTTP server, with one pod, and clients of them.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, serve::ListenerExt};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::super::{ConnectError, ContainerTarget, PodTargets, Streams, TargetError, connect};
use crate::runtime::fake::FakeRuntime;

/// What tests wait for at most.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A pod `default/web` with the containers `c`, which runs, and `terminal`, which has one.
struct OnePod;

#[async_trait::async_trait]
impl PodTargets for OnePod {
    fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<ContainerTarget, TargetError> {
        match (namespace, pod, container) {
            ("default", "web", "c") => Ok(ContainerTarget { id: "c-1".into(), tty: false }),
            ("default", "web", "terminal") => Ok(ContainerTarget { id: "t-1".into(), tty: true }),
            ("default", "web", other) => Err(TargetError::NotRunning(other.to_owned())),
            _ => Err(TargetError::NoPod),
        }
    }

    fn pod_uid(&self, namespace: &str, pod: &str) -> Result<String, TargetError> {
        match (namespace, pod) {
            ("default", "web") => Ok("uid-1".to_owned()),
            ("default", "waiting") => Err(TargetError::NoNetwork("waiting_default".to_owned())),
            _ => Err(TargetError::NoPod),
        }
    }

    /// The pod's network is the host's.
    async fn connect(&self, _: &str, _: &str, port: u16) -> Result<TcpStream, ConnectError> {
        connect(std::fs::File::open("/proc/self/ns/net").unwrap(), port).await
    }
}

/// Streams that are served.
pub struct Lab {
    pub streams: Streams,
    pub runtime: Arc<FakeRuntime>,
    address: std::net::SocketAddr,
}

/// A connection after its answer 101.
pub type Connection = TokioIo<Upgraded>;

impl Lab {
    pub async fn new() -> Self {
        Self::with(|streams| streams).await
    }

    pub async fn with_idle_limit(idle_limit: Duration) -> Self {
        Self::with(|streams| Streams { idle_limit, ..streams }).await
    }

    pub async fn with_heartbeat_interval(heartbeat_interval: Duration) -> Self {
        Self::with(|streams| Streams { heartbeat_interval, ..streams }).await
    }

    async fn with(change: impl FnOnce(Streams) -> Streams) -> Self {
        let runtime = Arc::new(FakeRuntime::default());
        let streams = change(Streams::new(Arc::new(OnePod), runtime.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = streams.router();
        let listener = listener.tap_io(|accepted| accepted.set_nodelay(true).unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { streams, runtime, address }
    }

    /// The answer to a request.
    pub async fn ask(&self, request: Request<Body>) -> http::Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    /// The code and text of a refusal.
    pub async fn refusal(&self, request: Request<Body>) -> (StatusCode, String) {
        let answer = self.ask(request).await;
        let status = answer.status();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    pub async fn switched(&self, request: Request<Body>) -> Connection {
        let answer = self.ask(request).await;
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        TokioIo::new(hyper::upgrade::on(answer).await.unwrap())
    }

    pub async fn websocket(&self, path: &str, protocol: &str) -> WebSocketStream<Connection> {
        let connection = self.switched(websocket_request(path, protocol)).await;
        WebSocketStream::from_raw_socket(connection, Role::Client, None).await
    }

    pub async fn spdy(&self, path: &str, protocol: &str) -> super::super::spdy::test_client::TestClient<Connection> {
        super::super::spdy::test_client::TestClient::new(self.switched(spdy_request(path, protocol)).await)
    }

    /// Waits until neither a session nor a process is left.
    pub async fn wait_for_nothing_left(&self) {
        let gone = async {
            while !self.streams.sessions.is_empty() || self.runtime.processes.running() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("sessions and processes end");
    }
}

/// Sends until nothing goes any more.
pub async fn send_until_held_up(mut send: impl AsyncFnMut()) {
    while tokio::time::timeout(Duration::from_millis(300), send()).await.is_ok() {}
}

pub fn websocket_request(path: &str, protocol: &str) -> Request<Body> {
    let request = Request::get(path)
        .header(header::HOST, "agent")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    request.body(Body::empty()).unwrap()
}

pub fn spdy_request(path: &str, protocol: &str) -> Request<Body> {
    let request = Request::post(path)
        .header(header::HOST, "agent")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("x-stream-protocol-version", protocol);
    request.body(Body::empty()).unwrap()
}
