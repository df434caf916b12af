//! CertificateSubjectRestriction: nobody becomes `system:masters` by a certificate of the signer of API clients.
//!
//! Source: `plugin/pkg/admission/certificates/subjectrestriction`, whose words these are.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer, x509::X509Name};

use super::plugins::{AdmissionContext, Plugin, Validate};
use crate::{admission_plugins::PluginName, identity::MASTERS, kinds::reading::text, request::Verb, status::Status};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// New requests ask for no certificate of `system:masters`.
pub static PLUGIN: Plugin =
    Plugin { validate: Some(Validate::Now(validate)), ..Plugin::named(PluginName::CertificateSubjectRestriction) };

fn validate(context: &AdmissionContext<'_>, request: &Value) -> Result<(), Status> {
    if !context.is(Verb::Create, ("certificates.k8s.io", "CertificateSigningRequest"), None) {
        return Ok(());
    }
    violation(request).map_or(Ok(()), |why| Err(context.forbidden(&why)))
}

/// Why a new CertificateSigningRequest is refused.
fn violation(request: &Value) -> Option<String> {
    let spec = &request["spec"];
    if text(spec, "signerName") != CLIENT_SIGNER {
        return None;
    }
    match organizations(text(spec, "request")) {
        Ok(found) if found.iter().any(|organization| organization == MASTERS) => {
            Some(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"))
        }
        Ok(_) => None,
        Err(why) => Some(format!("failed to parse CSR: {why}")),
    }
}

/// Why the subject of a request cannot be told.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The words are those of Kubernetes.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NoPem,
    #[error("malformed request")]
    Malformed,
    /// Whoever reads the certificate later may know encodings that are not known here.
    #[error("an organization of the subject is in an encoding that is not supported")]
    Encoding,
}

/// The organizations in the subject of a PEM request that is encoded in Base64.
fn organizations(encoded: &str) -> Result<Vec<String>, SubjectError> {
    subject(encoded, |subject| {
        subject.iter_organization().map(|o| o.as_str().map(str::to_owned).map_err(|_| SubjectError::Encoding)).collect()
    })
}

/// The common name of such a request, if it has one.
pub fn common_name(encoded: &str) -> Result<Option<String>, SubjectError> {
    subject(encoded, |subject| {
        // Of several Go takes the last.
        let name = subject.iter_common_name().last();
        name.map(|name| name.as_str().map(str::to_owned).map_err(|_| SubjectError::Encoding)).transpose()
    })
}

/// What `read` finds in the subject of a PEM request that is encoded in Base64.
fn subject<T>(encoded: &str, read: impl FnOnce(&X509Name<'_>) -> Result<T, SubjectError>) -> Result<T, SubjectError> {
    let pem = BASE64_STANDARD.decode(encoded).ok().and_then(|text| pem::parse(text).ok());
    let pem = pem.filter(|pem| pem.tag() == "CERTIFICATE REQUEST").ok_or(SubjectError::NoPem)?;
    let (_, request) = X509CertificationRequest::from_der(pem.contents()).map_err(|_| SubjectError::Malformed)?;
    read(&request.certification_request_info.subject)
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{
        CertificateParams, DistinguishedName, DnType, DnValue, KeyPair,
        string::{BmpString, TeletexString},
    };
    use serde_json::json;

    use super::*;

    fn request(signer: &str, organization: impl Into<DnValue>) -> Value {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        json!({"spec": {"signerName": signer, "request": BASE64_STANDARD.encode(pem)}})
    }

    /// A request for a certificate of a common name, as the API takes it.
    pub fn request_of(name: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        BASE64_STANDARD.encode(params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap())
    }

    #[test]
    fn the_common_name_of_a_request_is_read() {
        assert_eq!(common_name(&request_of("jane")), Ok(Some("jane".to_owned())));
        assert_eq!(common_name("x"), Err(SubjectError::NoPem));
    }

    #[test]
    fn no_client_certificate_is_for_masters() {
        assert_eq!(violation(&request(CLIENT_SIGNER, "developers")), None);
        assert_eq!(violation(&request("example.com/signer", MASTERS)), None);
        assert_eq!(
            violation(&request(CLIENT_SIGNER, MASTERS)).unwrap(),
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        );
        for masters in [
            DnValue::TeletexString(TeletexString::try_from(MASTERS).unwrap()),
            DnValue::BmpString(BmpString::try_from(MASTERS).unwrap()),
        ] {
            let why =
                violation(&request(CLIENT_SIGNER, masters)).expect("it cannot be told that it is not for masters");
            assert!(why.starts_with("failed to parse CSR: an organization"), "{why}");
        }
        let malformed = json!({"spec": {"signerName": CLIENT_SIGNER, "request": "AAAA"}});
        assert_eq!(violation(&malformed).unwrap(), "failed to parse CSR: PEM block type must be CERTIFICATE REQUEST");
    }
}
