//! CertificateSigningRequest: how a node or a person asks the cluster CA for a certificate.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, age, names, prepare,
    reading::{as_text, is_empty, items},
};

mod request;
mod status;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    categories: &[],
    namespaced: false,
    subresources: &["approval", "status"],
    storage: Storage::Stored,
    default: |_| {},
    validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        if let Some(old) = old {
            new["spec"] = old["spec"].clone();
        }
    },
    prepare_status: status::prepare,
    columns: &[
        Column::name(),
        Column::age(),
        Column::text("SignerName", "Who is asked to sign."),
        Column::text("Requestor", "Who asked."),
        Column::text("RequestedDuration", "For how long the certificate is to be valid."),
        Column::text("Condition", "Approved, Denied, Failed, Issued or Pending."),
    ],
    cells,
    selectable: |o| {
        BTreeMap::from([("spec.signerName", o["spec"]["signerName"].as_str().unwrap_or_default().to_owned())])
    },
    schema: "io.k8s.api.certificates.v1.CertificateSigningRequest",
    object_name: names::path_segment,
    ..BuiltIn::PLAIN
};

/// Every usage of a certificate that can be asked for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// How `/approval` is written.
pub mod approval {
    use serde_json::Value;

    use super::{FieldError, status, validate_through};

    pub use super::status::prepare_approval as prepare;

    /// Reasons why an object may not be stored in place of `old` with other decisions.
    pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
        validate_through(status::Through::Approval, new, Some(old))
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    validate_through(status::Through::Status, new, old)
}

fn validate_through(through: status::Through, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = Vec::new();
    // What is stored stays as it is.
    if old.is_none()
        && let Some(why) = request::wrong(spec["request"].as_str().unwrap_or_default())
    {
        // Go shows few bytes as what they are in JSON.
        let shown = spec["request"].as_str().map_or(Value::Null, Value::from);
        errors.push(FieldError::invalid("spec.request", &shown, why));
    }
    errors.extend(usage_errors("spec.usages", &spec["usages"], old.map(|old| &old["spec"]["usages"])));
    errors.extend(signer_name("spec.signerName", &spec["signerName"]));
    if spec["expirationSeconds"].as_i64().is_some_and(|n| n < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", &spec["expirationSeconds"], why));
    }
    errors.extend(status::validate(new, old, through));
    errors
}

/// Unknown usages, and the same twice, are taken where they were stored before.
fn usage_errors(path: &str, usages: &Value, stored: Option<&Value>) -> Vec<FieldError> {
    let unknown = |list: &Value| items(list).any(|usage| !USAGES.contains(&as_text(usage)));
    let repeated = |list: &Value| {
        let mut seen = BTreeSet::new();
        !items(list).all(|usage| seen.insert(as_text(usage)))
    };
    let mut errors = Vec::new();
    if is_empty(usages) {
        errors.push(FieldError::required(path, ""));
    }
    if !stored.is_some_and(unknown) {
        let wrong = items(usages).enumerate().filter(|(_, usage)| !USAGES.contains(&as_text(usage)));
        errors.extend(wrong.map(|(i, usage)| FieldError::not_supported(format!("{path}[{i}]"), usage, &USAGES)));
    }
    if !stored.is_some_and(repeated) {
        let mut seen = BTreeSet::new();
        let again = items(usages).enumerate().filter(|(_, usage)| !seen.insert(as_text(usage)));
        errors.extend(again.map(|(i, usage)| FieldError::duplicate(format!("{path}[{i}]"), usage)));
    }
    errors
}

/// `example.com/signer`
fn signer_name(path: &str, value: &Value) -> Vec<FieldError> {
    let name = as_text(value);
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return vec![FieldError::invalid(path, value, why)];
    };
    let mut errors = Vec::new();
    if domain.len() > 253 {
        errors.push(FieldError::too_long(path, 253));
    }
    let parts = [(domain, names::label as fn(&str) -> Vec<String>), (rest, names::subdomain)];
    for (at, (part, check)) in parts.into_iter().enumerate() {
        let wrong = part.split('.').map(|label| (label, check(label))).find(|(_, wrong)| !wrong.is_empty());
        for why in wrong.iter().flat_map(|(label, wrong)| wrong.iter().map(move |why| (label, why))) {
            let why = format!("validating label {:?}: {}", why.0, why.1);
            errors.push(FieldError::invalid(path, &part.into(), why));
        }
        if at == 0 && !domain.contains('.') {
            let why = "should be a domain with at least two segments separated by dots";
            errors.push(FieldError::invalid(path, &domain.into(), why));
        }
    }
    if name.len() > 253 + 253 + 63 + 2 {
        errors.push(FieldError::too_long(path, 253 + 253 + 63 + 2));
    }
    errors
}

fn cells(object: &Value) -> Vec<Cell> {
    let spec = &object["spec"];
    let duration = spec["expirationSeconds"].as_i64().map_or("<none>".to_owned(), age::human);
    vec![
        Cell::name(object),
        Cell::age(object),
        Cell::text(spec["signerName"].as_str().unwrap_or("<none>")),
        Cell::text(spec["username"].as_str().unwrap_or_default()),
        Cell::text(duration),
        Cell::text(condition(&object["status"])),
    ]
}

fn condition(status: &Value) -> String {
    let said = |kind: &str| status["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["type"] == kind));
    let mut words = match (said("Denied"), said("Approved")) {
        (true, _) => "Denied".to_owned(),
        (false, true) => "Approved".to_owned(),
        (false, false) => "Pending".to_owned(),
    };
    if said("Failed") {
        words.push_str(",Failed");
    }
    if status["certificate"].as_str().is_some_and(|c| !c.is_empty()) {
        words.push_str(",Issued");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usages_are_known_ones_each_once() {
        let paths = |usages: Value, stored: Option<&Value>| -> Vec<String> {
            usage_errors("u", &usages, stored).into_iter().map(|e| e.path).collect()
        };
        assert_eq!(paths(json!(["client auth", "digital signature"]), None), [""; 0]);
        assert_eq!(paths(json!([]), None), ["u"]);
        assert_eq!(paths(json!(["any", "x", "any"]), None), ["u[1]", "u[2]"]);
        assert_eq!(paths(json!(["any", "x", "any"]), Some(&json!(["y", "y"]))), [""; 0], "it was taken before");
    }

    #[test]
    fn a_signer_has_a_domain_and_a_path() {
        let count = |name: &str| signer_name("s", &json!(name)).len();
        let names = ["example.com/a.b", "", "example.com", "a/b/c", "example/a", "Example.com/a", "example.com/"];
        assert_eq!(names.map(count), [0, 1, 1, 1, 1, 1, 1]);
    }
}
