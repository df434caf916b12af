//! Whose certificates are taken from a webhook.
//!
//! Those that an authority of the `caBundle` signed, as everywhere; and as in Go, a certificate of the bundle itself
//! even if it says that it is an authority's: `openssl req -x509` makes such ones, and many webhooks show them.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::ring,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

/// Why a `caBundle` is no ground for trust.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrustError {
    /// It is not base64.
    #[error(transparent)]
    Encoding(#[from] base64::DecodeError),
    /// It is not PEM.
    #[error("{0}")]
    Pem(Arc<pem::Error>),
    /// It has no certificate.
    #[error("unable to parse bytes as PEM block")]
    Empty,
    /// One of its certificates is not an authority's.
    #[error(transparent)]
    Certificate(#[from] Error),
    /// Nothing can be verified with its certificates.
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
}

impl From<pem::Error> for TrustError {
    fn from(error: pem::Error) -> Self {
        Self::Pem(error.into())
    }
}

/// Verifies the certificates of one webhook.
#[derive(Debug)]
pub struct Trust {
    by_authority: Arc<WebPkiServerVerifier>,
    /// The certificates of the bundle.
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Trusts `roots`; `own` are those of them that a server may show itself.
    pub fn new(roots: RootCertStore, own: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), ring::default_provider().into());
        Ok(Self { by_authority: builder.build()?, own })
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.by_authority.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.own.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                must_be_valid_at(end_entity, now)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

fn must_be_valid_at(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    let now = now.ok_or(CertificateError::BadEncoding)?;
    let validity = parsed.validity();
    if now < validity.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}
