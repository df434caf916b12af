//! `MatchResources`: which writes an admission policy or its binding is about.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{is_unknown, items, rule};
use crate::kinds::{FieldError, label_selector, names, pod::defaults::fill};

const POLICIES: [&str; 2] = ["Equivalent", "Exact"];

/// Fills in what is not said.
pub fn default(resources: &mut Value) {
    if !resources.is_object() {
        return;
    }
    fill(resources, "matchPolicy", || json!("Equivalent"));
    fill(resources, "namespaceSelector", || json!({}));
    fill(resources, "objectSelector", || json!({}));
    rule::default(resources.get_mut("resourceRules"));
    rule::default(resources.get_mut("excludeResourceRules"));
}

/// Why it may not stand.
pub fn validate(path: &str, resources: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if resources["matchPolicy"].is_null() {
        errors.push(FieldError::required(format!("{path}.matchPolicy"), ""));
    } else if is_unknown(&resources["matchPolicy"], &POLICIES) {
        errors.push(FieldError::not_supported(format!("{path}.matchPolicy"), &resources["matchPolicy"], &POLICIES));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        let path = format!("{path}.{field}");
        match &resources[field] {
            Value::Null => errors.push(FieldError::required(path, "")),
            selector => errors.extend(label_selector::validate(&path, selector)),
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (i, one) in items(resources, field).iter().enumerate() {
            let path = format!("{path}.{field}[{i}]");
            errors.extend(resource_names(&format!("{path}.resourceNames"), items(one, "resourceNames")));
            errors.extend(rule::validate(&path, one));
        }
    }
    errors
}

/// Why a mutating policy may not be about the operations that its rules name: what is deleted cannot be changed.
pub fn no_deletions(path: &str, resources: &Value) -> Vec<FieldError> {
    const SUPPORTED: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
    let operations = items(resources, "resourceRules").iter().flat_map(|rule| items(rule, "operations"));
    let unsupported = operations.filter(|operation| is_unknown(operation, &SUPPORTED));
    let path = format!("{path}.resourceRules.operations");
    unsupported.map(|operation| FieldError::not_supported(&path, operation, &SUPPORTED)).collect()
}

fn resource_names(path: &str, list: &[Value]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, name) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let text = name.as_str().unwrap_or_default();
        errors.extend(FieldError::invalid_each(&path, name, names::path_segment(text)));
        if !seen.insert(text) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_rules_are_checked() {
        let mut resources = json!({"resourceRules": [{"resourceNames": ["a", "a", "b/c"], "operations": ["CREATE"],
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        default(&mut resources);
        assert_eq!(resources["resourceRules"][0]["scope"], "*");
        let words: Vec<String> =
            validate("m", &resources).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(
            words,
            [
                "m.resourceRules[0].resourceNames[1]: Duplicate value: \"a\"",
                "m.resourceRules[0].resourceNames[2]: Invalid value: \"b/c\": may not contain '/'",
            ]
        );
        assert_eq!(validate("m", &json!({})).len(), 3);
        assert!(validate("m", &json!({"matchPolicy": "Some"}))[0].message.starts_with("Unsupported value"));
    }
}
