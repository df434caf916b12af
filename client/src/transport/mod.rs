//! How requests reach the API server: over HTTP/2, where all requests and watches of a client share a connection, or
//! over HTTP/1.1 where the server speaks nothing else.
//!
//! kube's own connector offers HTTP/1.1 alone, by which each watch has a TCP and TLS connection of its own: a node with
//! 14 watches held 15, and 500 such nodes 7,500. The rest of kube's stack stays: its credentials, headers and retries.
//!
//! | file | what it knows |
//! |---|---|
//! | `connector` | one TCP and TLS connection: timeouts, probes, which protocol the server chose |
//! | `connections` | the HTTP/2 connections of a client, the streams on each, and when another is opened |
//! | `last_read` | when a connection was last heard of |
//! | `response_body` | an answer's body, which holds its stream until it ends |
//!
//! A request that asks for another protocol (exec, attach, port-forward) goes over HTTP/1.1: HTTP/2 has no `Upgrade`
//! (RFC 9113, section 8.6).

mod connections;
mod connector;
mod last_read;
mod response_body;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, header};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt, retry::RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

use connections::{Connections, Way};
pub use connector::ConnectError;
use connector::{Connector, Https};
use response_body::ResponseBody;

/// How soon a client notices that the other end of its connection is gone: after `interval` and `timeout` together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Between two pings of HTTP/2, sent while nothing is asked too; over HTTP/1.1, the silence before TCP probes.
    pub interval: Duration,
    /// How long the answer to a ping may take.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(20), timeout: Duration::from_secs(10) }
    }
}

/// A client, and its connections for whoever decides when they are to be given up.
#[derive(Clone)]
pub struct ConnectedClient {
    /// Sends the requests.
    pub client: Client,
    /// What it sends them on.
    pub connections: OpenConnections,
}

impl From<Client> for ConnectedClient {
    /// A client that was made elsewhere: nobody can give up its connections.
    fn from(client: Client) -> Self {
        Self { client, connections: OpenConnections(None) }
    }
}

/// The connections of a client that are open. Clones are of the same client.
#[derive(Clone)]
pub struct OpenConnections(Option<Arc<Connections>>);

impl OpenConnections {
    /// Sends no more requests on connections on which nothing was read since then, when a request was sent that is
    /// still not answered. On one whose server is only slow the answers to pings are read, where pings are sent more
    /// often than this is called. One that is being opened has its own time for that.
    ///
    /// What was sent before goes on, and fails once a ping is not answered. Over HTTP/1.1 there is nothing to do: a
    /// request that is given up closes its connection.
    pub fn forget_silent_since(&self, instant: Instant) {
        if let Some(connections) = &self.0 {
            connections.forget_silent_since(instant);
        }
    }
}

/// A client with the server and the credentials of `config`. Opens nothing before the first request.
///
/// To be called within a Tokio runtime, as kube's own.
///
/// # Errors
/// The certificates or the credentials of `config` are not usable.
pub fn client(config: Config) -> Result<Client, kube::Error> {
    connected_client(config, KeepAlive::default()).map(|connected| connected.client)
}

/// As [`client`], with other times, and with its connections.
///
/// # Errors
/// See [`client`].
pub fn connected_client(config: Config, keep_alive: KeepAlive) -> Result<ConnectedClient, kube::Error> {
    if config.proxy_url.is_some() {
        // Which proxies can be used is kube's to say.
        return Ok(Client::try_from(config)?.into());
    }
    let transport = Transport::new(&config, keep_alive)?;
    let connections = OpenConnections(Some(transport.http2.clone()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(transport);
    Ok(ConnectedClient { client: Client::new(service, config.default_namespace), connections })
}

/// Sends requests with a server in their address to that one server. Clones share the connections.
#[derive(Clone)]
struct Transport {
    http2: Arc<Connections>,
    http1: legacy::Client<Https, Body>,
}

impl Transport {
    fn new(config: &Config, keep_alive: KeepAlive) -> Result<Self, kube::Error> {
        let http1 = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector::http1(config, keep_alive)?);
        Ok(Self { http2: Arc::new(Connections::new(Connector::new(config, keep_alive)?, keep_alive)), http1 })
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<ResponseBody>, BoxError> {
        let mut tries = TRIES;
        while !request.headers().contains_key(header::UPGRADE) {
            let stream = match self.http2.reserve().await? {
                Way::Http2(stream) => stream,
                Way::Http1 => break,
            };
            tries = tries.saturating_sub(1);
            match stream.send(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    // The connection was about to close, and the server has not seen the request.
                    Some(unsent) if tries > 0 => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
        Ok(self.http1.request(request).await?.map(ResponseBody::alone))
    }
}

/// How many connections are tried for a request that none of them took.
const TRIES: usize = 3;

impl tower::Service<Request<Body>> for Transport {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let transport = self.clone();
        async move { transport.send(request).await }.boxed()
    }
}

#[cfg(test)]
mod tests;
