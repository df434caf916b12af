//! The TCP connections under a webhook's TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::Uri;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::{
    lookup::Lookups,
    stream::Stream,
    target::{WebhookTarget, is_own},
};

/// Opens connections and looks names up: the network, or what stands for it in a test.
pub trait Dial: std::fmt::Debug + Send + Sync + 'static {
    /// The addresses of a name.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// A connection.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>>;
}

/// Why another host could not connect, in its words, which are Go's: `connect: connection refused`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RemoteConnectError(pub String);

/// The network of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Network;

/// Of all webhooks: they share the machine's resolver.
static LOOKUPS: LazyLock<Lookups> = LazyLock::new(Lookups::of_system);

impl Dial for Network {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(LOOKUPS.get(host, port))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_keepalive(&PROBES)?;
            Ok(stream.into())
        })
    }
}

/// Connects to what the authority of a request's URI says. Shared by the connections of one webhook.
#[derive(Clone)]
pub struct Connector {
    dial: Arc<dyn Dial>,
    /// Whether whoever writes a Service has a say in where it leads.
    by_service: bool,
}

/// Of a connection on which nothing was sent for a while: a watch may be silent for an hour, and its server gone.
const PROBES: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(15)).with_retries(4);
/// How long a connection may take to be made. Source: the dialer of Go's default transport.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

impl Connector {
    /// For a webhook with this target.
    pub fn new(dial: Arc<dyn Dial>, target: &WebhookTarget) -> Self {
        Self { dial, by_service: matches!(target, WebhookTarget::Service { .. }) }
    }

    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(443);
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => {
                let found = self.dial.resolve(host, port).await;
                found.map_err(|error| io::Error::new(error.kind(), format!("dial tcp: lookup {host}: {error}")))?
            }
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("dial tcp: lookup {host}: no such host"));
        for address in addresses {
            if self.by_service && is_own(address.ip()) {
                let why = format!("dial tcp {address}: a Service may not lead to this machine");
                last = io::Error::new(io::ErrorKind::PermissionDenied, why);
                continue;
            }
            match self.dial.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = io::Error::new(error.kind(), format!("dial tcp {address}: {}", shown(&error))),
            }
        }
        Err(last)
    }
}

/// As Go shows it.
fn shown(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ if error.get_ref().is_some_and(|inner| inner.is::<RemoteConnectError>()) => error.to_string(),
        _ => format!("connect: {error}"),
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(uri)).await;
            connected.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "dial tcp: i/o timeout")))
        })
    }
}
