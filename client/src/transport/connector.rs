//! Opens one connection to the API server: TCP with probes, TLS with the client's credentials, and the protocol that
//! the server chooses (ALPN, RFC 7301).

use std::{error::Error, sync::Arc, time::Duration};

use http::Uri;
use hyper_rustls::{DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector, ResolveServerName};
use hyper_util::{
    client::legacy::connect::{Connection, HttpConnector},
    rt::TokioIo,
};
use kube::{
    Config,
    client::{ConfigExt, RustlsTlsError},
};
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::KeepAlive;

/// What opens connections of the one server and the one credential that a client has.
pub(super) type Https = HttpsConnector<HttpConnector>;

/// A connection over which nothing was sent yet.
pub(super) type Stream = hyper_rustls::MaybeHttpsStream<TokioIo<TcpStream>>;

/// Why there is no connection. Whoever waits for the same connection gets the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there, a name is unknown, or one end refuses the other's certificate.
    #[error("cannot connect to {server}")]
    Connect {
        /// Scheme, host and port.
        server: Uri,
        /// What the kernel or TLS said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The host is away, or too busy.
    #[error("cannot connect to {server} within {} s", within.as_secs())]
    Late {
        /// Scheme, host and port.
        server: Uri,
        /// How long connecting may take.
        within: Duration,
    },
    /// The connection broke right after TLS was agreed on.
    #[error("cannot begin HTTP/2 with {server}")]
    Handshake {
        /// Scheme, host and port.
        server: Uri,
        /// What the server sent, or did not.
        source: Arc<hyper::Error>,
    },
    /// The program ends, or the task that connects panicked.
    #[error("connecting was interrupted")]
    Interrupted,
}

/// Offers both protocols.
pub(super) struct Connector {
    /// The only server that is asked.
    pub server: Uri,
    /// How long it may take until requests can be sent.
    pub within: Duration,
    https: Https,
}

impl Connector {
    pub fn new(config: &Config, keep_alive: KeepAlive) -> Result<Self, kube::Error> {
        let mut tls = config.rustls_client_config()?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let names: Arc<dyn ResolveServerName + Send + Sync> = match &config.tls_server_name {
            Some(name) => {
                let name = name.clone().try_into().map_err(RustlsTlsError::InvalidServerName);
                Arc::new(FixedServerNameResolver::new(name.map_err(kube::Error::RustlsTls)?))
            }
            None => Arc::new(DefaultServerNameResolver::default()),
        };
        let within = config.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let https = HttpsConnector::new(tcp(within, keep_alive), tls, false, names);
        Ok(Self { server: config.cluster_url.clone(), within, https })
    }

    /// One connection for HTTP/2. `None` where the server chooses HTTP/1.1, which has connections of its own, and where
    /// the address is one without TLS.
    pub async fn open(&self) -> Result<Option<Stream>, ConnectError> {
        if self.server.scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Ok(None);
        }
        let opened = self.https.clone().oneshot(self.server.clone()).await;
        let stream = opened.map_err(|e| ConnectError::Connect { server: self.server.clone(), source: e.into() })?;
        Ok(Some(stream).filter(|stream| stream.connected().is_negotiated_h2()))
    }
}

/// Offers HTTP/1.1 alone.
pub(super) fn http1(config: &Config, keep_alive: KeepAlive) -> Result<Https, kube::Error> {
    config.rustls_https_connector_with_connector(tcp(config.connect_timeout.unwrap_or(CONNECT_TIMEOUT), keep_alive))
}

/// Where the configuration names none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// With probes of TCP itself: HTTP/1.1 has no pings, and a watch may be silent for minutes.
fn tcp(connect_timeout: Duration, keep_alive: KeepAlive) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp.set_keepalive(Some(keep_alive.interval));
    // The kernel counts whole seconds.
    tcp.set_keepalive_interval(Some((keep_alive.timeout / PROBES).max(Duration::from_secs(1))));
    tcp.set_keepalive_retries(Some(PROBES));
    // Probes are not sent while data waits for its acknowledgement: this is what ends such a connection.
    tcp.set_tcp_user_timeout(Some(keep_alive.interval.saturating_add(keep_alive.timeout)));
    tcp
}

const PROBES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_whose_other_end_lost_power_is_noticed_without_pings_too() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let stream = tcp(CONNECT_TIMEOUT, KeepAlive::default()).oneshot(server).await.unwrap();
        let options = socket2::SockRef::from(stream.inner());
        let seconds = Duration::from_secs;
        assert!(options.keepalive().unwrap() && options.tcp_nodelay().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), seconds(20));
        assert_eq!(options.tcp_keepalive_interval().unwrap() * options.tcp_keepalive_retries().unwrap(), seconds(9));
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(seconds(30)));
    }
}
