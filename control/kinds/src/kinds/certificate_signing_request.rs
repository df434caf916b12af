//! CertificateSigningRequest: how a node or a person asks the cluster CA for a certificate.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{BuiltIn, Cell, Column, FieldError, Storage, age, prepare};

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
    default,
    validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        if let Some(old) = old {
            new["spec"] = old["spec"].clone();
        }
    },
    prepare_status: keep_decisions,
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
    ..BuiltIn::PLAIN
};

/// Whether a request is approved is said through `approval` alone.
fn keep_decisions(new: &mut Value, old: &Value) {
    let is_decision = |condition: &Value| matches!(condition["type"].as_str(), Some("Approved" | "Denied"));
    let conditions = |object: &Value| object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let decided = conditions(old).into_iter().filter(is_decision);
    let others = conditions(new).into_iter().filter(|condition| !is_decision(condition));
    let all: Vec<Value> = decided.chain(others).collect();
    if !all.is_empty() {
        new["status"]["conditions"] = all.into();
    } else if let Some(status) = new["status"].as_object_mut() {
        status.shift_remove("conditions");
    }
}

fn default(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
        && spec.get("usages").is_none_or(Value::is_null)
    {
        spec.insert("usages".into(), json!(["digital signature", "key encipherment"]));
    }
}

fn validate(new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = Vec::new();
    if spec["request"].as_str().is_none_or(str::is_empty) {
        errors.push(FieldError::required("spec.request", ""));
    }
    if spec["usages"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required("spec.usages", "usages are required"));
    }
    match spec["signerName"].as_str() {
        None | Some("") => errors.push(FieldError::required("spec.signerName", "")),
        Some(name) if name.split_once('/').is_none_or(|(domain, path)| domain.is_empty() || path.is_empty()) => {
            let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(FieldError::invalid("spec.signerName", &spec["signerName"], why));
        }
        Some(_) => {}
    }
    if spec["expirationSeconds"].as_i64().is_some_and(|n| n < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", &spec["expirationSeconds"], why));
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
    fn a_status_write_decides_nothing() {
        let decided = |kind: &str| json!({"status": {"conditions": [{"type": kind}]}});
        let mut new = decided("Approved");
        keep_decisions(&mut new, &json!({}));
        assert_eq!(new, json!({"status": {}}));
        let mut new = decided("Failed");
        keep_decisions(&mut new, &decided("Denied"));
        assert_eq!(new["status"]["conditions"], json!([{"type": "Denied"}, {"type": "Failed"}]));
    }
}
