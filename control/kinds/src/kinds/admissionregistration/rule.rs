//! Rules: which operations on which resources a webhook or policy is asked about. Defaults and reasons against.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{is_unknown, items};
use crate::kinds::{FieldError, pod::defaults::fill};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

/// Fills in the scope of every rule in a list.
pub fn default(rules: Option<&mut Value>) {
    for rule in rules.and_then(Value::as_array_mut).into_iter().flatten() {
        fill(rule, "scope", || json!("*"));
    }
}

/// Why a rule with its operations may not stand.
pub fn validate(path: &str, rule: &Value) -> Vec<FieldError> {
    let mut errors = list(path, rule, "operations", "operations");
    for (i, operation) in items(rule, "operations").iter().enumerate() {
        if is_unknown(operation, &OPERATIONS) {
            errors.push(FieldError::not_supported(format!("{path}.operations[{i}]"), operation, &OPERATIONS));
        }
    }
    errors.extend(list(path, rule, "apiGroups", "API groups"));
    errors.extend(list(path, rule, "apiVersions", "API versions"));
    for (i, _) in items(rule, "apiVersions").iter().enumerate().filter(|(_, version)| **version == "") {
        errors.push(FieldError::required(format!("{path}.apiVersions[{i}]"), ""));
    }
    errors.extend(resources(&format!("{path}.resources"), &rule["resources"]));
    if is_unknown(&rule["scope"], &SCOPES) {
        errors.push(FieldError::not_supported(format!("{path}.scope"), &rule["scope"], &SCOPES));
    }
    errors
}

/// A list that has items, or `*` alone.
fn list(path: &str, rule: &Value, field: &str, words: &str) -> Vec<FieldError> {
    let all = items(rule, field);
    let mut errors = Vec::new();
    if all.is_empty() {
        errors.push(FieldError::required(format!("{path}.{field}"), ""));
    }
    if all.len() > 1 && all.iter().any(|item| item == "*") {
        let why = format!("if '*' is present, must not specify other {words}");
        errors.push(FieldError::invalid(format!("{path}.{field}"), &rule[field], why));
    }
    errors
}

fn resources(path: &str, resources: &Value) -> Vec<FieldError> {
    let all = resources.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut errors = Vec::new();
    if all.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    // `x/*` and `*/x`
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let (mut every_resource, mut main_resource) = (false, false);
    for (i, value) in all.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let text = value.as_str().unwrap_or_default();
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        every_resource |= text == "*";
        let Some((resource, subresource)) = text.split_once('/') else {
            main_resource = text != "*";
            continue;
        };
        if whole.contains(resource) {
            let why = format!("if '{resource}/*' is present, must not specify {text}");
            errors.push(FieldError::invalid(&path, value, why));
        }
        if everywhere.contains(subresource) {
            let why = format!("if '*/{subresource}' is present, must not specify {text}");
            errors.push(FieldError::invalid(&path, value, why));
        }
        if subresource == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(subresource);
        }
    }
    if all.len() > 1 && all.iter().any(|item| item == "*/*") {
        errors.push(FieldError::invalid(path, resources, "if '*/*' is present, must not specify other resources"));
    }
    if every_resource && main_resource {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, resources, why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rule: Value) -> Vec<String> {
        validate("r", &rule).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    fn rule(resources: Value) -> Value {
        json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources})
    }

    #[test]
    fn a_rule_names_everything_or_says_all() {
        assert!(words(rule(json!(["pods", "pods/status", "*/scale"]))).is_empty());
        assert_eq!(words(json!({})).len(), 4);
        let mixed = json!({"operations": ["*", "CREATE", "RENAME"], "apiGroups": ["*", "a"],
            "apiVersions": ["*", ""], "resources": ["a"], "scope": "Pod"});
        assert_eq!(
            words(mixed),
            [
                "r.operations: Invalid value: [\"*\",\"CREATE\",\"RENAME\"]: if '*' is present, must not specify \
                 other operations",
                "r.operations[2]: Unsupported value: \"RENAME\": supported values: \"*\", \"CONNECT\", \"CREATE\", \
                 \"DELETE\", \"UPDATE\"",
                "r.apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other API groups",
                "r.apiVersions: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other API versions",
                "r.apiVersions[1]: Required value",
                "r.scope: Unsupported value: \"Pod\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
            ]
        );
    }

    #[test]
    fn resources_do_not_overlap() {
        for (resources, why) in [
            (json!(["pods/*", "pods/status"]), "if 'pods/*' is present, must not specify pods/status"),
            (json!(["*/scale", "a/scale"]), "if '*/scale' is present, must not specify a/scale"),
            (json!(["*/*", "a"]), "if '*/*' is present, must not specify other resources"),
            (json!(["*", "a"]), "if '*' is present, must not specify other resources without subresources"),
        ] {
            assert!(words(rule(resources.clone())).iter().any(|error| error.ends_with(why)), "{resources}");
        }
    }
}
