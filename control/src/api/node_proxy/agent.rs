//! Connections to an agent: TLS with the API server's own certificate, and the agent's checked against the CA: it must
//! be that of the node.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::body::Body;
use fairlead_serving::bulk_reads::BulkReads;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::agent_handshakes::AgentHandshakes;
use crate::{
    api::Status,
    auth::{
        client_certificate::identity_of,
        pki::{Authority, Issued},
    },
    proxy_headers,
};

/// Of a connection on which nothing was sent for a while: a log may be silent for an hour, and its node gone.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(15)).with_retries(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the request to the first byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Of an agent's refusal, so much is read.
const ERROR_LIMIT: usize = 64 * 1024;

/// Opens connections to agents: one a request, since logs and inspections are rare and long.
#[derive(Clone)]
pub struct Agents {
    tls: Arc<ArcSwap<ClientConfig>>,
    handshakes: AgentHandshakes,
}

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAddress {
    /// The Node's name, which the agent's certificate must have.
    pub node: String,
    /// `InternalIP` of the Node.
    pub ip: IpAddr,
    /// `daemonEndpoints.kubeletEndpoint` of the Node's status.
    pub port: u16,
}

/// Why connections to agents cannot be set up at the start.
#[derive(Debug, thiserror::Error)]
pub enum AgentsError {
    /// The certificate or key is not PEM.
    #[error("the API server's client certificate is not usable")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    /// Certificate and key do not fit each other.
    #[error("TLS to agents cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Why an agent's answer could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The node is down, or its port is closed to this host.
    #[error("cannot reach the agent of node \"{node}\" at {address}")]
    Unreachable { node: String, address: SocketAddr, source: io::Error },
    /// The agent, or Docker behind it, has hung.
    #[error("the agent of node \"{node}\" at {address} does not answer")]
    TimedOut { node: String, address: SocketAddr },
    /// Its certificate is not the node's.
    #[error("who answers at {address} is not the agent of node \"{node}\"")]
    Untrusted { node: String, address: SocketAddr, source: io::Error },
    /// It does not speak HTTP as it should.
    #[error("the agent of node \"{node}\" at {address} broke off")]
    Protocol { node: String, address: SocketAddr, source: hyper::Error },
    /// It switches protocols though nobody asked it to.
    #[error("the agent of node \"{node}\" at {address} switched protocols and was not asked to")]
    Switched { node: String, address: SocketAddr },
    /// Who follows it would ask the other server, the API's own too, with credentials that are not the node's.
    #[error("the agent of node \"{node}\" attempted to redirect this request, which is not permitted")]
    Redirect { node: String },
}

impl Agents {
    /// Trusts agents whose certificates `authority` signed; identifies itself by `own`.
    pub fn new(authority: &Authority, own: &Issued, provider: Arc<CryptoProvider>) -> Result<Self, AgentsError> {
        let tls = ArcSwap::from_pointee(client_config(authority, own, provider)?);
        Ok(Self { tls: Arc::new(tls), handshakes: AgentHandshakes::default() })
    }

    /// Shows another certificate from the next connection on.
    pub fn replace(
        &self,
        authority: &Authority,
        own: &Issued,
        provider: Arc<CryptoProvider>,
    ) -> Result<(), AgentsError> {
        self.tls.store(Arc::new(client_config(authority, own, provider)?));
        Ok(())
    }

    /// Sends `request`, whose URI is a path, and returns the answer with its body still coming. An agent neither
    /// redirects nor switches protocols: one that does is not what it should be.
    pub async fn send(&self, to: &AgentAddress, mut request: Request<Body>) -> Result<Response<Body>, AgentError> {
        proxy_headers::drop_hop_by_hop(request.headers_mut());
        *request.version_mut() = http::Version::HTTP_11;
        let mut response = self.exchange(to, request).await?.map(Body::new);
        let code = response.status();
        if code == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(AgentError::Switched { node: to.node.clone(), address: SocketAddr::new(to.ip, to.port) });
        }
        if code.is_redirection() && response.headers().contains_key(header::LOCATION) {
            return Err(AgentError::Redirect { node: to.node.clone() });
        }
        // The caller may speak HTTP/2, which knows none of them.
        proxy_headers::drop_hop_by_hop(response.headers_mut());
        *response.version_mut() = http::Version::default();
        Ok(response)
    }

    /// Sends `request` over a connection of its own, which it may take over by an upgrade.
    pub(super) async fn exchange(
        &self,
        to: &AgentAddress,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, AgentError> {
        let (node, address) = (to.node.clone(), SocketAddr::new(to.ip, to.port));
        let protocol = |source| AgentError::Protocol { node: node.clone(), address, source };
        let stream = self.connect(to).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
        // Ends with the answer's body, or when whoever reads that is gone.
        tokio::spawn(async move {
            if let Err(e) = connection.with_upgrades().await {
                tracing::debug!("connection to an agent ended: {e}");
            }
        });
        if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
            request.headers_mut().insert(header::HOST, host);
        }
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        answer.map_err(|_| AgentError::TimedOut { node: node.clone(), address })?.map_err(protocol)
    }

    async fn connect(&self, to: &AgentAddress) -> Result<TlsStream<BulkReads<TcpStream>>, AgentError> {
        let (node, address) = (to.node.clone(), SocketAddr::new(to.ip, to.port));
        let connecting = async {
            let unreachable = |source| AgentError::Unreachable { node: node.clone(), address, source };
            let _turn = self.handshakes.take(address).await;
            let tcp = TcpStream::connect(address).await.map_err(unreachable)?;
            tcp.set_nodelay(true).map_err(unreachable)?;
            SockRef::from(&tcp).set_tcp_keepalive(&KEEPALIVE).map_err(unreachable)?;
            let untrusted = |source| AgentError::Untrusted { node: node.clone(), address, source };
            let shaken =
                TlsConnector::from(self.tls.load_full()).connect(ServerName::from(to.ip), BulkReads::new(tcp)).await;
            let stream = shaken.map_err(untrusted)?;
            match stream.get_ref().1.peer_certificates() {
                Some([leaf, ..]) if node_of(leaf).as_deref() == Some(&*node) => Ok(stream),
                _ => Err(untrusted(io::Error::other("its certificate is not that of the node"))),
            }
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        connected.map_err(|_| AgentError::TimedOut { node: node.clone(), address })?
    }

    /// Connects to a pod of the agent's node, at `pod`. The inner error is the agent's refusal: its code, and its
    /// words.
    pub async fn connect_to_pod(
        &self,
        to: &AgentAddress,
        pod: SocketAddr,
    ) -> Result<Result<Upgraded, (http::StatusCode, String)>, AgentError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("/podConnections/{pod}").parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let answer = self.exchange(to, request).await?;
        if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Err((answer.status(), text_of(answer.map(Body::new)).await)));
        }
        let address = SocketAddr::new(to.ip, to.port);
        let protocol = |source| AgentError::Protocol { node: to.node.clone(), address, source };
        hyper::upgrade::on(answer).await.map(Ok).map_err(protocol)
    }
}

/// Whose agent shows this certificate. A node says itself where its agent is, and what is sent there is sent as the API
/// server: at the address of another node or of the API server, it would act with rights that the node does not have.
fn node_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    identity_of(&certificate)?.node().map(str::to_owned)
}

fn client_config(
    authority: &Authority,
    own: &Issued,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig, AgentsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let certificate =
        CertificateDer::from_pem_slice(own.certificate_pem.as_bytes()).map_err(AgentsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(AgentsError::Certificate)?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?)
}

async fn text_of(response: Response<Body>) -> String {
    match Limited::new(response.into_body(), ERROR_LIMIT).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(e) => format!("the agent's reason is lost: {e}"),
    }
}

/// An agent's refusal as a Status: its text, under its own code.
pub async fn error_of(response: Response<Body>) -> Status {
    let code = response.status().as_u16();
    let text = text_of(response).await;
    match code {
        400 => Status::bad_request(text),
        404 => Status { code, reason: "NotFound", message: text, details: None },
        503 => Status { code, reason: "ServiceUnavailable", message: text, details: None },
        _ => Status::internal(format!("the agent answered {code}: {text}")),
    }
}
