//! Who a TLS client is by its certificate.
//!
//! The handshake lets any certificate pass whose key the client holds, and the request is then answered 401 if it is
//! not of this cluster: a client learns why, instead of a broken connection. Kubernetes does the same
//! (`tls.RequestClientCert`).

use std::{sync::Arc, time::SystemTime};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;

use super::{Identity, pki::certificate_hash};

/// Where it stands which of the certificates of a user was shown.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Checks certificates against the cluster's CA, after the handshake.
#[derive(Debug)]
pub struct ClientCertificates {
    strict: Arc<dyn ClientCertVerifier>,
    /// The names of the authorities whose certificates clients are asked for.
    hints: Vec<DistinguishedName>,
}

/// What the certificate of one connection says. Kept for the connection's life, so it knows its own end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// User and groups: CN and O of the certificate.
    pub identity: Identity,
    /// Seconds since the epoch.
    pub(crate) not_after: i64,
}

/// The certificate is not one of this cluster, is not for clients, is out of date, or names nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the client's certificate is not accepted: {0}")]
pub struct BadCertificate(String);

impl ClientCertificates {
    /// A verifier that accepts clients without a certificate, and reads those whose certificate `authority` signed.
    pub fn signed_by(
        authority: &CertificateDer<'static>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let mut roots = RootCertStore::empty();
        // An authority that is no certificate makes the builder below fail for want of a root.
        roots.add_parsable_certificates([authority.clone()]);
        let strict =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build()?;
        let hints = strict.root_hint_subjects().to_vec();
        Ok(Self { strict, hints })
    }

    /// The same, who also asks for certificates of other authorities. Somebody else reads those.
    pub fn asking_for(&self, others: impl IntoIterator<Item = DistinguishedName>) -> Self {
        let own = self.strict.root_hint_subjects().iter().cloned();
        Self { strict: self.strict.clone(), hints: own.chain(others).collect() }
    }

    /// Reads the identity out of what a client presented, leaf first.
    pub fn identify(&self, chain: &[CertificateDer<'_>]) -> Result<CertificateIdentity, BadCertificate> {
        let (leaf, intermediates) = chain.split_first().ok_or_else(|| BadCertificate("there is none".into()))?;
        self.strict
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(|e| BadCertificate(e.to_string()))?;
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|e| BadCertificate(e.to_string()))?;
        let mut identity = identity_of(&certificate).ok_or_else(|| BadCertificate("it has no common name".into()))?;
        identity.extra.insert(CREDENTIAL.to_owned(), vec![format!("X509SHA256={}", certificate_hash(leaf))]);
        let not_after = certificate.validity().not_after.timestamp();
        Ok(CertificateIdentity { identity, not_after })
    }
}

/// Whom a certificate names; nobody where it has no common name.
pub fn identity_of(certificate: &X509Certificate<'_>) -> Option<Identity> {
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    Some(Identity::authenticated(name.to_owned(), groups))
}

impl CertificateIdentity {
    /// A connection may outlive the certificate it began with.
    pub fn at(&self, now: SystemTime) -> Result<&Identity, BadCertificate> {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if i64::try_from(seconds).is_ok_and(|now| now <= self.not_after) {
            Ok(&self.identity)
        } else {
            Err(BadCertificate("it expired while the connection was open".into()))
        }
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Judged by `identify`, for which the 401 needs a connection.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::{
        super::pki::{Authority, CertificateSubject, Usage},
        *,
    };

    fn identify(authority: &Authority, usage: Usage, issued_at: OffsetDateTime) -> Result<Identity, BadCertificate> {
        let (own, _) = (authority, ());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = ClientCertificates::signed_by(own.certificate(), provider).unwrap();
        let subject = CertificateSubject {
            common_name: "joe".into(),
            organization: Some("makers".into()),
            ..CertificateSubject::default()
        };
        let issued = authority.issue(&subject, usage, Duration::from_secs(3600), issued_at).unwrap();
        let der = CertificateDer::from(pem::parse(issued.certificate_pem).unwrap().into_contents());
        verifier.identify(&[der]).map(|c| c.identity)
    }

    #[test]
    fn only_a_client_certificate_of_this_authority_that_is_in_date_is_somebody() {
        let now = OffsetDateTime::now_utc();
        let (authority, _) = Authority::create(now).unwrap();
        let identity = identify(&authority, Usage::Client, now).unwrap();
        assert_eq!(identity.name, "joe");
        assert_eq!(identity.groups, ["makers", "system:authenticated"]);
        let credential = &identity.extra[CREDENTIAL][0];
        assert_eq!(credential.strip_prefix("X509SHA256=").map(str::len), Some(64), "{credential}");
        assert!(identify(&authority, Usage::Server, now).is_err());
        assert!(identify(&authority, Usage::Client, now - Duration::from_secs(7200)).is_err());

        let (other, _) = Authority::create(now).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = ClientCertificates::signed_by(authority.certificate(), provider).unwrap();
        let foreign = other.issue(&CertificateSubject::default(), Usage::Client, Duration::from_secs(60), now).unwrap();
        let der = CertificateDer::from(pem::parse(foreign.certificate_pem).unwrap().into_contents());
        assert!(verifier.identify(&[der]).is_err());
        assert!(verifier.identify(&[]).is_err());
    }

    #[test]
    fn a_certificate_ends_while_its_connection_lasts() {
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let held = CertificateIdentity {
            identity: Identity::authenticated("joe".into(), vec![]),
            not_after: i64::try_from(seconds).unwrap() + 10,
        };
        assert!(held.at(now).is_ok());
        assert!(held.at(now + Duration::from_secs(11)).is_err());
    }
}
