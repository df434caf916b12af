//! The failure policy of a Job: which failures of its pods count, and which end it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kinds::{
    FieldError, names,
    reading::{is_empty, items, text},
};

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const MAX_RULES: usize = 20;
const MAX_PATTERNS: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// Reasons against the failure policy at `path`, in the spec of a Job.
pub fn validate(path: &str, spec: &Value) -> Vec<FieldError> {
    let rules = &spec["podFailurePolicy"]["rules"];
    let path = format!("{path}.rules");
    let mut errors = Vec::new();
    if items(rules).len() > MAX_RULES {
        errors.push(FieldError::too_many(&path, items(rules).len(), MAX_RULES));
    }
    let pod = &spec["template"]["spec"];
    let containers: BTreeSet<&str> =
        items(&pod["containers"]).chain(items(&pod["initContainers"])).map(|c| text(c, "name")).collect();
    for (i, rule) in items(rules).enumerate() {
        errors.extend(self::rule(&format!("{path}[{i}]"), rule, spec, &containers));
    }
    errors
}

fn rule(path: &str, rule: &Value, spec: &Value, containers: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let action = format!("{path}.action");
    match text(rule, "action") {
        "" => errors.push(FieldError::required(action, &valid_values(&ACTIONS))),
        "FailIndex" if spec["backoffLimitPerIndex"].is_null() => {
            let why = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(action, &rule["action"], why));
        }
        _ => errors.extend(FieldError::unsupported(action, &rule["action"], &ACTIONS)),
    }
    let (codes, conditions) = (&rule["onExitCodes"], &rule["onPodConditions"]);
    if !codes.is_null() {
        errors.extend(exit_codes(&format!("{path}.onExitCodes"), codes, containers));
    }
    if !is_empty(conditions) {
        errors.extend(pod_conditions(&format!("{path}.onPodConditions"), conditions));
    }
    match (codes.is_null(), is_empty(conditions)) {
        (false, false) => {
            let why = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(FieldError::invalid_unnamed(path, why));
        }
        (true, true) => {
            let why = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(FieldError::invalid_unnamed(path, why));
        }
        _ => {}
    }
    errors
}

fn pod_conditions(path: &str, patterns: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if items(patterns).len() > MAX_PATTERNS {
        errors.push(FieldError::too_many(path, items(patterns).len(), MAX_PATTERNS));
    }
    for (i, pattern) in items(patterns).enumerate() {
        let path = format!("{path}[{i}]");
        errors.extend(FieldError::each(format!("{path}.type"), &pattern["type"], names::qualified_name));
        errors.extend(one_of(format!("{path}.status"), &pattern["status"], &STATUSES));
    }
    errors
}

fn exit_codes(path: &str, codes: &Value, containers: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        one_of(format!("{path}.operator"), &codes["operator"], &OPERATORS).into_iter().collect();
    if codes["containerName"].as_str().is_some_and(|name| !containers.contains(name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(format!("{path}.containerName"), &codes["containerName"], why));
    }
    let list = &codes["values"];
    let path = format!("{path}.values");
    match items(list).len() {
        0 => errors.push(FieldError::invalid(&path, list, "at least one value is required")),
        found if found > MAX_EXIT_CODES => errors.push(FieldError::too_many(&path, found, MAX_EXIT_CODES)),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    let mut ordered = true;
    let mut last = i64::MIN;
    for (i, value) in items(list).enumerate() {
        let code = value.as_i64().unwrap_or_default();
        if codes["operator"] == "In" && code == 0 {
            errors.push(FieldError::invalid(format!("{path}[{i}]"), value, "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), value));
        }
        ordered &= last <= code;
        last = code;
    }
    if !ordered {
        errors.push(FieldError::invalid(path, list, "must be ordered"));
    }
    errors
}

/// A text that must be there and be one of `supported`.
fn one_of(path: String, value: &Value, supported: &[&str]) -> Option<FieldError> {
    match value.as_str() {
        None | Some("") => Some(FieldError::required(path, &valid_values(supported))),
        Some(_) => FieldError::unsupported(path, value, supported),
    }
}

/// `valid values: ["In" "NotIn"]`
fn valid_values(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(rule: Value) -> Vec<String> {
        let spec =
            json!({"podFailurePolicy": {"rules": [rule]}, "template": {"spec": {"containers": [{"name": "a"}]}}});
        validate("p", &spec).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        let good =
            json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 42], "containerName": "a"}});
        assert_eq!(words(good), Vec::<String>::new());
        assert_eq!(
            words(json!({})),
            [
                "p.rules[0].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
                "p.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
            ]
        );
        let codes =
            json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [2, 0, 2], "containerName": "b"}});
        let path = "p.rules[0].onExitCodes";
        assert_eq!(
            words(codes),
            [
                format!(
                    "{path}.containerName: Invalid value: \"b\": must be one of the container or initContainer names in the pod template"
                ),
                format!("{path}.values[1]: Invalid value: 0: must not be 0 for the In operator"),
                format!("{path}.values[2]: Duplicate value: 2"),
                format!("{path}.values: Invalid value: [2,0,2]: must be ordered"),
            ]
        );
        let condition =
            json!({"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget", "status": "Yes"}]});
        assert_eq!(
            words(condition),
            [
                "p.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                "p.rules[0].onPodConditions[0].status: Unsupported value: \"Yes\": supported values: \"False\", \"True\", \"Unknown\""
            ]
        );
    }
}
