//! The status of a CertificateSigningRequest: what approvers decided, and the certificate that a signer gave.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::super::{
    FieldError,
    reading::{items, text},
};
use crate::rfc3339;

const CONDITIONS: &str = "status.conditions";
const CERTIFICATE: &str = "status.certificate";
/// Conditions that are true or not there.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

/// Keeps what was decided, which is said through `approval` alone, and fills in the times of the other conditions.
pub fn prepare(new: &mut Value, old: &Value) {
    let is_decision = |condition: &Value| matches!(text(condition, "type"), "Approved" | "Denied");
    let decided = items(&old["status"]["conditions"]).filter(|condition| is_decision(condition)).cloned();
    let others = items(&new["status"]["conditions"]).filter(|condition| !is_decision(condition)).cloned();
    let mut all: Vec<Value> = decided.chain(others).collect();
    let now = rfc3339::now();
    for condition in &mut all {
        if text(condition, "lastUpdateTime").is_empty() {
            condition["lastUpdateTime"] = now.as_str().into();
        }
        if text(condition, "lastTransitionTime").is_empty() {
            let same = |before: &&Value| ["type", "status"].iter().all(|field| before[*field] == condition[*field]);
            let before =
                items(&old["status"]["conditions"]).find(same).map(|before| text(before, "lastTransitionTime"));
            condition["lastTransitionTime"] = before.filter(|time| !time.is_empty()).unwrap_or(&now).into();
        }
    }
    if !all.is_empty() {
        new["status"]["conditions"] = all.into();
    } else if let Some(status) = new["status"].as_object_mut() {
        status.shift_remove("conditions");
    }
}

/// Reasons against a status in the place of that of `old`. What was stored wrong may stay so.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = conditions(new, old);
    let (given, was) = (text(&new["status"], "certificate"), old.map(|old| text(&old["status"], "certificate")));
    if was != Some(given) && was.is_none_or(|was| wrong_certificate(was).is_none()) {
        let shown = json!("<certificate data>");
        errors.extend(wrong_certificate(given).map(|why| FieldError::invalid(CERTIFICATE, &shown, why)));
    }
    let Some(old) = old else { return errors };
    let count = |object: &Value, of: &str| items(&object["status"]["conditions"]).filter(|c| c["type"] == of).count();
    for of in FINAL.into_iter().filter(|of| count(new, of) < count(old, of)) {
        let why = format!("updates may not remove a condition of type {of:?}");
        errors.push(FieldError::forbidden(CONDITIONS, &why));
    }
    if was.is_some_and(|was| !was.is_empty() && was != given) {
        errors.push(FieldError::forbidden(CERTIFICATE, "updates may not modify existing certificate content"));
    }
    errors
}

fn conditions(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let types = |object: &Value| -> Vec<String> {
        items(&object["status"]["conditions"]).map(|condition| text(condition, "type").to_owned()).collect()
    };
    let before = old.map(types).unwrap_or_default();
    let had = |of: &str| before.iter().any(|one| one == of);
    let had_both = had("Approved") && had("Denied");
    let had_twice = before.iter().collect::<BTreeSet<_>>().len() < before.len();
    let mut errors = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, condition) in items(&new["status"]["conditions"]).enumerate() {
        let (of, status) = (text(condition, "type"), text(condition, "status"));
        let path = |field: &str| format!("{CONDITIONS}[{i}].{field}");
        if of.is_empty() && !had("") {
            errors.push(FieldError::required(path("type"), ""));
        }
        let known: &[&str] = if FINAL.contains(&of) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            errors.push(FieldError::required(path("status"), ""));
        } else if !known.contains(&status) {
            errors.push(FieldError::not_supported(path("status"), &condition["status"], known));
        }
        let opposite = match of {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !opposite.is_empty() && seen.contains(opposite) && !had_both {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(CONDITIONS, &condition["type"], why));
        }
        if !seen.insert(of) && !had_twice {
            errors.push(FieldError::duplicate(path("type"), &json!(of)));
        }
    }
    errors
}

/// Why a text is no certificates; nothing where there is none.
fn wrong_certificate(base64: &str) -> Option<String> {
    if base64.is_empty() {
        return None;
    }
    let bytes = BASE64_STANDARD.decode(base64).unwrap_or_default();
    let blocks = pem::parse_many(bytes).unwrap_or_default();
    let of_block = |block: &pem::Pem| {
        if block.tag() != "CERTIFICATE" {
            Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.tag()))
        } else if block.headers().iter().next().is_some() {
            Some("no PEM block headers are permitted".to_owned())
        } else if block.contents().is_empty() {
            Some("found CERTIFICATE PEM block containing 0 certificates".to_owned())
        } else {
            x509_parser::parse_x509_certificate(block.contents())
                .err()
                .map(|_| "x509: malformed certificate".to_owned())
        }
    };
    let none = || blocks.is_empty().then(|| "must contain at least one CERTIFICATE PEM block".to_owned());
    blocks.iter().find_map(of_block).or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(status: Value) -> Value {
        json!({"status": status})
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        validate(new, old).into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn a_status_write_decides_nothing() {
        let decided = |kind: &str| with(json!({"conditions": [{"type": kind}]}));
        let mut new = decided("Approved");
        prepare(&mut new, &json!({}));
        assert_eq!(new, json!({"status": {}}));
        let mut new = decided("Failed");
        prepare(&mut new, &decided("Denied"));
        let types: Vec<&str> = items(&new["status"]["conditions"]).map(|condition| text(condition, "type")).collect();
        assert_eq!(types, ["Denied", "Failed"]);
    }

    #[test]
    fn times_of_conditions_are_filled_in() {
        let time = "2020-01-01T00:00:00Z";
        let old = with(json!({"conditions": [{"type": "A", "status": "True", "lastTransitionTime": time}]}));
        let mut new = with(json!({"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}));
        prepare(&mut new, &old);
        let conditions = &new["status"]["conditions"];
        assert_eq!(conditions[0]["lastTransitionTime"], time);
        assert_ne!(conditions[0]["lastUpdateTime"], time);
        assert_eq!(conditions[1]["lastTransitionTime"], conditions[1]["lastUpdateTime"]);
    }

    #[test]
    fn conditions_are_checked() {
        let conditions = |list: Value| with(json!({"conditions": list}));
        let new = conditions(json!([{"type": "Approved", "status": "False"}, {"type": "Denied", "status": "True"},
            {"type": "", "status": ""}, {"type": "X", "status": "x"}, {"type": "X", "status": "True"}]));
        assert_eq!(
            words(&new, None),
            [
                "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
                "status.conditions[2].type: Required value",
                "status.conditions[2].status: Required value",
                "status.conditions[3].status: Unsupported value: \"x\": supported values: \"False\", \"True\", \
                 \"Unknown\"",
                "status.conditions[4].type: Duplicate value: \"X\"",
            ]
        );
        let failed = conditions(json!([{"type": "Failed", "status": "True"}]));
        let removed = "status.conditions: Forbidden: updates may not remove a condition of type \"Failed\"";
        assert_eq!(words(&json!({}), Some(&failed)), [removed]);
        assert!(words(&failed, Some(&failed)).is_empty());
    }

    #[test]
    fn a_certificate_is_one_and_stays() {
        let pem = |tag: &str, contents: &[u8]| pem::encode(&pem::Pem::new(tag, contents.to_vec()));
        let with_text = |text: &str| with(json!({"certificate": BASE64_STANDARD.encode(text)}));
        let good = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert.pem();
        assert!(words(&with_text(&good), None).is_empty());
        let invalid = "status.certificate: Invalid value: \"<certificate data>\": ";
        for (text, why) in [
            ("a".to_owned(), "must contain at least one CERTIFICATE PEM block"),
            (pem("X", b"a"), "only CERTIFICATE PEM blocks are allowed, found \"X\""),
            (pem("CERTIFICATE", b"a"), "x509: malformed certificate"),
        ] {
            assert_eq!(words(&with_text(&text), Some(&json!({}))), [format!("{invalid}{why}")], "{text}");
            assert!(words(&with_text(&text), Some(&with_text(&text))).is_empty(), "it was taken before");
        }
        let other = rcgen::generate_simple_self_signed(vec!["b".to_owned()]).unwrap().cert.pem();
        let stays = "status.certificate: Forbidden: updates may not modify existing certificate content";
        assert_eq!(words(&with_text(&other), Some(&with_text(&good))), [stays]);
    }
}
