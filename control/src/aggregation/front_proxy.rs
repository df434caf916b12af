//! Who this server is to extension API servers: the certificate by which they recognise it, and by which they believe
//! what it says about the sender of a request. Nothing that a client sends ever chooses it or sees it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{SignatureScheme, client::ResolvesClientCert, crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::auth::pki::Issued;

/// The client certificate of the front proxy; it can be replaced while connections are made.
#[derive(Debug)]
pub struct FrontProxy(ArcSwap<CertifiedKey>);

/// Why the certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum FrontProxyError {
    /// Certificate or key are not PEM.
    #[error("the front proxy's certificate is not usable")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    /// Key and certificate do not fit each other.
    #[error("the front proxy's key does not fit its certificate")]
    Key(#[source] rustls::Error),
}

impl FrontProxy {
    /// Shows `issued`.
    pub fn new(issued: &Issued, provider: &CryptoProvider) -> Result<Self, FrontProxyError> {
        Ok(Self(ArcSwap::from_pointee(certified(issued, provider)?)))
    }

    /// The certificate that is shown, in DER.
    #[cfg(test)]
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.0.load().cert[0].clone()
    }

    /// Shows another certificate from the next connection on.
    pub fn replace(&self, issued: &Issued, provider: &CryptoProvider) -> Result<(), FrontProxyError> {
        self.0.store(Arc::new(certified(issued, provider)?));
        Ok(())
    }
}

impl ResolvesClientCert for FrontProxy {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(issued: &Issued, provider: &CryptoProvider) -> Result<CertifiedKey, FrontProxyError> {
    let leaf =
        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).map_err(FrontProxyError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).map_err(FrontProxyError::Certificate)?;
    CertifiedKey::from_der(vec![leaf], key, provider).map_err(FrontProxyError::Key)
}
