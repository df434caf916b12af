//! The cluster's certificate authority: its key, and what it signs.
//!
//! Decides serial numbers, validity and extensions of certificates. Never decides who gets one.

use std::{net::IpAddr, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::requested_subject;

/// A certificate that begins now is refused by a peer whose clock is behind; Kubernetes gives the same five minutes.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Signs every certificate of the cluster.
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says about its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateSubject {
    /// The user, in Kubernetes' reading of a client certificate.
    pub common_name: String,
    /// The group, in Kubernetes' reading of a client certificate. One is all that any certificate of ours needs.
    pub organization: Option<String>,
    /// Subject alternative names.
    pub dns_names: Vec<String>,
    /// Subject alternative names that are addresses.
    pub addresses: Vec<IpAddr>,
}

/// Extended key usage of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To show who one is: `clientAuth`.
    Client,
    /// To be recognised as a server: `serverAuth`.
    Server,
}

/// A certificate and its private key, both as PEM.
pub struct Issued {
    /// The leaf alone.
    pub certificate_pem: String,
    /// PKCS #8. Never logged.
    pub key_pem: String,
}

/// Why the authority could not be loaded, made or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It is damaged, or no CA's.
    #[error("the certificate is not usable: {0}")]
    Certificate(String),
    /// It is damaged, or of an unknown kind.
    #[error("the private key is not usable")]
    Key(#[source] rcgen::Error),
    /// The two files are not of one authority: restore both from one backup.
    #[error("the private key belongs to another certificate")]
    Mismatch,
    /// A request's subject is no name.
    #[error("the subject of the request cannot be put into a certificate")]
    Subject,
    /// The request's names or key cannot be certified.
    #[error("cannot sign")]
    Sign(#[from] rcgen::Error),
}

impl Authority {
    /// Makes a new authority of the cluster. Returns it and its private key as PEM.
    pub fn create(now: OffsetDateTime) -> Result<(Self, String), AuthorityError> {
        Self::create_named("fairlead-ca", now)
    }

    /// Makes a new authority with this common name. Returns it and its private key as PEM.
    pub fn create_named(common_name: &str, now: OffsetDateTime) -> Result<(Self, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(random_serial());
        params.not_before = now.saturating_sub(signed(CLOCK_SKEW));
        params.not_after = now.saturating_add(signed(CA_LIFETIME));
        let certificate = params.self_signed(&key)?;
        let key_pem = key.serialize_pem();
        let authority = Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        };
        Ok((authority, key_pem))
    }

    /// Takes up an authority that was made before.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let parsed = pem::parse(certificate_pem).map_err(|e| AuthorityError::Certificate(e.to_string()))?;
        let certificate = CertificateDer::from(parsed.into_contents());
        let (_, x509) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|e| AuthorityError::Certificate(e.to_string()))?;
        if !x509.is_ca() {
            return Err(AuthorityError::Certificate("it is not one of a certificate authority".into()));
        }
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Key)?;
        if x509.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(AuthorityError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, certificate_pem: certificate_pem.to_owned(), issuer })
    }

    /// The authority's certificate, in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The authority's certificate, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the CA's certificate (DER), as 64 hex digits: what a join token pins.
    pub fn hash(&self) -> String {
        certificate_hash(&self.certificate)
    }

    /// Makes a key and a certificate for it.
    pub fn issue(
        &self,
        subject: &CertificateSubject,
        usage: Usage,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = params(subject, usage, lifetime, now)?.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs the public key of a signing request; nothing else of the request gets into the certificate.
    pub fn sign(
        &self,
        request: &CertificateSigningRequestParams,
        subject: &CertificateSubject,
        usage: Usage,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<String, AuthorityError> {
        let certificate = params(subject, usage, lifetime, now)?.signed_by(&request.public_key, &self.issuer)?;
        Ok(certificate.pem())
    }

    /// Signs a request for a user's client certificate: with its subject, part by part, and its alternative names.
    /// `subject` is that of the request in DER.
    pub fn sign_as_requested(
        &self,
        request: &CertificateSigningRequestParams,
        subject: &[u8],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<String, AuthorityError> {
        let mut params = params(&CertificateSubject::default(), Usage::Client, lifetime, now)?;
        params.subject_alt_names = request.params.subject_alt_names.clone();
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        let signed = requested_subject::with_subject(certificate.der(), subject, self.issuer.key());
        let signed = signed.ok_or(AuthorityError::Subject)?;
        let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        Ok(pem::encode_config(&pem::Pem::new("CERTIFICATE", signed), lines))
    }
}

fn params(
    subject: &CertificateSubject,
    usage: Usage,
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.common_name.as_str());
    if let Some(organization) = &subject.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    for name in &subject.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(subject.addresses.iter().copied().map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match usage {
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial());
    params.not_before = now.saturating_sub(signed(CLOCK_SKEW));
    params.not_after = now.saturating_add(signed(lifetime));
    Ok(params)
}

/// 16 random bytes, positive as RFC 5280 section 4.1.2.2 wants it.
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// Whether the certificate ends before a moment. One that cannot be read is told of when it is loaded.
pub(super) fn ends_before(certificate_pem: &str, moment: OffsetDateTime) -> bool {
    not_after(certificate_pem).is_some_and(|end| end < moment.unix_timestamp())
}

/// When a certificate ends, in seconds since the epoch; `None` where it is none.
pub fn not_after(certificate_pem: &str) -> Option<i64> {
    let parsed = pem::parse(certificate_pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(parsed.contents()).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// SHA-256 of a certificate (DER), as 64 hex digits.
pub fn certificate_hash(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

/// The same span for dates, which have signed ones; a longer one than dates have is their longest.
pub(super) fn signed(span: Duration) -> time::Duration {
    time::Duration::try_from(span).unwrap_or(time::Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_its_files_and_keeps_its_hash() {
        let now = OffsetDateTime::now_utc();
        let (made, key) = Authority::create(now).unwrap();
        let loaded = Authority::load(made.certificate_pem(), &key).unwrap();
        assert_eq!(made.hash(), loaded.hash());
        assert_eq!(made.hash().len(), 64);
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let now = OffsetDateTime::now_utc();
        let (one, _) = Authority::create(now).unwrap();
        let (_, other_key) = Authority::create(now).unwrap();
        assert!(matches!(Authority::load(one.certificate_pem(), &other_key), Err(AuthorityError::Mismatch)));
    }

    #[test]
    fn a_user_has_the_whole_subject_of_the_request() {
        let now = OffsetDateTime::now_utc();
        let (authority, _) = Authority::create(now).unwrap();
        // `rcgen` makes no such request, but its parts can be exchanged in the same way.
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["jane.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "ann");
        let request = params.serialize_request(&key).unwrap();
        let request = CertificateSigningRequestParams::from_pem(&request.pem().unwrap()).unwrap();
        let part = |oid: u8, text: &str| {
            let value = [&[0x0c, text.len() as u8], text.as_bytes()].concat();
            let inner = [&[0x06, 3, 0x55, 4, oid][..], &value].concat();
            let attribute = [&[0x30, inner.len() as u8][..], &inner].concat();
            [&[0x31, attribute.len() as u8][..], &attribute].concat()
        };
        let long = "a".repeat(80);
        let parts = [part(10, "dev"), part(10, "qa"), part(11, &long), part(3, "jane")].concat();
        let subject = [&[0x30, 0x81, parts.len() as u8][..], &parts].concat();
        let hour = Duration::from_secs(3600);
        let certificate = authority.sign_as_requested(&request, &subject, hour, now).unwrap();
        let der = pem::parse(certificate).unwrap();
        let (rest, x509) = x509_parser::parse_x509_certificate(der.contents()).unwrap();
        assert!(rest.is_empty());
        let texts = |parts: Vec<&str>| parts.join(",");
        assert_eq!(texts(x509.subject().iter_organization().map(|o| o.as_str().unwrap()).collect()), "dev,qa");
        assert_eq!(texts(x509.subject().iter_common_name().map(|o| o.as_str().unwrap()).collect()), "jane");
        assert_eq!(x509.public_key().subject_public_key.data.as_ref(), key.der_bytes());
        let names = x509.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        assert_eq!((names, x509.is_ca()), (1, false));
        // As every server of the cluster verifies it.
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let leaf = CertificateDer::from(der.contents().to_vec());
        let verified = verifier.build().unwrap().verify_client_cert(&leaf, &[], rustls_pki_types::UnixTime::now());
        verified.unwrap();
    }

    #[test]
    fn a_client_certificate_names_user_and_group_and_may_only_be_a_client() {
        let now = OffsetDateTime::now_utc();
        let (authority, _) = Authority::create(now).unwrap();
        let subject = CertificateSubject {
            common_name: "system:node:n1".into(),
            organization: Some("system:nodes".into()),
            ..CertificateSubject::default()
        };
        let issued = authority.issue(&subject, Usage::Client, Duration::from_secs(3600), now).unwrap();
        let der = pem::parse(issued.certificate_pem).unwrap();
        let (_, x509) = x509_parser::parse_x509_certificate(der.contents()).unwrap();
        assert_eq!(x509.subject().iter_common_name().next().unwrap().as_str().unwrap(), "system:node:n1");
        let groups: Vec<_> = x509.subject().iter_organization().map(|o| o.as_str().unwrap()).collect();
        assert_eq!(groups, ["system:nodes"]);
        let usage = x509.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(!x509.is_ca());
    }
}
