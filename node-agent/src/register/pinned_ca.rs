//! Fetches the cluster's CA from a server of which only the CA's hash is known.
//!
//! The handshake succeeds only when the served chain holds a certificate of that hash *and* the server's own
//! certificate is signed by it for the name that was dialled; nothing is sent before.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

/// DER of the CA that `url`'s server stands under, when its SHA-256 is `pin`.
pub async fn fetch(url: &http::Uri, pin: &[u8; 32]) -> Result<Vec<u8>, PinnedCaError> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| PinnedCaError::Name { host: host.to_owned() })?;
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(PinnedVerifier { pin: *pin, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(PinnedCaError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let tcp = TcpStream::connect((host, url.port_u16().unwrap_or(443))).await.map_err(PinnedCaError::Connect)?;
    let tls =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(PinnedCaError::Connect)?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let ca = chain.iter().find(|certificate| has_hash(certificate, pin)).ok_or(PinnedCaError::NotServed)?;
    Ok(ca.to_vec())
}

/// Whether `certificate` (DER) is the one that the pin names.
pub(super) fn has_hash(certificate: &[u8], pin: &[u8; 32]) -> bool {
    Sha256::digest(certificate).as_slice() == pin
}

/// Trusts exactly the served certificate whose hash is the pin.
#[derive(Debug)]
struct PinnedVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let ca = intermediates.iter().find(|certificate| has_hash(certificate, &self.pin)).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why the server could not be verified by the token's pin.
#[derive(Debug, thiserror::Error)]
pub enum PinnedCaError {
    /// The server's URL has no usable host.
    #[error("{host:?} is neither a host name nor an address")]
    Name { host: String },
    /// This program's TLS provider refused its settings.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// Nothing listens there, or it is an impostor.
    #[error("cannot connect, or the server does not stand under the CA that the token names")]
    Connect(#[source] std::io::Error),
    /// A server in between shows a chain of its own.
    #[error("the server does not send the CA that the token names")]
    NotServed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::net::TcpListener;

    /// Serves one handshake with a certificate for 127.0.0.1 under a fresh CA; returns its port and the CA's DER.
    async fn server() -> (u16, Vec<u8>) {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca_params = CertificateParams::default();
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = ca_params.self_signed(&ca_key).expect("a CA");
        let issuer = Issuer::new(ca_params, ca_key);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["127.0.0.1".into()])
            .expect("a name")
            .signed_by(&key, &issuer)
            .expect("a certificate");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone(), ca.der().clone()],
                rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.expect("a client");
            // A client that refuses the chain ends the handshake: the client's result is what the test looks at.
            tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(tcp).await.ok()
        });
        (port, ca.der().to_vec())
    }

    #[tokio::test]
    async fn the_ca_of_the_right_hash_is_fetched() {
        let (port, ca) = server().await;
        let url = format!("https://127.0.0.1:{port}").parse().expect("a URL");
        let pin = Sha256::digest(&ca).into();
        assert_eq!(fetch(&url, &pin).await.expect("the CA"), ca);
    }

    #[tokio::test]
    async fn a_server_under_another_ca_is_refused() {
        let (port, _) = server().await;
        let url = format!("https://127.0.0.1:{port}").parse().expect("a URL");
        assert!(matches!(fetch(&url, &[7; 32]).await, Err(PinnedCaError::Connect(_))));
    }
}
