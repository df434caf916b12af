//! Connections into pods for the control service, whose host need not be a node and has no route to pods: it calls
//! webhooks and extension API servers of the cluster through the agents of their nodes.
//!
//! ```text
//!   control service ──TLS, GET /podConnections/10.244.1.7:8443, Upgrade: tcp──▶ agent ──TCP──▶ pod
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ipnetwork::Ipv4Network;
use socket2::{SockRef, TcpKeepalive};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a pod may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last bytes may take to be sent after one end has closed.
const LAST_BYTES: Duration = Duration::from_secs(10);
/// Of a connection on which nothing was sent for a while: a watch may be silent for an hour, and its server gone.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(15)).with_retries(4);
/// What the connection becomes after the answer 101.
const PROTOCOL: &str = "tcp";

/// Connects to pods of this node, and copies both ways until both sides have ended or the agent stops.
#[derive(Clone)]
pub struct PodConnections {
    pods: Ipv4Network,
    stop: CancellationToken,
    copying: TaskTracker,
}

impl PodConnections {
    /// `pods` is the node's pod subnet: nothing outside it is connected to.
    pub fn new(pods: Ipv4Network) -> Self {
        Self { pods, stop: CancellationToken::new(), copying: TaskTracker::new() }
    }

    /// `GET /podConnections/{address}:{port}` with `Upgrade: tcp`.
    pub fn router(&self) -> Router {
        Router::new().route("/podConnections/{address}", get(connect)).with_state(self.clone())
    }

    /// Cuts what is connected, and waits until it is.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.copying.close();
        self.copying.wait().await;
    }

    /// The address that a path names, if it is one of this node's pods.
    fn allowed(&self, text: &str) -> Result<SocketAddr, (StatusCode, String)> {
        let address: SocketAddr = text.parse().map_err(|_| {
            (StatusCode::BAD_REQUEST, format!("{text:?} is not an address with a port: 10.244.1.7:80\n"))
        })?;
        match address.ip() {
            // The first address of the subnet is the node's own.
            IpAddr::V4(ip) if self.pods.contains(ip) && self.pods.nth(1) != Some(ip) => Ok(address),
            ip => Err((StatusCode::FORBIDDEN, format!("{ip} is no address of a pod of this node ({})\n", self.pods))),
        }
    }
}

async fn connect(State(pods): State<PodConnections>, Path(address): Path<String>, request: Request) -> Response {
    let address = match pods.allowed(&address) {
        Ok(address) => address,
        Err(refusal) => return refusal.into_response(),
    };
    if request.headers().get(header::UPGRADE) != Some(&HeaderValue::from_static(PROTOCOL)) {
        return (
            StatusCode::UPGRADE_REQUIRED,
            [(header::UPGRADE, PROTOCOL)],
            "this becomes a connection: Upgrade: tcp\n",
        )
            .into_response();
    }
    let pod = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(pod)) => pod,
        Ok(Err(error)) => return (StatusCode::BAD_GATEWAY, format!("{}\n", shown(&error))).into_response(),
        Err(_) => return (StatusCode::GATEWAY_TIMEOUT, "connect: i/o timeout\n").into_response(),
    };
    if let Err(error) = pod.set_nodelay(true).and_then(|()| SockRef::from(&pod).set_tcp_keepalive(&KEEPALIVE)) {
        tracing::debug!(%error, "a connection to a pod may be slow, or outlive it");
    }
    let upgrade = hyper::upgrade::on(request);
    pods.copying.clone().spawn(pods.stop.clone().run_until_cancelled_owned(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "a connection to a pod did not come about"),
        };
        if let Err(error) = exchange(upgraded, pod).await {
            tracing::debug!(%error, %address, "a connection to a pod broke");
        }
    }));
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// Copies both ways until one side ends; the other gets its last bytes then, and no more time.
async fn exchange(control: Upgraded, pod: TcpStream) -> std::io::Result<()> {
    let (mut from_control, mut to_control) = tokio::io::split(TokioIo::new(control));
    let (mut from_pod, mut to_pod) = pod.into_split();
    let ended = tokio::select! {
        ended = tokio::io::copy(&mut from_control, &mut to_pod) => ended,
        ended = tokio::io::copy(&mut from_pod, &mut to_control) => ended,
    };
    let closed = async { tokio::try_join!(to_control.shutdown(), to_pod.shutdown()) };
    let closed = tokio::time::timeout(LAST_BYTES, closed).await;
    ended?;
    closed.map_or(Ok(()), |closed| closed.map(drop))
}

/// The reason alone, as Go words it: the caller adds the address.
fn shown(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => format!("connect: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    #[test]
    fn only_pods_of_this_node_are_connected_to() {
        let pods = PodConnections::new("10.244.1.0/24".parse().unwrap());
        assert_eq!(pods.allowed("10.244.1.7:8443").unwrap(), "10.244.1.7:8443".parse().unwrap());
        for address in
            ["10.244.1.1:22", "10.244.2.7:80", "127.0.0.1:80", "169.254.169.254:80", "[::ffff:10.244.1.7]:80"]
        {
            assert_eq!(pods.allowed(address).unwrap_err().0, StatusCode::FORBIDDEN, "{address}");
        }
        for address in ["", "10.244.1.7", "web:80", "10.244.1.7:70000"] {
            assert_eq!(pods.allowed(address).unwrap_err().0, StatusCode::BAD_REQUEST, "{address}");
        }
    }

    /// An agent for pods of `127.0.5.0/24`, and a client's connection to it.
    async fn agent(pods: &PodConnections) -> hyper::client::conn::http1::SendRequest<Body> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let router = pods.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    fn asking(address: SocketAddr) -> Request<Body> {
        let request = Request::get(format!("/podConnections/{address}")).header(header::HOST, "agent");
        request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, PROTOCOL).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_until_the_agent_stops() {
        let pods = PodConnections::new("127.0.5.0/24".parse().unwrap());
        let pod = TcpListener::bind("127.0.5.7:0").await.unwrap();
        let mut sender = agent(&pods).await;
        let answer = sender.send_request(asking(pod.local_addr().unwrap())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut connection = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let (mut peer, _) = pod.accept().await.unwrap();
        connection.write_all(b"question").await.unwrap();
        let mut text = [0; 8];
        peer.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"question");
        peer.write_all(b"answer").await.unwrap();
        connection.read_exact(&mut text[..6]).await.unwrap();
        assert_eq!(&text[..6], b"answer");
        pods.shutdown().await;
        assert_eq!(peer.read(&mut text).await.unwrap_or(0), 0, "the pod sees the end");
    }

    #[tokio::test]
    async fn a_pod_that_does_not_listen_is_told() {
        let pods = PodConnections::new("127.0.5.0/24".parse().unwrap());
        let closed = TcpListener::bind("127.0.5.8:0").await.unwrap().local_addr().unwrap();
        let answer = agent(&pods).await.send_request(asking(closed)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        let text = axum::body::to_bytes(Body::new(answer.into_body()), 1000).await.unwrap();
        assert_eq!(text, "connect: connection refused\n");
    }
}
