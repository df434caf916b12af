//! Client certificates of users: what the signer `kubernetes.io/kube-apiserver-client` makes of a request that somebody
//! approved. Who may be approved was decided by then, and of whom no certificate is made by admission; the signer takes
//! the subject and the alternative names over as they are.
//!
//! Source: `pkg/controller/certificates/signer` of Kubernetes.

use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use rcgen::CertificateSigningRequestParams;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{
    decision::{Grant, GrantedSubject, lifetime},
    denial::Denial,
};

/// The signer.
pub const USER_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// What the certificate will hold; as an error why there can be none.
pub fn grant(spec: &CertificateSigningRequestSpec) -> Result<Grant, Denial> {
    const CLIENT: &str = "client auth";
    let usages = spec.usages.as_deref().unwrap_or_default();
    if let Some(foreign) = usages.iter().find(|u| !["digital signature", "key encipherment", CLIENT].contains(&&***u)) {
        return Err(Denial::ForeignUsage { usage: foreign.clone(), signer: spec.signer_name.clone() });
    }
    if !usages.iter().any(|usage| usage == CLIENT) {
        return Err(Denial::LacksUsage(CLIENT));
    }
    let unreadable = |error: &dyn std::fmt::Display| Denial::Unreadable(error.to_string());
    let pem = pem::parse(&spec.request.0).map_err(|error| unreadable(&error))?;
    let text = std::str::from_utf8(&spec.request.0).map_err(|_| Denial::NotPem)?;
    let request = CertificateSigningRequestParams::from_pem(text).map_err(|error| unreadable(&error))?;
    let (_, parsed) = X509CertificationRequest::from_der(pem.contents()).map_err(|error| unreadable(&error))?;
    let subject = GrantedSubject::AsRequested(parsed.certification_request_info.subject.as_raw().to_vec());
    Ok(Grant { request, subject, lifetime: lifetime(spec) })
}

#[cfg(test)]
mod tests {
    use fairlead_pki::Authority;
    use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest};
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::json;

    use super::{
        super::decision::{SigningDecision, decide},
        *,
    };

    fn csr(usages: &[&str], conditions: &[&str]) -> CertificateSigningRequest {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let conditions: Vec<_> = conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        let mut csr: CertificateSigningRequest = serde_json::from_value(json!({
            "spec": {"signerName": USER_SIGNER, "username": "jane", "usages": usages, "request": "",
                "expirationSeconds": 3600},
            "status": {"conditions": conditions}}))
        .unwrap();
        csr.spec.request = ByteString(pem.into_bytes());
        csr
    }

    fn decided(csr: &CertificateSigningRequest) -> SigningDecision {
        decide(csr, None, &[], &super::super::decision::tests::control(), &|_| None)
    }

    #[test]
    fn a_user_gets_a_certificate_once_somebody_approved_it() {
        assert_eq!(decided(&csr(&["client auth"], &[])), SigningDecision::Leave);
        assert_eq!(decided(&csr(&["client auth"], &["Approved", "Denied"])), SigningDecision::Leave);
        let approved = csr(&["client auth", "digital signature", "key encipherment"], &["Approved"]);
        let SigningDecision::Sign(grant) = decided(&approved) else { panic!("it is approved") };
        let GrantedSubject::AsRequested(subject) = &grant.subject else { panic!("of a user") };
        assert_eq!(grant.lifetime.as_secs(), 3600);
        let now = time::OffsetDateTime::now_utc();
        let (authority, _) = Authority::create(now).unwrap();
        let signed = authority.sign_as_requested(&grant.request, subject, grant.lifetime, now).unwrap();
        let der = pem::parse(signed).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(der.contents()).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=jane, O=dev");
    }

    #[test]
    fn what_the_signer_cannot_sign_fails_with_its_reason() {
        for (usages, why) in [
            (&["client auth", "server auth"][..], "the usage \"server auth\" is not given by"),
            (&["digital signature"], "spec.usages lacks \"client auth\""),
        ] {
            let SigningDecision::Fail(denial) = decided(&csr(usages, &["Approved"])) else { panic!("{usages:?}") };
            assert!(denial.to_string().starts_with(why), "{denial}");
        }
        let mut garbage = csr(&["client auth"], &["Approved"]);
        garbage.spec.request = ByteString(b"garbage".to_vec());
        assert!(matches!(decided(&garbage), SigningDecision::Fail(Denial::Unreadable(_))));
    }
}
