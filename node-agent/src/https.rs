//! The agent's own HTTPS server, where the kubelet's would be: the control service fetches logs and inspections here.
//!
//! Only callers with a client certificate of the cluster's CA that names the API server, or an administrator, reach all
//! of it; others reach what tells nothing but whether the agent works.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use axum::Router;
use fairlead_serving::{
    bulk_reads::BulkReads,
    http_connection::{self, Pings},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    connection_limit::{ConnectionLimit, Counted},
    expiring_connection::ExpiringConnection,
    register::certificate::Certificate,
};

/// A listening server that is not yet accepting.
pub struct Https {
    pub(crate) listener: TcpListener,
    tls: Tls,
}

/// What is served, by who asks.
#[derive(Clone)]
pub struct HttpsRoutes {
    /// For the API server and administrators.
    pub trusted: Router,
    /// For everybody who reaches the port.
    pub open: Router,
}

/// The TLS of a server, whose certificate can be replaced while it serves.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ArcSwap<ServerConfig>>,
    client_ca_pem: Arc<str>,
}

impl Tls {
    fn new(certificate: &Certificate, client_ca_pem: &str) -> Result<Self, HttpsError> {
        let config = tls(certificate, client_ca_pem)?;
        Ok(Self { config: Arc::new(ArcSwap::from_pointee(config)), client_ca_pem: client_ca_pem.into() })
    }

    /// For every handshake from now on; connections that there are go on.
    pub fn replace(&self, certificate: &Certificate) -> Result<(), HttpsError> {
        self.config.store(Arc::new(tls(certificate, &self.client_ca_pem)?));
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

impl Https {
    /// Binds `address` and prepares TLS. Port 0 takes a free one.
    pub async fn bind(address: SocketAddr, certificate: &Certificate, client_ca_pem: &str) -> Result<Self, HttpsError> {
        let tls = Tls::new(certificate, client_ca_pem)?;
        let listener = TcpListener::bind(address).await.map_err(|source| HttpsError::Bind { address, source })?;
        Ok(Self { listener, tls })
    }

    /// Through which the certificate is replaced.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Serves `routes` until `stop`; connections in flight are then cut.
    pub async fn serve(self: Arc<Self>, routes: HttpsRoutes, stop: CancellationToken) {
        let (tasks, strangers) = (TaskTracker::new(), ConnectionLimit::new(MOST_OF_ONE_STRANGER, MOST_STRANGERS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: give the others time to close theirs.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let stranger = strangers.admit(peer.ip());
            tasks.spawn(connection(tcp, stranger, self.tls.acceptor(), routes.clone(), stop.clone()));
        }
        tasks.close();
        tasks.wait().await;
    }
}

/// A client that does not finish its handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of one address, and of all, that have not shown a certificate that is trusted. Every pod may open them.
const MOST_OF_ONE_STRANGER: usize = 32;
const MOST_STRANGERS: usize = 512;
/// How long a stranger may stay. What they can ask for is answered at once.
const STRANGERS_STAY: Duration = Duration::from_secs(60);
/// How long the answer that is under way may take, once a stranger has to go, or a certificate has ended.
const LAST_ANSWER: Duration = Duration::from_secs(5);

async fn connection(
    tcp: TcpStream,
    stranger: Counted,
    acceptor: TlsAcceptor,
    routes: HttpsRoutes,
    stop: CancellationToken,
) {
    if let Err(error) = http_connection::set_options(&tcp) {
        tracing::debug!(%error, "answers on a connection may be late, and its end may not be noticed");
    }
    let shaken = tokio::select! {
        () = stranger.is_cut() => return tracing::debug!("cut a TLS handshake to make room"),
        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(BulkReads::new(tcp))) => shaken,
    };
    let tls = match shaken {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "refused a TLS client"),
        Err(_) => return tracing::debug!("a TLS client did not finish its handshake"),
    };
    if let Err(error) = http_connection::acknowledge_now(tls.get_ref().0.get_ref()) {
        tracing::debug!(%error, "the first request on a connection may be late");
    }
    let caller = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(Caller::of);
    // A session that is resumed has the certificate of its first handshake, which nobody verifies again.
    let certificate_lasts =
        caller.as_ref().map_or(Duration::ZERO, |caller| caller.certificate_lasts(SystemTime::now()));
    let (router, stranger) = match caller {
        Some(caller) if caller.may_inspect() && !certificate_lasts.is_zero() => {
            // It counts no more.
            drop(stranger);
            (routes.trusted, None)
        }
        // Known, but nobody who may ask for more.
        Some(_) => (routes.open.fallback(|| async { (http::StatusCode::FORBIDDEN, ONLY_FOR) }), Some(stranger)),
        None => (routes.open.fallback(|| async { (http::StatusCode::UNAUTHORIZED, ONLY_FOR) }), Some(stranger)),
    };
    // What becomes of an upgrade, such as exec, outlives the serving, and no certificate.
    let lifetime = stranger.is_none().then(|| certificate_lasts.saturating_add(LAST_ANSWER));
    let tls = ExpiringConnection::new(tls, lifetime);
    let builder = http_connection::http(Pings::default());
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(tls), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let must_go = async {
        match &stranger {
            None => tokio::time::sleep(certificate_lasts).await,
            Some(stranger) => drop(tokio::time::timeout(STRANGERS_STAY, stranger.is_cut()).await),
        }
    };
    let result = tokio::select! {
        () = stop.cancelled() => return,
        result = serving.as_mut() => result,
        () = must_go => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_ANSWER, serving).await {
                Ok(result) => result,
                Err(_) => return tracing::debug!("cut a connection that took too long"),
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended early");
    }
}

const ONLY_FOR: &str = "only the API server and administrators may ask here\n";

/// Who holds the client certificate.
#[derive(Debug)]
struct Caller {
    name: String,
    groups: Vec<String>,
    /// Seconds since the epoch.
    not_after: i64,
}

impl Caller {
    fn of(certificate: &CertificateDer) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let subject = certificate.subject();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue| attribute.as_str().ok().map(str::to_owned);
        Some(Self {
            name: subject.iter_common_name().next().and_then(text)?,
            groups: subject.iter_organization().filter_map(text).collect(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    /// How long the certificate is valid yet; zero once it is not.
    fn certificate_lasts(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(self.not_after).map_or(Duration::ZERO, |end| Duration::from_secs(end).saturating_sub(now))
    }

    fn may_inspect(&self) -> bool {
        self.name == "system:kube-apiserver" || self.groups.iter().any(|group| group == "system:masters")
    }
}

fn tls(certificate: &Certificate, client_ca_pem: &str) -> Result<ServerConfig, HttpsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(client_ca_pem.as_bytes()) {
        let ca = ca.map_err(|source| HttpsError::Pem { what: "cluster CA", source })?;
        roots.add(ca).map_err(HttpsError::Tls)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(HttpsError::ClientVerifier)?;
    let chain = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| HttpsError::Pem { what: "serving certificate", source })?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes())
        .map_err(|source| HttpsError::Pem { what: "serving key", source })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(HttpsError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(HttpsError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Why the server cannot serve. Remedy: free the port, or see what is wrong with the named PEM file.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// Another program has the port.
    #[error("cannot listen on {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
    /// A certificate or key file is damaged.
    #[error("the {what} is not PEM")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    /// Certificate and key do not fit each other.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The cluster's CA certificate cannot verify clients.
    #[error("cannot verify clients by the cluster CA")]
    ClientVerifier(#[source] rustls::server::VerifierBuilderError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_takes_its_connections_with_it() {
        let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap();
        let caller = Caller { name: "system:kube-apiserver".into(), groups: Vec::new(), not_after: 1000 };
        assert_eq!(caller.certificate_lasts(at(990)), Duration::from_secs(10));
        assert_eq!(caller.certificate_lasts(at(1000)), Duration::ZERO);
        assert_eq!(caller.certificate_lasts(at(5000)), Duration::ZERO, "as in a session that is resumed");
    }
}
