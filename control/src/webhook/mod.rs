//! Calls of webhooks, of admission and of conversion alike: HTTPS to a URL or to a Service of the cluster, with JSON
//! there and back. The aggregation of APIs reaches its Services in the same way: [`WebhookTarget`], [`verifier`],
//! [`connector`].
//!
//! - **[`ClientConfig`]**: where a webhook is and whom it must prove to be, read once.
//! - **[`Client`]**: calls it. Its connections are kept and shared by all requests; it is cheap to clone.
//! - **[`KubeconfigClient`]**: calls the server that a kubeconfig names.
//! - **`trust`**: whose certificates are taken.
//! - **`lookup`**: the addresses of a URL's name, looked up once for all who ask.
//! - **`target`**: which address a call goes to, decided anew for each call, so that an endpoint that is no longer
//!   ready gets no further calls over a kept connection.
//!
//! The certificate must be for `NAME.NAMESPACE.svc`, or for the URL's host, and signed by the `caBundle`; without one,
//! by an authority that the system trusts. A URL may name any address, for only administrators write it. A Service may
//! not lead to this machine itself: whoever may write Services in one namespace could otherwise reach what listens on
//! the loopback of the control service.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{client::legacy, rt::TokioExecutor};
use rustls::{ClientConfig as TlsConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject};
use serde_json::Value;

use self::trust::Trust;
use crate::{audit::current, store::Snapshot};

mod dial;
mod kubeconfig;
mod lookup;
mod stream;
mod target;
#[cfg(test)]
pub mod tests;
mod trust;

pub use dial::{CONNECT_TIMEOUT, Connector, Dial, Network, RemoteConnectError};
pub use kubeconfig::{KubeconfigCallError, KubeconfigClient, KubeconfigSetupError};
pub use stream::Stream;
pub use target::{Address, ResolveError, WebhookTarget, is_own};
pub use trust::TrustError;

/// Where a webhook is, and whom it must prove to be.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    target: WebhookTarget,
    /// `/convert`
    path: String,
    /// PEM; empty for the authorities that the system trusts.
    authorities: Vec<u8>,
}

/// Calls one webhook. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    http: legacy::Client<HttpsConnector<Connector>, Full<Bytes>>,
}

/// Why a webhook cannot be called at all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConfigError {
    /// `url` is no URL with a host.
    #[error("Unparsable URL: {url:?}")]
    Url {
        /// As it was configured.
        url: String,
    },
    /// `caBundle` has no certificate.
    #[error("unable to load root certificates: {0}")]
    CaBundle(TrustError),
    /// No protocol version of TLS is left.
    #[error("cannot set up TLS: {0}")]
    Tls(rustls::Error),
    /// Its host cannot be in a certificate.
    #[error("cannot set up TLS: {0}")]
    Host(Arc<InvalidDnsNameError>),
}

/// Why a call failed, in the words of Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no answer in time.
    #[error("Post {url:?}: context deadline exceeded")]
    Timeout {
        /// What was called.
        url: String,
    },
    /// There was no answer: no address, no connection, no trust.
    #[error("Post {url:?}: {why}")]
    Request {
        /// What was called.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// It answered with another code than 2xx.
    #[error("{message}")]
    Refused {
        /// The HTTP code.
        code: u16,
        /// Kubernetes' words for it, or those of the answer, if that is a `Status`.
        message: String,
    },
    /// The answer is no JSON.
    #[error("the answer is not JSON: {source}")]
    Answer {
        /// Where it ceases to be.
        source: serde_json::Error,
    },
}

/// The largest answer that is read.
const MAX_ANSWER: usize = 32 << 20;
/// How much of a refusal's text is shown. Source: `maxUnstructuredResponseTextBytes`.
const SHOWN: usize = 2048;
/// How long a connection is kept that nothing uses.
const KEPT: Duration = Duration::from_secs(90);
/// How many unused connections to one address are kept. Source: `MaxIdleConnsPerHost` of client-go.
const KEPT_PER_ADDRESS: usize = 25;

impl ClientConfig {
    /// Reads a `WebhookClientConfig`.
    pub fn read(config: &Value) -> Result<Self, ConfigError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (target, path) = match config["url"].as_str() {
            Some(url) => {
                let wrong = || ConfigError::Url { url: url.to_owned() };
                let uri: Uri = url.parse().map_err(|_| wrong())?;
                let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
                (WebhookTarget::Host { host, port: uri.port_u16() }, uri.path().to_owned())
            }
            None => {
                let service = &config["service"];
                let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
                let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
                (WebhookTarget::Service { namespace, name, port }, text(&service["path"]))
            }
        };
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        let authorities = BASE64_STANDARD.decode(bundle).map_err(|error| ConfigError::CaBundle(error.into()))?;
        // `http::Uri` has no path without a slash, and Kubernetes joins both with one.
        let path = format!("/{}", path.trim_start_matches('/'));
        Ok(Self { target, path, authorities })
    }

    /// What a call asks for, as messages show it; with how long it may take, if that is told.
    fn url(&self, timeout: Option<Duration>) -> String {
        let path = &self.path;
        let asked = timeout.map(|timeout| format!("?timeout={}s", whole_seconds(timeout))).unwrap_or_default();
        format!("https://{}{path}{asked}", self.target.authority())
    }
}

impl Client {
    /// Of a webhook that `dial` connects to.
    pub fn new(config: ClientConfig, dial: Arc<dyn Dial>) -> Result<Self, ConfigError> {
        let tls = tls(&config.authorities)?;
        let http = pooled(connector(&config.target, dial, tls)?);
        Ok(Self { config: Arc::new(config), http })
    }

    /// Posts `body`; answers with the JSON that comes back within `timeout`. Services are looked up in `snapshot`.
    /// `tells_timeout` puts the timeout into the query, as admission does and conversion does not.
    pub async fn post(
        &self,
        snapshot: &Snapshot,
        body: Bytes,
        timeout: Duration,
        tells_timeout: bool,
    ) -> Result<Value, CallError> {
        let url = self.config.url(tells_timeout.then_some(timeout));
        match tokio::time::timeout(timeout, self.send(snapshot, body, &url)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout { url }),
        }
    }

    async fn send(&self, snapshot: &Snapshot, body: Bytes, url: &str) -> Result<Value, CallError> {
        let failed = |why: String| CallError::Request { url: url.to_owned(), why };
        let address = self.config.target.address(snapshot).map_err(|error| failed(error.to_string()))?;
        let authority = self.config.target.authority();
        let (_, path) = url.split_at("https://".len() + authority.len());
        let request = Request::post(format!("https://{address}{path}"))
            .header(header::HOST, authority.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(body))
            .map_err(|error| failed(error.to_string()))?;
        let response = self.http.request(request).await.map_err(|error| {
            note_certificate(&error, &authority);
            failed(cause(&error))
        })?;
        let code = response.status();
        let text = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let text = text.map_err(|error| failed(cause(&*error)))?.to_bytes();
        if !code.is_success() {
            return Err(CallError::Refused { code: code.as_u16(), message: refusal(code.as_u16(), &text) });
        }
        serde_json::from_slice(&text).map_err(|source| CallError::Answer { source })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip, port) => SocketAddr::new(*ip, *port).fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

fn whole_seconds(timeout: Duration) -> u64 {
    timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0))
}

/// TLS with servers whose certificates the authorities in `bundle` (PEM) signed, or the system's if it is empty.
pub fn tls(bundle: &[u8]) -> Result<TlsConfig, ConfigError> {
    let builder = TlsConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ConfigError::Tls)?
        .dangerous();
    let verifier = Arc::new(verifier(bundle).map_err(ConfigError::CaBundle)?);
    Ok(builder.with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Connections to a target, whose certificate must be for its name.
pub fn connector(
    target: &WebhookTarget,
    dial: Arc<dyn Dial>,
    tls: TlsConfig,
) -> Result<HttpsConnector<Connector>, ConfigError> {
    let name = ServerName::try_from(target.server_name()).map_err(|error| ConfigError::Host(error.into()))?;
    // HTTP/1.1: one connection of HTTP/2 would send all requests to one of several endpoints.
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(name))
        .enable_http1()
        .wrap_connector(Connector::new(dial, target)))
}

/// A client that keeps connections which nothing uses, but not many and not for long.
pub fn pooled<B>(connector: HttpsConnector<Connector>) -> legacy::Client<HttpsConnector<Connector>, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(hyper_util::rt::TokioTimer::new())
        .pool_idle_timeout(KEPT)
        .pool_max_idle_per_host(KEPT_PER_ADDRESS)
        .build(connector)
}

/// Whose certificates are taken: of the authorities in `bundle` (PEM), or of the system's if it is empty.
pub fn verifier(bundle: &[u8]) -> Result<Trust, TrustError> {
    // They are read from disk: once.
    static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    if bundle.is_empty() {
        return Trust::new(SYSTEM.clone(), Vec::new());
    }
    let (mut roots, mut own) = (RootCertStore::empty(), Vec::new());
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate?;
        roots.add(certificate.clone())?;
        own.push(certificate);
    }
    if roots.is_empty() {
        return Err(TrustError::Empty);
    }
    Trust::new(roots, own)
}

/// What an error comes from, in the words of Go where clients know them.
pub fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut last = String::new();
    for error in chain {
        if let Some(tls) = tls_error(error) {
            return untrusted(tls);
        }
        last = error.to_string();
    }
    last
}

/// Whether a server's certificate has no names but that of its subject, which says nothing any more.
fn is_without_san(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::{CertificateError::NotValidForNameContext, Error::InvalidCertificate};
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.filter_map(tls_error).any(
        |error| matches!(error, InvalidCertificate(NotValidForNameContext { presented, .. }) if presented.is_empty()),
    )
}

/// Notes that a server was not taken because its certificate is as no certificate should be any more. Source:
/// `k8s.io/apiserver/pkg/util/x509metrics`.
pub fn note_certificate(error: &(dyn std::error::Error + 'static), authority: &str) {
    if !is_without_san(error) {
        return;
    }
    let parsed = authority.parse::<http::uri::Authority>();
    let host = parsed.as_ref().map_or(authority, |authority| authority.host()).trim_matches(['[', ']']);
    current::annotate(&format!("missing-san.invalid-cert.kubernetes.io/{host}"), || {
        "relies on a legacy Common Name field instead of the SAN extension for subject validation".to_owned()
    });
}

/// The TLS error in an error of input and output, which is not among its sources.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let io = std::iter::successors(error.downcast_ref::<std::io::Error>(), |error| error.get_ref()?.downcast_ref());
    let inner = io.last().and_then(std::io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref())
}

fn untrusted(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
        }
        Error::InvalidCertificate(why) => format!("tls: failed to verify certificate: x509: {why}"),
        other => format!("tls: {other}"),
    }
}

/// What an answer with an error's code says. Source: `NewGenericServerResponse`.
fn refusal(code: u16, text: &[u8]) -> String {
    if let Ok(status) = serde_json::from_slice::<Value>(text)
        && status["kind"] == "Status"
        && let Some(message) = status["message"].as_str()
    {
        return message.to_owned();
    }
    let body: String = String::from_utf8_lossy(text).trim().chars().take(SHOWN).collect();
    match code {
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => body,
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        500 => format!("an error on the server ({body:?}) has prevented the request from succeeding"),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the \
                request"
            .to_owned(),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}
