//! What a ResourceClaim asks for: `spec.devices`. Shared with the template of claims.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{configuration, drop_fields, duplicates, items, label, qualified_name, text, too_many};
use crate::kinds::{FieldError, names};

/// How many requests, constraints and configurations there may be.
const MAX_ITEMS: usize = 32;
/// How many alternatives a request may have.
const MAX_ALTERNATIVES: usize = 8;
const MODES: [&str; 2] = ["All", "ExactCount"];
const OPERATORS: [&str; 2] = ["Equal", "Exists"];
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// Fills in how many devices are asked for.
pub fn default(spec: &mut Value) {
    for request in requests_mut(spec) {
        count(request.get_mut("exactly"));
        for alternative in request.get_mut("firstAvailable").and_then(Value::as_array_mut).into_iter().flatten() {
            count(Some(alternative));
        }
    }
}

/// Drops what belongs to features that are switched off.
pub fn drop_disabled(spec: &mut Value) {
    for request in requests_mut(spec) {
        if let Some(exact) = request.get_mut("exactly") {
            drop_fields(exact, &["capacity", "tolerations"]);
        }
        for alternative in request.get_mut("firstAvailable").and_then(Value::as_array_mut).into_iter().flatten() {
            drop_fields(alternative, &["capacity", "tolerations"]);
        }
    }
    let constraints = spec.get_mut("devices").and_then(|devices| devices.get_mut("constraints"));
    for constraint in constraints.and_then(Value::as_array_mut).into_iter().flatten() {
        drop_fields(constraint, &["distinctAttribute"]);
    }
}

fn requests_mut(spec: &mut Value) -> impl Iterator<Item = &mut Value> {
    let requests = spec.get_mut("devices").and_then(|devices| devices.get_mut("requests"));
    requests.and_then(Value::as_array_mut).into_iter().flatten()
}

fn count(request: Option<&mut Value>) {
    let Some(request) = request.and_then(Value::as_object_mut) else { return };
    let is_empty = |value: Option<&Value>| value.is_none_or(|value| value.is_null() || value == "");
    if is_empty(request.get("allocationMode")) {
        request.insert("allocationMode".into(), json!("ExactCount"));
    }
    let none = request.get("count").and_then(Value::as_i64).unwrap_or(0) == 0;
    if none && request["allocationMode"] == "ExactCount" {
        request.insert("count".into(), json!(1));
    }
}

/// Names of the requests, each with those of its alternatives.
pub struct RequestNames<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> RequestNames<'a> {
    /// Of a claim's spec.
    pub fn of(spec: &'a Value) -> Self {
        let requests = items(&spec["devices"], "requests").iter();
        let alternatives = |request| items(request, "firstAvailable").iter().map(|one| text(one, "name")).collect();
        Self(requests.map(|request| (text(request, "name"), alternatives(request))).collect())
    }

    /// Why a text names no request: `request` or `request/alternative`.
    pub fn check(&self, path: &str, value: &Value) -> Vec<FieldError> {
        const WHY: &str = "must be the name of a request in the claim or the name of a request and a subrequest \
                           separated by '/'";
        let name = value.as_str().unwrap_or_default();
        let parts: Vec<&str> = name.split('/').collect();
        let known = match parts.as_slice() {
            [request] => self.0.contains_key(request),
            [request, alternative] => self.0.get(request).is_some_and(|names| names.contains(alternative)),
            _ => return vec![FieldError::invalid(path, value, WHY)],
        };
        let mut errors: Vec<FieldError> = parts.iter().flat_map(|part| label(path, &(*part).into())).collect();
        if !known {
            errors.push(FieldError::invalid(path, value, WHY));
        }
        errors
    }

    /// The same of a list of names.
    pub fn check_all(&self, path: &str, list: &[Value]) -> Vec<FieldError> {
        if let Some(error) = too_many(path, list, MAX_ITEMS) {
            return vec![error];
        }
        let each = list.iter().enumerate().flat_map(|(i, name)| self.check(&format!("{path}[{i}]"), name));
        let mut errors: Vec<FieldError> = each.collect();
        errors.extend(duplicates(path, list.iter().map(|name| name.as_str().unwrap_or_default().to_owned())));
        errors
    }
}

/// Why a claim's spec may not stand.
pub fn validate(path: &str, spec: &Value) -> Vec<FieldError> {
    let (path, devices) = (format!("{path}.devices"), &spec["devices"]);
    let names = RequestNames::of(spec);
    let mut errors = Vec::new();
    let (list, at) = (items(devices, "requests"), format!("{path}.requests"));
    match too_many(&at, list, MAX_ITEMS) {
        Some(error) => errors.push(error),
        None => {
            errors.extend(list.iter().enumerate().flat_map(|(i, one)| request(&format!("{at}[{i}]"), one)));
            errors.extend(duplicates(&at, list.iter().map(|request| text(request, "name").to_owned())));
        }
    }
    let (list, at) = (items(devices, "constraints"), format!("{path}.constraints"));
    match too_many(&at, list, MAX_ITEMS) {
        Some(error) => errors.push(error),
        None => {
            for (i, constraint) in list.iter().enumerate() {
                errors.extend(names.check_all(&format!("{at}[{i}].requests"), items(constraint, "requests")));
                let at = format!("{at}[{i}].matchAttribute");
                match &constraint["matchAttribute"] {
                    Value::Null => errors.push(FieldError::required(at, "")),
                    name => errors.extend(qualified_name::validate_full(&at, name)),
                }
            }
        }
    }
    let (list, at) = (items(devices, "config"), format!("{path}.config"));
    match too_many(&at, list, MAX_ITEMS) {
        Some(error) => errors.push(error),
        None => {
            for (i, config) in list.iter().enumerate() {
                errors.extend(names.check_all(&format!("{at}[{i}].requests"), items(config, "requests")));
                errors.extend(configuration::validate(&format!("{at}[{i}]"), config, false));
            }
        }
    }
    errors
}

fn request(path: &str, request: &Value) -> Vec<FieldError> {
    let mut errors = label(&format!("{path}.name"), &request["name"]);
    let (exactly, first) = (&request["exactly"], items(request, "firstAvailable"));
    match (exactly.is_null(), first.is_empty()) {
        (true, true) => {
            errors.push(FieldError::required(path, "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (false, false) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, &Value::Null, why));
        }
        (false, true) => errors.extend(devices(&format!("{path}.exactly"), exactly)),
        (true, false) => {
            let path = format!("{path}.firstAvailable");
            if let Some(error) = too_many(&path, first, MAX_ALTERNATIVES) {
                errors.push(error);
                return errors;
            }
            for (i, one) in first.iter().enumerate() {
                let path = format!("{path}[{i}]");
                errors.extend(label(&format!("{path}.name"), &one["name"]));
                errors.extend(devices(&path, one));
            }
            errors.extend(duplicates(&path, first.iter().map(|one| text(one, "name").to_owned())));
        }
    }
    errors
}

/// Why a request for devices of one class may not stand.
fn devices(path: &str, request: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let class = format!("{path}.deviceClassName");
    match text(request, "deviceClassName") {
        "" => errors.push(FieldError::required(class, "")),
        name => errors.extend(FieldError::invalid_each(class, &request["deviceClassName"], names::subdomain(name))),
    }
    errors.extend(configuration::selectors(path, request, false));
    let number = request["count"].as_i64().unwrap_or(0);
    let mut wrong = |why| errors.push(FieldError::invalid(format!("{path}.count"), &number.into(), why));
    match text(request, "allocationMode") {
        "All" if number != 0 => wrong("must not be specified when allocationMode is 'All'"),
        "ExactCount" if number <= 0 => wrong("must be greater than zero"),
        "All" | "ExactCount" => {}
        _ => {
            let value = &request["allocationMode"];
            errors.push(FieldError::not_supported(format!("{path}.allocationMode"), value, &MODES));
        }
    }
    for (i, one) in items(request, "tolerations").iter().enumerate() {
        errors.extend(toleration(&format!("{path}.tolerations[{i}]"), one));
    }
    errors
}

fn toleration(path: &str, toleration: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (key, value, effect) = (text(toleration, "key"), text(toleration, "value"), text(toleration, "effect"));
    if !key.is_empty() {
        let wrong = names::qualified_name(key);
        errors.extend(FieldError::invalid_each(format!("{path}.key"), &toleration["key"], wrong));
    }
    match text(toleration, "operator") {
        "Exists" if value.is_empty() => {}
        "Exists" => {
            let why = "must be empty for operator `Exists`";
            errors.push(FieldError::invalid(format!("{path}.value"), &toleration["value"], why));
        }
        "Equal" => {
            let wrong = names::label_value(value);
            errors.extend(FieldError::invalid_each(format!("{path}.value"), &toleration["value"], wrong));
        }
        "" => errors.push(FieldError::required(format!("{path}.operator"), "")),
        _ => errors.push(FieldError::not_supported(format!("{path}.operator"), &toleration["operator"], &OPERATORS)),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.push(FieldError::not_supported(format!("{path}.effect"), &toleration["effect"], &EFFECTS));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(devices: Value) -> Vec<String> {
        let mut spec = json!({"devices": devices});
        default(&mut spec);
        validate("spec", &spec).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_request_is_for_one_device_of_a_class_if_it_does_not_say_more() {
        let mut spec = json!({"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}},
            {"name": "any", "firstAvailable": [{"name": "a", "deviceClassName": "x", "allocationMode": "All"}]}]}});
        default(&mut spec);
        let requests = &spec["devices"]["requests"];
        assert_eq!(requests[0]["exactly"]["count"], 1);
        assert_eq!(requests[1]["firstAvailable"][0].get("count"), None);
        assert_eq!(validate("spec", &spec), []);
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        let exactly = json!({"deviceClassName": "gpu"});
        assert_eq!(
            words(json!({"requests": [{"name": "a"}, {"name": "a", "exactly": {"count": -1}}]})),
            [
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1].exactly.deviceClassName: Required value",
                "spec.devices.requests[1].exactly.count: Invalid value: -1: must be greater than zero",
                "spec.devices.requests[1]: Duplicate value: \"a\"",
            ]
        );
        let constraints = json!([{"requests": ["b", "a/x", "a"], "matchAttribute": "model"}]);
        let errors = words(json!({"requests": [{"name": "a", "exactly": exactly}], "constraints": constraints}));
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(
            errors[0].starts_with("spec.devices.constraints[0].requests[0]: Invalid value: \"b\": must be the name")
        );
        assert!(errors[2].contains("a fully qualified name must be a domain"), "{errors:?}");
        let many: Vec<Value> = (0..33).map(|n| json!({"name": format!("r{n}"), "exactly": exactly})).collect();
        assert_eq!(
            words(json!({"requests": many})),
            ["spec.devices.requests: Too many: 33: must have at most 32 items"]
        );
    }

    #[test]
    fn features_that_are_off_leave_nothing() {
        let mut spec = json!({"devices": {"requests": [{"name": "a", "exactly": {"capacity": {}, "tolerations": []}}],
            "constraints": [{"distinctAttribute": "a/b"}]}});
        drop_disabled(&mut spec);
        assert_eq!(spec, json!({"devices": {"requests": [{"name": "a", "exactly": {}}], "constraints": [{}]}}));
    }
}
