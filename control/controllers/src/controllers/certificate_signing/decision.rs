//! What becomes of a CertificateSigningRequest: a pure function of the request and the Node that it is for.
//!
//! The rules are those of Kubernetes' signers `kubernetes.io/kube-apiserver-client-kubelet` and
//! `kubernetes.io/kubelet-serving`; those of the signer for users have a file, [`super::user_certificate`].

use std::{net::IpAddr, sync::Arc, time::Duration};

use fairlead_pki::{
    CertificateSubject, Usage,
    identity::{BOOTSTRAPPERS, MASTERS, NODES},
};
use k8s_openapi::api::{
    certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    core::v1::Node,
};
use rcgen::{CertificateSigningRequestParams, SanType};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{
    denial::Denial,
    reserved::{self, ControlNames},
    user_certificate::{self, USER_SIGNER},
};
use crate::objects::informer_index::node_of_user;

/// Signer of the client certificates of nodes.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signer of the serving certificates of nodes.
pub const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// `spec.expirationSeconds` may ask for less, down to this.
const SHORTEST: Duration = Duration::from_secs(600);

/// What to do with a CertificateSigningRequest.
#[derive(Debug, PartialEq, Eq)]
pub enum SigningDecision {
    /// It is not for these signers, is answered already, or waits for a person.
    Leave,
    /// The Node does not exist yet, or does not have its addresses yet.
    Wait,
    /// It breaks a rule of its signer.
    Deny(Denial),
    /// A person approved it, and its signer cannot sign it.
    Fail(Denial),
    /// It is signed, and approved first where nobody did.
    Sign(Box<Grant>),
}

/// What the certificate will hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// Parsed and its signature checked: it proves that the requester has the key.
    pub request: CertificateSigningRequestParams,
    /// Whom it names.
    pub subject: GrantedSubject,
    /// From 10 minutes to a year.
    pub lifetime: Duration,
}

/// Whom a certificate names.
#[derive(Debug, PartialEq, Eq)]
pub enum GrantedSubject {
    /// A node: taken over from the request, once it was checked.
    Node(CertificateSubject, Usage),
    /// A user: the subject of the request, in DER.
    AsRequested(Vec<u8>),
}

/// The name of the node that the requester is, for looking its Node up.
pub fn requesting_node(csr: &CertificateSigningRequest) -> Option<&str> {
    csr.spec.username.as_deref().and_then(node_of_user)
}

/// How long until the agent of a node counts as silent, by the node's name; `None` where it does.
pub type UntilSilent<'a> = &'a dyn Fn(&str) -> Option<Duration>;

/// Decides; `node` is the Node of [`requesting_node`], where it exists, and `nodes` are all there are.
pub fn decide(
    csr: &CertificateSigningRequest,
    node: Option<&Node>,
    nodes: &[Arc<Node>],
    control: &ControlNames,
    until_silent: UntilSilent,
) -> SigningDecision {
    let status = csr.status.clone().unwrap_or_default();
    let has = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    if status.certificate.is_some() || has("Denied") || has("Failed") {
        return SigningDecision::Leave;
    }
    let usage = match csr.spec.signer_name.as_str() {
        // Others may approve it by rules of their own; nobody does here.
        USER_SIGNER if !has("Approved") => return SigningDecision::Leave,
        USER_SIGNER => {
            return user_certificate::grant(&csr.spec)
                .map_or_else(SigningDecision::Fail, |grant| SigningDecision::Sign(Box::new(grant)));
        }
        CLIENT_SIGNER => Usage::Client,
        SERVING_SIGNER => Usage::Server,
        _ => return SigningDecision::Leave,
    };
    match examine(&csr.spec, usage, has("Approved"), node, nodes, control, until_silent) {
        Ok(decision) => decision,
        Err(denial) => SigningDecision::Deny(denial),
    }
}

fn examine(
    spec: &CertificateSigningRequestSpec,
    usage: Usage,
    approved: bool,
    node: Option<&Node>,
    nodes: &[Arc<Node>],
    control: &ControlNames,
    until_silent: UntilSilent,
) -> Result<SigningDecision, Denial> {
    let pem = std::str::from_utf8(&spec.request.0).map_err(|_| Denial::NotPem)?;
    let request = CertificateSigningRequestParams::from_pem(pem).map_err(unreadable)?;
    let common_name = node_subject(&spec.request.0)?;
    check_usages(spec, usage)?;
    let (dns_names, addresses) = alternative_names(&request.params.subject_alt_names)?;
    let named = !dns_names.is_empty() || !addresses.is_empty();
    let username = spec.username.as_deref().unwrap_or_default();
    let groups = spec.groups.as_deref().unwrap_or_default();
    let is_in = |group: &str| groups.iter().any(|g| g == group);
    let same_node = username == common_name && is_in(NODES);
    match usage {
        Usage::Client => {
            if named {
                return Err(Denial::NamedClient);
            }
            if !approved && !same_node && !is_in(BOOTSTRAPPERS) && !is_in(MASTERS) {
                return Ok(SigningDecision::Leave);
            }
            // A join token is for new nodes: with the certificate of one that is there come its pods' Secrets.
            let own = node_name(&common_name);
            let is_taken = nodes.iter().any(|node| node.metadata.name.as_deref() == Some(own) && has_reported(node));
            if !approved
                && !same_node
                && !is_in(MASTERS)
                && is_taken
                && let Some(silent_in) = until_silent(own)
            {
                return Err(Denial::NodeIsThere { node: own.to_owned(), silent_in });
            }
        }
        Usage::Server => {
            if !named {
                return Err(Denial::NamelessServer);
            }
            // A person may approve what this cannot check; only the name must be the requester's.
            if !approved && !is_in(MASTERS) {
                if !same_node {
                    return Err(Denial::NotTheNode { username: username.to_owned(), common_name });
                }
                match own_names(&common_name, &dns_names, &addresses, node) {
                    None => return Ok(SigningDecision::Wait),
                    Some(foreign) if !foreign.is_empty() => {
                        return Err(Denial::ForeignNames(foreign));
                    }
                    Some(_) => {}
                }
                let own = node_name(&common_name);
                let mut refused = control.reserved(&dns_names, &addresses, node, nodes);
                refused.extend(reserved::of_other_nodes(own, &dns_names, &addresses, nodes));
                if !refused.is_empty() {
                    return Err(Denial::ReservedNames { node: own.to_owned(), names: refused });
                }
            }
        }
    }
    let subject = CertificateSubject { common_name, organization: Some(NODES.into()), dns_names, addresses };
    let subject = GrantedSubject::Node(subject, usage);
    Ok(SigningDecision::Sign(Box::new(Grant { request, subject, lifetime: lifetime(spec) })))
}

/// How long the certificate is to last.
pub fn lifetime(spec: &CertificateSigningRequestSpec) -> Duration {
    let asked = spec.expiration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    asked.unwrap_or(LIFETIME).clamp(SHORTEST, LIFETIME)
}

/// False of a Node that somebody made for a host which is yet to come.
fn has_reported(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready")
}

/// The common name of a request whose subject is a node's: O is `system:nodes` alone, CN `system:node:NAME`.
fn node_subject(pem_text: &[u8]) -> Result<String, Denial> {
    let pem = pem::parse(pem_text).map_err(unreadable)?;
    let (_, request) = X509CertificationRequest::from_der(pem.contents()).map_err(unreadable)?;
    let subject = &request.certification_request_info.subject;
    // A text in an encoding that is not read here may be a name that another reader understands.
    let organizations: Vec<&str> =
        subject.iter_organization().map(|o| o.as_str()).collect::<Result<_, _>>().map_err(unreadable)?;
    let names: Vec<&str> =
        subject.iter_common_name().map(|n| n.as_str()).collect::<Result<_, _>>().map_err(unreadable)?;
    match (organizations.as_slice(), names.as_slice()) {
        ([NODES], [name]) if name.strip_prefix("system:node:").is_some_and(|n| !n.is_empty()) => Ok((*name).to_owned()),
        _ => {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            Err(Denial::Subject { organizations: owned(&organizations), names: owned(&names) })
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> Denial {
    Denial::Unreadable(error.to_string())
}

fn check_usages(spec: &CertificateSigningRequestSpec, usage: Usage) -> Result<(), Denial> {
    let needed = match usage {
        Usage::Client => "client auth",
        Usage::Server => "server auth",
    };
    let usages = spec.usages.as_deref().unwrap_or_default();
    let foreign = usages.iter().find(|u| !["digital signature", "key encipherment", needed].contains(&u.as_str()));
    match foreign {
        Some(foreign) => Err(Denial::ForeignUsage { usage: foreign.clone(), signer: spec.signer_name.clone() }),
        None if !usages.iter().any(|u| u == needed) => Err(Denial::LacksUsage(needed)),
        None => Ok(()),
    }
}

fn alternative_names(names: &[SanType]) -> Result<(Vec<String>, Vec<IpAddr>), Denial> {
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            SanType::DnsName(name) => dns_names.push(name.as_str().to_owned()),
            SanType::IpAddress(address) => addresses.push(*address),
            _ => return Err(Denial::AlternativeName),
        }
    }
    Ok((dns_names, addresses))
}

/// Names that are not the node's own; `None` while the Node does not have its addresses yet.
fn own_names(
    common_name: &str,
    dns_names: &[String],
    addresses: &[IpAddr],
    node: Option<&Node>,
) -> Option<Vec<String>> {
    let (name, node) = (node_name(common_name), node?);
    let has_none = node.status.as_ref().and_then(|status| status.addresses.as_ref()).is_none_or(Vec::is_empty);
    if !addresses.is_empty() && has_none {
        return None;
    }
    let foreign_dns = dns_names.iter().filter(|dns| *dns != name && !reserved::has_name(node, dns)).cloned();
    let foreign_addresses = addresses.iter().filter(|ip| !reserved::has_address(node, **ip)).map(ToString::to_string);
    Some(foreign_dns.chain(foreign_addresses).collect())
}

/// `NAME` of `system:node:NAME`.
fn node_name(common_name: &str) -> &str {
    common_name.strip_prefix("system:node:").unwrap_or_default()
}

#[cfg(test)]
pub mod tests;
