//! Whose certificates front proxies show: what a file of `--requestheader-client-ca-file` says, ready to verify them.

use std::{path::Path, sync::Arc};

use rustls::{
    DistinguishedName, RootCertStore,
    crypto::CryptoProvider,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{options::RequestHeaderOptions, request_headers::RequestHeaderError};

/// The authorities of front proxies, as a file said once.
#[derive(Debug)]
pub struct TrustedAuthorities {
    /// Verifies certificates of clients.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// As extension API servers are told of it.
    pub pem: String,
    /// How many there were before.
    pub generation: u64,
}

/// Why certificates verify nothing.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// They are not PEM.
    #[error(transparent)]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// One of them is no authority's.
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    /// There is none.
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
}

impl TrustedAuthorities {
    /// Of the text of a file. Who signs for the users of the cluster must not sign for proxies of any name.
    pub fn of(
        path: &Path,
        text: &[u8],
        (cluster, options): (&CertificateDer<'_>, &RequestHeaderOptions),
        provider: Arc<CryptoProvider>,
        generation: u64,
    ) -> Result<Self, RequestHeaderError> {
        let unusable = |why| RequestHeaderError::Authorities { path: path.display().to_string(), why };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text) {
            let certificate = certificate.map_err(|error| unusable(error.into()))?;
            if certificate == *cluster && options.allowed_names.is_empty() {
                return Err(RequestHeaderError::Overlap);
            }
            roots.add(certificate).map_err(|error| unusable(error.into()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| unusable(error.into()))?;
        Ok(Self { verifier, pem: String::from_utf8_lossy(text).into_owned(), generation })
    }

    /// Their names: a client shows only a certificate of an authority that it is asked for.
    pub fn hints(&self) -> Vec<DistinguishedName> {
        self.verifier.root_hint_subjects().to_vec()
    }
}
