//! Which names the API's certificate carries, and whether a certificate of an earlier start still will do.

use std::{collections::BTreeSet, net::IpAddr};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use super::{CertificateSubject, Issued};

/// Names and addresses under which clients reach the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingNames {
    /// Of the host and of the Service `kubernetes`, and `localhost`.
    pub dns_names: Vec<String>,
    /// Of the listener and of the Service `kubernetes`, the loopback, and what the configuration advertises.
    pub addresses: Vec<IpAddr>,
}

impl ServingNames {
    /// The names of the Service `kubernetes` in `cluster_domain`, of the loopback and of the host; `addresses` beside
    /// the loopback's.
    pub fn new(cluster_domain: &str, host_name: Option<&str>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut dns_names: BTreeSet<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
                .into_iter()
                .map(String::from)
                .collect();
        dns_names.insert(format!("kubernetes.default.svc.{cluster_domain}"));
        dns_names.extend(host_name.filter(|name| is_dns_name(name)).map(String::from));
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let addresses: BTreeSet<IpAddr> =
            addresses.into_iter().filter(|address| !address.is_unspecified()).chain([loopback]).collect();
        Self { dns_names: dns_names.into_iter().collect(), addresses: addresses.into_iter().collect() }
    }

    /// Adds an address that was found out rather than configured.
    pub fn add(&mut self, address: Option<IpAddr>) {
        self.addresses.extend(address);
        self.addresses.sort_unstable();
        self.addresses.dedup();
    }

    /// The subject of a certificate with these names.
    pub(super) fn subject(&self) -> CertificateSubject {
        CertificateSubject {
            common_name: "kube-apiserver".into(),
            organization: None,
            dns_names: self.dns_names.clone(),
            addresses: self.addresses.clone(),
        }
    }
}

/// Whether `issued` says exactly what `subject` wants, is signed by `authority` and is valid beyond `until`.
pub(super) fn still_good(
    issued: &Issued,
    authority: &CertificateDer<'_>,
    subject: &CertificateSubject,
    until: OffsetDateTime,
) -> bool {
    let Ok(pem) = pem::parse(&issued.certificate_pem) else { return false };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(pem.contents()) else { return false };
    let Ok((_, authority)) = x509_parser::parse_x509_certificate(authority) else { return false };
    certificate.validity().not_after.to_datetime() > until
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
        && names_of(&certificate)
            == (subject.dns_names.iter().cloned().collect(), subject.addresses.iter().copied().collect())
}

fn names_of(certificate: &X509Certificate<'_>) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for general in certificate.subject_alternative_name().ok().flatten().iter().flat_map(|san| &san.value.general_names)
    {
        match general {
            GeneralName::DNSName(name) => {
                names.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
                    addresses.insert(IpAddr::from(v4));
                } else if let Ok(v6) = <[u8; 16]>::try_from(*bytes) {
                    addresses.insert(IpAddr::from(v6));
                }
            }
            _ => {}
        }
    }
    (names, addresses)
}

/// A host may be called anything; only RFC 1123 names belong in a certificate.
fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_names_every_way_to_the_api() {
        let given = ["192.0.2.7", "10.96.0.1", "0.0.0.0"].map(|address| address.parse().unwrap());
        let names = ServingNames::new("cluster.local", Some("Host_with_underscore"), given);
        assert_eq!(
            names.dns_names,
            [
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "localhost"
            ]
        );
        let addresses: Vec<IpAddr> = ["10.96.0.1", "127.0.0.1", "192.0.2.7"].map(|a| a.parse().unwrap()).into();
        assert_eq!(names.addresses, addresses);
        assert!(ServingNames::new("cluster.local", Some("alpha"), []).dns_names.contains(&"alpha".to_owned()));
    }
}
