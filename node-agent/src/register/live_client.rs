//! The node's client of the API, whose credentials and connections are replaced while it is in use: clones use the new
//! ones too.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use fairlead_client::transport::{self, ConnectedClient, KeepAlive};
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use kube::{Client, Config, client::Body};

/// How the agent names itself.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("fairlead/", env!("CARGO_PKG_VERSION")));

/// A connection whose other end went without a word is noticed in 23 s; watches outlive a network that is away for less
/// than 15. Go's client has 30 s and 15 s. Pings come more often than a heartbeat is given up, so that until then a
/// server that is only slow has answered one.
pub const KEEP_ALIVE: KeepAlive = KeepAlive { interval: Duration::from_secs(8), timeout: Duration::from_secs(15) };
/// Shorter than the time between two heartbeats: a server that cannot be reached is not waited for over the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// A client as agents have it: one that soon notices that its connection is dead.
pub fn connect(config: Config) -> Result<ConnectedClient, kube::Error> {
    transport::connected_client(with_connect_timeout(config), KEEP_ALIVE)
}

fn with_connect_timeout(mut config: Config) -> Config {
    let within = config.connect_timeout.map_or(CONNECT_TIMEOUT, |within| within.min(CONNECT_TIMEOUT));
    config.connect_timeout = Some(within);
    config
}

/// The client that the agent's parts share. Clones are of the same.
#[derive(Clone)]
pub struct LiveClient {
    client: Client,
    current: Arc<ArcSwap<ConnectedClient>>,
}

impl LiveClient {
    /// Hands every request to `first`, and later to what replaces it.
    pub fn new(first: ConnectedClient) -> Self {
        let namespace = first.client.default_namespace().to_owned();
        let current = Arc::new(ArcSwap::from_pointee(first));
        Self { client: Client::new(ToCurrent(current.clone()), namespace), current }
    }

    /// Sends requests to whatever is current.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Used for every request from now on. Requests under way stay on their connections.
    pub fn replace(&self, next: ConnectedClient) {
        self.current.store(Arc::new(next));
    }

    /// After a request, sent then, that was not answered: none is sent any more on connections on which nothing was
    /// read since. The kubelet closes all of its connections when its heartbeats fail; here watches stay on theirs
    /// until a ping is not answered, and a server that is only slow keeps its connections.
    pub fn forget_silent_since(&self, sent: Instant) {
        self.current.load().connections.forget_silent_since(sent);
    }
}

/// Sends each request with the client that is current then.
#[derive(Clone)]
struct ToCurrent(Arc<ArcSwap<ConnectedClient>>);

impl tower::Service<Request<Body>> for ToCurrent {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The fields that it writes are kept under this name.
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        let current = self.0.load_full();
        Box::pin(async move { current.client.send(request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_takes_less_than_a_heartbeat_whatever_the_configuration_says() {
        let within = |timeout| {
            let mut config = Config::new("https://127.0.0.1:6443".parse().unwrap());
            config.connect_timeout = timeout;
            with_connect_timeout(config).connect_timeout.unwrap()
        };
        let seconds = Duration::from_secs;
        assert_eq!([within(None), within(Some(seconds(30)))], [seconds(8); 2]);
        assert_eq!(within(Some(seconds(1))), seconds(1));
    }
}
