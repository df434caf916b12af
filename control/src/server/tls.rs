//! The TLS side of the listener: which certificate is shown, which protocols are spoken, and how client certificates
//! are verified.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    DistinguishedName, ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;

use crate::auth::{
    client_certificate::ClientCertificates,
    pki::{Authority, Issued},
};

/// Why TLS cannot be served with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate is not PEM.
    #[error("the serving certificate is not usable")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    /// Key and certificate do not fit each other.
    #[error("the serving key does not fit its certificate")]
    Key(#[source] rustls::Error),
    /// The CA's certificate cannot verify clients.
    #[error("the CA certificate is not usable")]
    Authority(#[source] VerifierBuilderError),
    /// The TLS provider lacks what HTTP/2 needs.
    #[error("no TLS version is left to speak")]
    Versions(#[source] rustls::Error),
}

/// The certificate that the listener shows; it can be replaced while connections come in.
#[derive(Debug)]
pub struct ShownCertificate(ArcSwap<CertifiedKey>);

impl ShownCertificate {
    /// Serves `issued`, with the certificate of `authority` behind it in the chain.
    pub fn new(issued: &Issued, authority: &Authority, provider: &CryptoProvider) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(certified(issued, authority, provider)?)))
    }

    /// Shows another certificate from the next handshake on.
    pub fn replace(&self, issued: &Issued, authority: &Authority, provider: &CryptoProvider) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified(issued, authority, provider)?));
        Ok(())
    }

    /// The certificate that is served now.
    #[cfg(test)]
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.0.load().cert[0].clone()
    }
}

impl ResolvesServerCert for ShownCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// How the listener speaks TLS. Which certificates clients are asked for can be replaced while connections come in.
pub struct ListenerTls {
    shown: Arc<ShownCertificate>,
    clients: Arc<ClientCertificates>,
    provider: Arc<CryptoProvider>,
    config: ArcSwap<ServerConfig>,
}

impl ListenerTls {
    /// Shows one certificate, and asks for those that `clients` names.
    pub fn new(
        shown: Arc<ShownCertificate>,
        clients: Arc<ClientCertificates>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let config = server_config(shown.clone(), clients.clone(), provider.clone())?;
        Ok(Self { shown, clients, provider, config: ArcSwap::from_pointee(config) })
    }

    /// Asks for certificates of these authorities beside the cluster's, from the next handshake on.
    pub fn ask_for(&self, others: Vec<DistinguishedName>) -> Result<(), TlsError> {
        let clients = Arc::new(self.clients.asking_for(others));
        self.config.store(Arc::new(server_config(self.shown.clone(), clients, self.provider.clone())?));
        Ok(())
    }

    /// What the next handshake is made with.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

/// Prefers HTTP/2 and falls back to HTTP/1.1; client certificates are requested, not required.
fn server_config(
    shown: Arc<ShownCertificate>,
    clients: Arc<ClientCertificates>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shown);
    // Clients of Kubernetes do not resume sessions, and their certificates are to be looked at each time: tickets and
    // what is kept for them would be work and memory for nothing.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The verifier of client certificates.
pub fn client_certificates(
    authority: &Authority,
    provider: Arc<CryptoProvider>,
) -> Result<ClientCertificates, TlsError> {
    ClientCertificates::signed_by(authority.certificate(), provider).map_err(TlsError::Authority)
}

/// The chain has the CA behind the leaf: a joiner that knows only the CA's hash finds it there.
fn certified(issued: &Issued, authority: &Authority, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let leaf = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).map_err(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).map_err(TlsError::Certificate)?;
    CertifiedKey::from_der(vec![leaf, authority.certificate().clone()], key, provider).map_err(TlsError::Key)
}
