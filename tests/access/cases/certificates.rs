//! Who asks for certificates, approves and signs them, and certificates that say nothing good of who shows them.

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::{Act, Acts, Who, ask, prepare, roles::dry};
use crate::{credentials::Flaw, exchange::Request, kit::Result, servers::Actor};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SIGNERS: [&str; 5] = [
    "example.com/mine",
    "example.com/other",
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
];

pub fn acts() -> Result<Acts> {
    let mut acts = Acts::new();
    for signer in SIGNERS {
        let name = signer.replace('/', "-");
        acts.push(prepare(Request::post(REQUESTS, request(&name, signer, "jane", &[])?)));
        for user in ["joe", "csr-writer", "csr-approver", "csr-domain-approver", "all-resources"] {
            let path = format!("{REQUESTS}/{name}");
            let condition = |of: &str| {
                json!({"status": {"conditions": [{"type": of, "status": "True", "reason": "r",
                "message": "m"}]}})
            };
            for of in ["Approved", "Denied"] {
                acts.push(ask(user, dry(Request::patch(format!("{path}/approval"), condition(of)))));
            }
            acts.push(ask(user, dry(Request::patch(format!("{path}/status"), condition("Failed")))));
            acts.push(ask(user, dry(Request::patch(path.clone(), json!({"metadata": {"labels": {"a": "b"}}})))));
            acts.push(ask(user, Request::get(path.clone())));
            acts.push(ask(user, dry(Request::delete(path))));
        }
    }
    acts.extend(creations()?);
    acts.extend(shown());
    Ok(acts)
}

/// Who asks for which certificate.
fn creations() -> Result<Acts> {
    let mut acts = Acts::new();
    for user in ["joe", "csr-writer", "all-resources"] {
        for (signer, name, groups) in [
            ("kubernetes.io/kube-apiserver-client", "jane", vec![]),
            ("kubernetes.io/kube-apiserver-client", "root", vec!["system:masters"]),
            ("kubernetes.io/kube-apiserver-client-kubelet", "system:node:n1", vec!["system:nodes"]),
            ("example.com/mine", "root", vec!["system:masters"]),
        ] {
            acts.push(ask(user, dry(Request::post(REQUESTS, request("new", signer, name, &groups)?))));
        }
    }
    Ok(acts)
}

/// Certificates that nobody may trust, and what is behind them is not asked for.
fn shown() -> Acts {
    let mut acts = Acts::new();
    for flaw in [Flaw::None, Flaw::OtherAuthority, Flaw::Expired, Flaw::NotYetValid, Flaw::ForServers] {
        for path in ["/api/v1/namespaces/team-a/pods", "/version", "/healthz", "/nothing"] {
            acts.push(Act::Ask { actor: Who::Known(Actor::Certificate(flaw)), request: Request::get(path) });
        }
    }
    acts
}

/// A request for a certificate.
pub fn request(name: &str, signer: &str, user: &str, groups: &[&str]) -> Result<Value> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    let usage = if signer.ends_with("serving") { "server auth" } else { "client auth" };
    let text = params.serialize_request(&KeyPair::generate()?)?.pem()?;
    Ok(json!({"metadata": {"name": name}, "spec": {"signerName": signer, "request": BASE64_STANDARD.encode(text),
        "usages": ["digital signature", usage]}}))
}
