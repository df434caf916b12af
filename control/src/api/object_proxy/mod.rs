//! `/proxy` of pods and Services: the request goes on to a server in a pod, and its answer comes back.
//!
//! ```text
//!   client ──▶ …/services/web/proxy/status ──▶ 10.244.1.7:8080 /status
//! ```
//!
//! - *destination*: which pod and port.
//! - *headers*: what the server is told, and not told, of the client.
//! - *links*: redirects and pages lead through the proxy.
//!
//! Whether the client may, was settled before. Each request has a connection of its own, which may switch protocols.
//! Texts of failures are kube-apiserver's.

mod destination;
mod headers;
mod links;
#[cfg(test)]
mod tests;

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use axum::{body::Body, response::Response};
use http::{Method, Request, StatusCode, Uri, header};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig as TlsConfig;
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub use self::destination::Destination;
use self::links::Links;
use crate::{
    aggregation,
    api::node_proxy::PodSubnets,
    auth::stream_limit::CountedStream,
    request::{PeerAddress, path::ResourcePath},
    status::{Status, Subject},
    store::{Snapshot, Store},
    upgrade::{PassedOn, UpgradeError},
    webhook::{self, CONNECT_TIMEOUT, Dial},
};

const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// Nobody says whom a server in a pod must prove to be, as in Kubernetes.
static TLS: LazyLock<TlsConnector> = LazyLock::new(|| {
    let config = TlsConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .dangerous()
        .with_custom_certificate_verifier(aggregation::any_certificate())
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
});

/// Where requests to an object of this namespace and name go.
pub type FindDestination = fn(&Snapshot, &str, &str) -> Result<Destination, Status>;

/// Passes requests on to pods.
pub struct ObjectProxy {
    store: Arc<dyn Store>,
    network: Arc<dyn Dial>,
    subnets: PodSubnets,
}

impl ObjectProxy {
    /// `store` says where pods are; `network` leads there.
    pub fn new(store: Arc<dyn Store>, network: Arc<dyn Dial>) -> Self {
        Self { subnets: PodSubnets::new(store.clone()), store, network }
    }

    /// Answers a request for `/proxy` of the pod or Service that `path` names, and that `find` finds. `counted` is
    /// dropped when its connection has ended.
    pub async fn answer(
        &self,
        path: &ResourcePath,
        find: FindDestination,
        request: Request<Body>,
        counted: CountedStream,
    ) -> Result<Response, Status> {
        let (Some(namespace), Some(name)) = (&path.namespace, &path.name) else { return Err(Status::unknown_path()) };
        if !METHODS.contains(request.method()) {
            let subject = Subject { group: &path.group, resource: &path.resource, name };
            return Err(Status::method_not_allowed(subject));
        }
        let snapshot = self.store.snapshot();
        let to = find(&snapshot, namespace, name)?;
        drop(snapshot);
        // A node says itself which addresses its pods have: those of another node's pods are none of them.
        if self.subnets.node_of(to.address.ip()).is_some_and(|node| *node != *to.node) {
            return Err(Status::bad_request("address not allowed"));
        }
        self.forward(to, &path.rest, request, counted).await
    }

    /// `rest` is the path that the server is asked for, not decoded.
    async fn forward(
        &self,
        to: Destination,
        rest: &str,
        request: Request<Body>,
        counted: CountedStream,
    ) -> Result<Response, Status> {
        let (mut parts, body) = request.into_parts();
        let passed_on = PassedOn::take(&mut parts).map_err(invalid)?;
        let peer: Option<SocketAddr> = parts.extensions.get::<PeerAddress>().map(|peer| peer.0);
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        if rest.is_empty() && is_read && passed_on.protocol.is_none() {
            // A relative link on the page that comes would lead beside it.
            return moved(&format!("{path}/{query}"));
        }
        let links = Links {
            prefix: path.strip_suffix(rest).unwrap_or(&path).to_owned(),
            server: to.address.to_string(),
            host: host(&parts.headers, &parts.uri),
        };
        headers::to_server(&mut parts.headers, peer, &path);
        let is_head = parts.method == Method::HEAD;
        let mut sent = Request::new(body);
        *sent.method_mut() = parts.method;
        *sent.uri_mut() = format!("{}{query}", if rest.is_empty() { "/" } else { rest })
            .parse()
            .map_err(|error| Status::bad_request(format!("the path cannot be passed on: {error}")))?;
        *sent.headers_mut() = parts.headers;
        if !sent.headers().contains_key(header::HOST) {
            let host = links.host.parse().map_err(|_| Status::bad_request("the host cannot be passed on"))?;
            sent.headers_mut().insert(header::HOST, host);
        }

        let counted = Arc::new(counted);
        let answer = self.exchange(&to, sent, counted.clone()).await?;
        let mut answer = passed_on.answer(answer, counted).map_err(invalid)?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        if answer.headers().contains_key(header::LOCATION) {
            headers::redirect(answer.headers_mut(), &links);
        } else if !is_head && headers::is_page(answer.headers()) {
            answer.headers_mut().remove(header::CONTENT_LENGTH);
            answer = answer.map(|page| links.page(page));
        }
        Ok(answer)
    }

    async fn connect(&self, to: &Destination) -> io::Result<Connection> {
        let stream = self.network.connect(to.address).await?;
        if !to.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::from(to.address.ip());
        Ok(Box::new(TokioIo::new(TLS.connect(name, TokioIo::new(stream)).await?)))
    }

    async fn exchange(
        &self,
        to: &Destination,
        request: Request<Body>,
        counted: Arc<CountedStream>,
    ) -> Result<Response<Incoming>, Status> {
        let unreachable = |why: String| Status::unavailable(format!("error trying to reach service: {why}"));
        let dial = |error: io::Error| unreachable(format!("dial tcp {}: {}", to.address, webhook::cause(&error)));
        let connected = timeout(CONNECT_TIMEOUT, self.connect(to)).await;
        let stream = connected.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(dial)?;
        send(stream, request, counted).await.map_err(|error| unreachable(webhook::cause(&error)))
    }
}

/// A connection to a server, through TLS or not.
type Connection = Box<dyn BytesBothWays>;

trait BytesBothWays: Read + Write + Send + Unpin {}

impl<S: Read + Write + Send + Unpin> BytesBothWays for S {}

/// Sends a request over a connection, which ends with the answer's body, or when whoever reads that is gone.
async fn send(
    stream: Connection,
    request: Request<Body>,
    counted: Arc<CountedStream>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(async move {
        let _counted = counted;
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a proxied server ended");
        }
    });
    sender.send_request(request).await
}

fn invalid(error: UpgradeError) -> Status {
    Status::internal(error.to_string())
}

/// The host that the client asked.
fn host(headers: &http::HeaderMap, uri: &Uri) -> String {
    let said = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    said.or_else(|| uri.authority().map(|authority| authority.as_str())).unwrap_or_default().to_owned()
}

fn moved(to: &str) -> Result<Response, Status> {
    Response::builder()
        .status(StatusCode::MOVED_PERMANENTLY)
        .header(header::LOCATION, to)
        .body(Body::empty())
        .map_err(|error| Status::bad_request(format!("the path cannot be answered: {error}")))
}
