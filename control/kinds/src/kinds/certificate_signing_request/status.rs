//! The status of a CertificateSigningRequest: what approvers decided, and the certificate that a signer gave.
//!
//! Source: `pkg/registry/certificates/certificates/strategy.go` and `pkg/apis/certificates/validation` of Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::super::{
    FieldError,
    reading::{items, text},
};
use crate::rfc3339;

const CONDITIONS: &str = "status.conditions";
const CERTIFICATE: &str = "status.certificate";
/// What an approver decides: conditions that only a write through `approval` adds or changes.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Conditions that are true or not there.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

/// What a status is written through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// `/approval`
    Approval,
    /// `/status`, or the object itself, which changes no status.
    Status,
}

/// Of a write through `/status`: conditions that decide stay as they were, unless there are more or fewer of them,
/// which [`validate`] refuses; times of the others are filled in.
pub fn prepare(new: &mut Value, old: &Value) {
    new["spec"] = old["spec"].clone();
    for decision in DECISIONS {
        let is_it = |condition: &&Value| condition["type"] == decision;
        let before: Vec<&Value> = items(&old["status"]["conditions"]).filter(is_it).collect();
        if items(&new["status"]["conditions"]).filter(is_it).count() != before.len() {
            continue;
        }
        let now = new["status"]["conditions"].as_array_mut().into_iter().flatten();
        now.filter(|condition| condition["type"] == decision)
            .zip(before)
            .for_each(|(now, before)| *now = before.clone());
    }
    fill_in_times(new, old);
}

/// Of a write through `/approval`: of spec and status it changes the conditions alone.
pub fn prepare_approval(new: &mut Value, old: &Value) {
    fill_in_times(new, old);
    let conditions = new["status"].get_mut("conditions").map(Value::take);
    for field in ["spec", "status"] {
        new[field] = old[field].clone();
    }
    match conditions.filter(Value::is_array) {
        Some(conditions) => new["status"]["conditions"] = conditions,
        None => drop(new["status"].as_object_mut().and_then(|status| status.shift_remove("conditions"))),
    }
}

/// A condition that does not say when it was updated was updated now; one that does not say since when it is so has
/// been since the stored condition of the same type and status was, or else since now.
fn fill_in_times(new: &mut Value, old: &Value) {
    let now = rfc3339::now();
    let mut since: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for before in items(&old["status"]["conditions"]) {
        let at = text(before, "lastTransitionTime");
        if !at.is_empty() {
            since.entry((text(before, "type"), text(before, "status"))).or_insert(at);
        }
    }
    for condition in new["status"].get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if text(condition, "lastUpdateTime").is_empty() {
            condition["lastUpdateTime"] = now.as_str().into();
        }
        if text(condition, "lastTransitionTime").is_empty() {
            let at = since.get(&(text(condition, "type"), text(condition, "status"))).copied().unwrap_or(&now);
            condition["lastTransitionTime"] = at.into();
        }
    }
}

/// Reasons against a status in the place of that of `old`. What was stored wrong may stay so.
pub fn validate(new: &Value, old: Option<&Value>, through: Through) -> Vec<FieldError> {
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
    if through == Through::Status {
        for of in DECISIONS.into_iter().filter(|of| count(new, of) > count(old, of)) {
            let why = format!("updates may not add a condition of type {of:?}");
            errors.push(FieldError::forbidden(CONDITIONS, &why));
        }
    }
    if was.is_some_and(|was| !was.is_empty() && was != given) {
        errors.push(FieldError::forbidden(CERTIFICATE, "updates may not modify existing certificate content"));
    }
    errors
}

fn conditions(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let stored = old.map_or(&Value::Null, |old| &old["status"]["conditions"]);
    let had: BTreeSet<&str> = items(stored).map(|condition| text(condition, "type")).collect();
    let had_both = DECISIONS.iter().all(|decision| had.contains(decision));
    let had_twice = had.len() < items(stored).count();
    let mut errors = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, condition) in items(&new["status"]["conditions"]).enumerate() {
        let (of, status) = (text(condition, "type"), text(condition, "status"));
        let path = |field: &str| format!("{CONDITIONS}[{i}].{field}");
        if of.is_empty() && !had.contains("") {
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
    let blocks = pem_blocks(&bytes);
    let of_block = |block: &pem::Pem| {
        if block.tag() != "CERTIFICATE" {
            Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.tag()))
        } else if block.headers().iter().next().is_some() {
            Some("no PEM block headers are permitted".to_owned())
        } else if block.contents().is_empty() {
            Some("found CERTIFICATE PEM block containing 0 certificates".to_owned())
        } else {
            (!are_certificates(block.contents())).then(|| "x509: malformed certificate".to_owned())
        }
    };
    let none = || blocks.is_empty().then(|| "must contain at least one CERTIFICATE PEM block".to_owned());
    blocks.iter().find_map(of_block).or_else(none)
}

/// The blocks of a text. As in Go, what is no block is passed over, in front of one, between two and behind the last.
fn pem_blocks(text: &[u8]) -> Vec<pem::Pem> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let is_line = |at: usize| at == 0 || text[at - 1] == b'\n';
    let begins = text.windows(BEGIN.len()).enumerate().filter(|(at, window)| *window == BEGIN && is_line(*at));
    let begins: Vec<usize> = begins.map(|(at, _)| at).collect();
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    begins.iter().zip(ends).filter_map(|(begin, end)| pem::parse(&text[*begin..end]).ok()).collect()
}

/// Whether these bytes are certificates, one behind the other, and nothing else.
fn are_certificates(mut der: &[u8]) -> bool {
    while !der.is_empty() {
        match x509_parser::parse_x509_certificate(der) {
            Ok((rest, _)) => der = rest,
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2020-01-01T00:00:00Z";

    fn with(status: Value) -> Value {
        json!({"status": status})
    }

    fn with_conditions(list: Value) -> Value {
        with(json!({"conditions": list}))
    }

    fn words_through(through: Through, new: &Value, old: Option<&Value>) -> Vec<String> {
        validate(new, old, through).into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        words_through(Through::Status, new, old)
    }

    fn decided(decision: &str) -> Value {
        with_conditions(json!([{"type": decision, "status": "True", "lastTransitionTime": TIME}]))
    }

    #[test]
    fn a_decision_through_status_is_refused_and_not_dropped() {
        let mut new = decided("Approved");
        prepare(&mut new, &json!({}));
        let added = "status.conditions: Forbidden: updates may not add a condition of type \"Approved\"";
        assert_eq!(words(&new, Some(&json!({}))), [added]);
        assert!(words_through(Through::Approval, &new, Some(&json!({}))).is_empty());
        let mut new = decided("Failed");
        prepare(&mut new, &decided("Denied"));
        let removed = "status.conditions: Forbidden: updates may not remove a condition of type \"Denied\"";
        assert_eq!(words(&new, Some(&decided("Denied"))), [removed]);
    }

    #[test]
    fn a_decision_stays_as_it_was_where_a_status_says_another() {
        let mut new = with_conditions(json!([{"type": "X", "status": "True"},
            {"type": "Approved", "status": "True", "reason": "other"}]));
        new["spec"] = json!({"signerName": "other"});
        let mut old = decided("Approved");
        old["spec"] = json!({"signerName": "own"});
        prepare(&mut new, &old);
        let kept = &new["status"]["conditions"][1];
        assert_eq!((kept.get("reason"), &kept["lastTransitionTime"]), (None, &json!(TIME)));
        assert_eq!((&new["status"]["conditions"][0]["type"], &new["spec"]), (&json!("X"), &old["spec"]));
        assert!(words(&new, Some(&old)).is_empty());
    }

    #[test]
    fn times_of_conditions_are_filled_in() {
        let old = with_conditions(json!([{"type": "A", "status": "True"},
            {"type": "A", "status": "True", "lastTransitionTime": TIME}]));
        for prepare in [prepare, prepare_approval] {
            let mut new =
                with_conditions(json!([{"type": "A", "status": "True"}, {"type": "Denied", "status": "True"},
                {"type": "A", "status": "False", "lastUpdateTime": TIME, "lastTransitionTime": TIME}]));
            prepare(&mut new, &old);
            let conditions = &new["status"]["conditions"];
            assert_eq!(conditions[0]["lastTransitionTime"], TIME);
            assert!(text(&conditions[0], "lastUpdateTime") > TIME);
            assert!(text(&conditions[1], "lastUpdateTime") > TIME);
            assert_eq!(conditions[1]["lastTransitionTime"], conditions[1]["lastUpdateTime"]);
            assert_eq!([&conditions[2]["lastUpdateTime"], &conditions[2]["lastTransitionTime"]], [TIME, TIME]);
        }
    }

    #[test]
    fn an_approval_changes_conditions_alone() {
        let old = json!({"spec": {"signerName": "a"}, "status": {"certificate": "x"}});
        let mut new = json!({"metadata": {"labels": {"a": "b"}}, "spec": {}, "status": {"certificate": "y",
            "conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": TIME, "lastTransitionTime": TIME}]}});
        let conditions = new["status"]["conditions"].clone();
        prepare_approval(&mut new, &old);
        let expected = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"signerName": "a"},
            "status": {"certificate": "x", "conditions": conditions}});
        assert_eq!(new, expected);
        let mut new = json!({"spec": {}, "status": {}});
        prepare_approval(&mut new, &expected);
        assert_eq!(new["status"], json!({"certificate": "x"}));
    }

    #[test]
    fn many_conditions_cost_no_more_than_each_of_them() {
        let seconds = |count: usize| {
            let list = |at: &str| -> Value {
                (0..count)
                    .map(|n| json!({"type": format!("{at}{n}"), "status": "True", "lastTransitionTime": at}))
                    .collect()
            };
            let empty: Value = (0..count).map(|_| json!({"type": "", "status": "True"})).collect();
            let begun = std::time::Instant::now();
            for new in [list(""), empty] {
                let (mut new, old) = (with_conditions(new), with_conditions(list(TIME)));
                prepare(&mut new, &old);
                assert_eq!(
                    validate(&new, Some(&old), Through::Status).is_empty(),
                    new["status"]["conditions"][0]["type"] != ""
                );
            }
            begun.elapsed().as_secs_f64()
        };
        // Ten times as many cost about ten times as much, not a hundred times, whatever else the machine does.
        let is_linear = || seconds(30_000) < 40.0 * seconds(3_000);
        assert!((0..3).any(|_| is_linear()));
    }

    #[test]
    fn conditions_are_checked() {
        let new =
            with_conditions(json!([{"type": "Approved", "status": "False"}, {"type": "Denied", "status": "True"},
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
        let failed = with_conditions(json!([{"type": "Failed", "status": "True"}]));
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
        let der = pem::parse(&good).unwrap().into_contents();
        let twice = pem("CERTIFICATE", &[&*der, &*der].concat());
        for text in [format!("text\n{good}text\n-----BEGIN X-----\n"), twice] {
            assert!(words(&with_text(&text), None).is_empty(), "{text}");
        }
        let invalid = "status.certificate: Invalid value: \"<certificate data>\": ";
        for (text, why) in [
            ("a".to_owned(), "must contain at least one CERTIFICATE PEM block"),
            (pem("X", b"a"), "only CERTIFICATE PEM blocks are allowed, found \"X\""),
            (pem("CERTIFICATE", b"a"), "x509: malformed certificate"),
            (pem("CERTIFICATE", &[&*der, b"a"].concat()), "x509: malformed certificate"),
            (format!("{good}{}", pem("X", b"a")), "only CERTIFICATE PEM blocks are allowed, found \"X\""),
        ] {
            assert_eq!(words(&with_text(&text), Some(&json!({}))), [format!("{invalid}{why}")], "{text}");
            assert!(words(&with_text(&text), Some(&with_text(&text))).is_empty(), "it was taken before");
        }
        let other = rcgen::generate_simple_self_signed(vec!["b".to_owned()]).unwrap().cert.pem();
        let stays = "status.certificate: Forbidden: updates may not modify existing certificate content";
        assert_eq!(words(&with_text(&other), Some(&with_text(&good))), [stays]);
    }
}
