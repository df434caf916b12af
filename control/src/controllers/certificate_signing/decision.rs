//! What becomes of a CertificateSigningRequest: a pure function of the request and the Node that it is for.
//!
//! The rules are those of Kubernetes' signers `kubernetes.io/kube-apiserver-client-kubelet` and
//! `kubernetes.io/kubelet-serving`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::{
    certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    core::v1::Node,
};
use rcgen::{CertificateSigningRequestParams, SanType};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{
    denial::Denial,
    reserved::{self, ControlNames},
};
use crate::{
    auth::{
        authorize::{BOOTSTRAPPERS, MASTERS, NODES},
        pki::{CertificateSubject, Usage},
    },
    objects::informers::node_of_user,
};

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
    /// It is signed, and approved first where nobody did.
    Sign(Box<Grant>),
}

/// What the certificate will hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// Parsed and its signature checked: it proves that the requester has the key.
    pub request: CertificateSigningRequestParams,
    /// Taken over from the request, once it was checked.
    pub subject: CertificateSubject,
    /// Of the signer.
    pub usage: Usage,
    /// From 10 minutes to a year.
    pub lifetime: Duration,
}

/// The name of the node that the requester is, for looking its Node up.
pub fn requesting_node(csr: &CertificateSigningRequest) -> Option<&str> {
    csr.spec.username.as_deref().and_then(node_of_user)
}

/// Decides; `node` is the Node of [`requesting_node`], where it exists, and `nodes` are all there are.
pub fn decide(
    csr: &CertificateSigningRequest,
    node: Option<&Node>,
    nodes: &[Arc<Node>],
    control: &ControlNames,
) -> SigningDecision {
    let status = csr.status.clone().unwrap_or_default();
    let has = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    if status.certificate.is_some() || has("Denied") || has("Failed") {
        return SigningDecision::Leave;
    }
    let usage = match csr.spec.signer_name.as_str() {
        CLIENT_SIGNER => Usage::Client,
        SERVING_SIGNER => Usage::Server,
        _ => return SigningDecision::Leave,
    };
    match examine(&csr.spec, usage, has("Approved"), node, nodes, control) {
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
                let mut refused = control.reserved(&dns_names, &addresses, node);
                refused.extend(reserved::of_other_nodes(own, &dns_names, &addresses, nodes));
                if !refused.is_empty() {
                    return Err(Denial::ReservedNames { node: own.to_owned(), names: refused });
                }
            }
        }
    }
    let asked = spec.expiration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    let subject = CertificateSubject { common_name, organization: Some(NODES.into()), dns_names, addresses };
    let lifetime = asked.unwrap_or(LIFETIME).clamp(SHORTEST, LIFETIME);
    Ok(SigningDecision::Sign(Box::new(Grant { request, subject, usage, lifetime })))
}

/// The common name of a request whose subject is a node's: O is `system:nodes` alone, CN `system:node:NAME`.
fn node_subject(pem_text: &[u8]) -> Result<String, Denial> {
    let pem = pem::parse(pem_text).map_err(unreadable)?;
    let (_, request) = X509CertificationRequest::from_der(pem.contents()).map_err(unreadable)?;
    let subject = &request.certification_request_info.subject;
    let organizations: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let names: Vec<&str> = subject.iter_common_name().filter_map(|n| n.as_str().ok()).collect();
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
mod tests {
    use k8s_openapi::ByteString;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::auth::pki::ServingNames;

    /// A control service on the host `alpha`, advertised as 192.0.2.100.
    fn control() -> ControlNames {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let addresses = ["10.96.0.1", "127.0.0.1", "192.0.2.100"].map(|ip| ip.parse().unwrap());
        ControlNames {
            serving: ServingNames {
                dns_names: text(&["alpha", "kubernetes", "kubernetes.default.svc", "localhost"]),
                addresses: addresses.into(),
            },
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            boot_id: "b0".into(),
        }
    }

    fn decide(csr: &CertificateSigningRequest, node: Option<&Node>) -> SigningDecision {
        super::decide(csr, node, &[], &control())
    }

    struct Asked {
        signer: &'static str,
        username: &'static str,
        groups: &'static [&'static str],
        common_name: &'static str,
        organization: &'static str,
        names: &'static [&'static str],
        usages: &'static [&'static str],
    }

    const JOIN: Asked = Asked {
        signer: CLIENT_SIGNER,
        username: "system:bootstrap:abcdef",
        groups: &[BOOTSTRAPPERS],
        common_name: "system:node:n1",
        organization: NODES,
        names: &[],
        usages: &["digital signature", "client auth"],
    };

    const SERVE: Asked = Asked {
        signer: SERVING_SIGNER,
        username: "system:node:n1",
        groups: &[NODES],
        names: &["n1", "192.0.2.1"],
        usages: &["digital signature", "server auth"],
        ..JOIN
    };

    fn csr(asked: &Asked) -> CertificateSigningRequest {
        let mut params =
            CertificateParams::new(asked.names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, asked.common_name);
        params.distinguished_name.push(DnType::OrganizationName, asked.organization);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut csr: CertificateSigningRequest = serde_json::from_value(json!({
            "spec": {"signerName": asked.signer, "username": asked.username, "groups": asked.groups,
                "usages": asked.usages, "request": ""}
        }))
        .unwrap();
        csr.spec.request = ByteString(pem.into_bytes());
        csr
    }

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "host"}]}}))
        .unwrap()
    }

    fn outcome(asked: &Asked) -> &'static str {
        match decide(&csr(asked), Some(&node())) {
            SigningDecision::Leave => "leave",
            SigningDecision::Wait => "wait",
            SigningDecision::Deny(_) => "deny",
            SigningDecision::Sign(_) => "sign",
        }
    }

    #[test]
    fn a_joiner_gets_a_client_certificate_and_nothing_beyond_it() {
        let SigningDecision::Sign(grant) = decide(&csr(&JOIN), None) else { panic!("refused") };
        assert_eq!(grant.subject.common_name, "system:node:n1");
        assert_eq!(grant.subject.organization.as_deref(), Some(NODES));
        assert_eq!(grant.usage, Usage::Client);
        let refused = [
            Asked { organization: "system:masters", ..JOIN },
            Asked { common_name: "kubernetes-admin", ..JOIN },
            Asked { common_name: "system:node:", ..JOIN },
            Asked { names: &["n1"], ..JOIN },
            Asked { usages: &["client auth", "server auth"], ..JOIN },
            Asked { usages: &["digital signature"], ..JOIN },
        ];
        for (at, asked) in refused.iter().enumerate() {
            assert_eq!(outcome(asked), "deny", "case {at}");
        }
    }

    #[test]
    fn a_node_renews_its_own_certificate_and_no_others() {
        let renew = Asked { username: "system:node:n1", groups: &[NODES], ..JOIN };
        assert_eq!(outcome(&renew), "sign");
        assert_eq!(outcome(&Asked { common_name: "system:node:n2", ..renew }), "leave");
        assert_eq!(outcome(&Asked { groups: &[], ..renew }), "leave");
        assert_eq!(outcome(&Asked { username: "joe", groups: &["makers"], ..JOIN }), "leave");
    }

    #[test]
    fn a_serving_certificate_is_for_the_nodes_own_names() {
        assert_eq!(outcome(&SERVE), "sign");
        assert_eq!(outcome(&Asked { names: &["host", "192.0.2.1"], ..SERVE }), "sign");
        assert_eq!(outcome(&Asked { names: &["192.0.2.2"], ..SERVE }), "deny");
        assert_eq!(outcome(&Asked { names: &["kubernetes.default.svc"], ..SERVE }), "deny");
        assert_eq!(outcome(&Asked { names: &[], ..SERVE }), "deny");
        assert_eq!(outcome(&Asked { common_name: "system:node:n2", ..SERVE }), "deny");
        assert_eq!(outcome(&Asked { username: "system:bootstrap:abcdef", groups: &[BOOTSTRAPPERS], ..SERVE }), "deny");
        assert_eq!(decide(&csr(&SERVE), None), SigningDecision::Wait);
    }

    /// A Node that claims these addresses, on the host with this boot ID.
    fn claiming(name: &str, boot_id: &str, claims: &[&str]) -> Node {
        let addresses = claims.iter().map(|claim| {
            let kind = if claim.parse::<IpAddr>().is_ok() { "InternalIP" } else { "Hostname" };
            json!({"type": kind, "address": claim})
        });
        serde_json::from_value(
            json!({"metadata": {"name": name}, "status": {"addresses": addresses.collect::<Vec<_>>(),
            "nodeInfo": {"bootID": boot_id, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": ""}}}),
        )
        .unwrap()
    }

    #[test]
    fn a_node_that_says_it_is_the_control_service_gets_no_certificate_for_it() {
        let always: [&'static [&'static str]; 12] = [
            &["kubernetes"],
            &["kubernetes.default.svc"],
            &["Web.default.SVC"],
            &["web.default.svc.cluster.local"],
            &["*.example.com"],
            &["10.96.0.1"],
            &["10.96.0.10"],
            &["0.0.0.0"],
            &["224.0.0.1"],
            &["::ffff:10.96.0.1"],
            &["cluster.local"],
            &["kubernetes.example.com"],
        ];
        let elsewhere: [&'static [&'static str]; 6] =
            [&["192.0.2.100"], &["alpha"], &["Alpha"], &["localhost"], &["127.0.0.1"], &["127.0.0.2"]];
        for names in always.into_iter().chain(elsewhere) {
            let decision = decide(&csr(&Asked { names, ..SERVE }), Some(&claiming("n1", "b1", names)));
            assert!(matches!(decision, SigningDecision::Deny(_)), "{names:?}: {decision:?}");
        }
        for names in always {
            let decision = decide(&csr(&Asked { names, ..SERVE }), Some(&claiming("n1", "b0", names)));
            assert!(matches!(decision, SigningDecision::Deny(_)), "on its host, {names:?}: {decision:?}");
        }
        let names: &[&str] = &["alpha", "192.0.2.100"];
        let own = decide(&csr(&Asked { names, ..SERVE }), Some(&claiming("n1", "b0", names)));
        assert!(matches!(own, SigningDecision::Sign(_)), "a node on the control service's host: {own:?}");
        let names: &[&str] = &["kubernetes.default.svc"];
        let named = Asked {
            username: "system:node:kubernetes.default.svc",
            common_name: "system:node:kubernetes.default.svc",
            names,
            ..SERVE
        };
        assert_eq!(outcome(&named), "deny");
    }

    #[test]
    fn a_node_that_says_it_is_another_node_gets_no_certificate_for_it() {
        let nodes = |claims: [&[&str]; 2]| {
            [Arc::new(claiming("n1", "b1", claims[0])), Arc::new(claiming("n2", "b2", claims[1]))]
        };
        let asks = |names: &'static [&'static str], nodes: &[Arc<Node>]| {
            super::decide(&csr(&Asked { names, ..SERVE }), Some(&nodes[0]), nodes, &control())
        };
        let both = nodes([&["192.0.2.1", "192.0.2.2", "N2", "shared"], &["192.0.2.2", "192.0.2.3", "shared"]]);
        for (names, other) in
            [(&["192.0.2.2"], "192.0.2.2 (of node n2)"), (&["N2"], "N2 (of node n2)"), (&["shared"], "n2")]
        {
            match asks(names, &both) {
                SigningDecision::Deny(why) => assert!(why.to_string().contains(other), "{why}"),
                decision => panic!("{names:?}: {decision:?}"),
            }
        }
        assert!(matches!(asks(&["n1", "192.0.2.1"], &both), SigningDecision::Sign(_)));
        let claimed = nodes([&["192.0.2.1"], &["192.0.2.3", "n1"]]);
        let decision = asks(&["n1", "192.0.2.1"], &claimed);
        assert!(matches!(decision, SigningDecision::Sign(_)), "nobody takes a node's own name from it: {decision:?}");
    }

    #[test]
    fn what_is_answered_or_of_another_signer_is_left_alone() {
        assert_eq!(outcome(&Asked { signer: "example.com/other", ..JOIN }), "leave");
        let mut answered = csr(&JOIN);
        answered.status = serde_json::from_value(json!({"certificate": "YQ=="})).unwrap();
        assert_eq!(decide(&answered, None), SigningDecision::Leave);
        answered.status =
            serde_json::from_value(json!({"conditions": [{"type": "Denied", "status": "True"}]})).unwrap();
        assert_eq!(decide(&answered, None), SigningDecision::Leave);
    }

    #[test]
    fn what_a_person_approved_is_signed_as_far_as_the_signer_may() {
        let approve = |asked: &Asked| {
            let mut csr = csr(asked);
            csr.status =
                serde_json::from_value(json!({"conditions": [{"type": "Approved", "status": "True"}]})).unwrap();
            decide(&csr, None)
        };
        assert!(matches!(approve(&Asked { username: "joe", groups: &[], ..JOIN }), SigningDecision::Sign(_)));
        assert!(matches!(approve(&Asked { organization: "system:masters", ..JOIN }), SigningDecision::Deny(_)));
    }

    #[test]
    fn a_shorter_life_may_be_asked_for_and_no_longer_one() {
        let lifetime = |seconds| {
            let mut csr = csr(&JOIN);
            csr.spec.expiration_seconds = Some(seconds);
            match decide(&csr, None) {
                SigningDecision::Sign(grant) => grant.lifetime.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((lifetime(3600), lifetime(1), lifetime(i32::MAX)), (3600, 600, 365 * 24 * 3600));
    }
}
