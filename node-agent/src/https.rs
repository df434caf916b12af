//! The agent's own HTTPS server, where the kubelet's would be: the control service fetches logs and inspections here.
//!
//! Only callers with a client certificate of the cluster's CA that names the API server, or an administrator, reach all
//! of it; others reach what tells nothing but whether the agent works.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::register::certificate::Certificate;

/// A listening server that is not yet accepting.
pub struct Https {
    listener: TcpListener,
    tls: Tls,
}

/// What is served, by who asks.
#[derive(Clone)]
pub struct Routes {
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

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `routes` until `stop`; connections in flight are then cut.
    pub async fn serve(self: Arc<Self>, routes: Routes, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let tcp = match accepted {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    // Out of file descriptors, most likely: give the others time to close theirs.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            tasks.spawn(connection(tcp, self.tls.acceptor(), routes.clone(), stop.clone()));
        }
        tasks.close();
        tasks.wait().await;
    }
}

/// A client that does not finish its handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, routes: Routes, stop: CancellationToken) {
    // A short answer must not wait for the acknowledgement of its header (RFC 896 and RFC 1122, 4.2.3.2: some 40 ms).
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "answers on a connection may be late");
    }
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "refused a TLS client"),
        Err(_) => return tracing::debug!("a TLS client did not finish its handshake"),
    };
    let caller = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(Caller::of);
    let router = match caller {
        Some(caller) if caller.may_inspect() => routes.trusted,
        // Known, but nobody who may ask for more.
        Some(_) => routes.open.fallback(|| async { (http::StatusCode::FORBIDDEN, ONLY_FOR) }),
        None => routes.open.fallback(|| async { (http::StatusCode::UNAUTHORIZED, ONLY_FOR) }),
    };
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(tls), TowerToHyperService::new(router));
    tokio::select! {
        () = stop.cancelled() => {}
        result = serving => {
            if let Err(error) = result {
                tracing::debug!(error, "a connection ended early");
            }
        }
    }
}

const ONLY_FOR: &str = "only the API server and administrators may ask here\n";

/// Who holds the client certificate.
#[derive(Debug)]
struct Caller {
    name: String,
    groups: Vec<String>,
}

impl Caller {
    fn of(certificate: &CertificateDer) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let subject = certificate.subject();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue| attribute.as_str().ok().map(str::to_owned);
        Some(Self {
            name: subject.iter_common_name().next().and_then(text)?,
            groups: subject.iter_organization().filter_map(text).collect(),
        })
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
    #[error("cannot listen on {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("the {what} is not PEM")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("cannot verify clients by the cluster CA")]
    ClientVerifier(#[source] rustls::server::VerifierBuilderError),
}
