//! Reasons why a Pod, or the spec in a pod template, may not be stored. Containers are `containers`' business, volumes
//! that of `volumes`, changes that of `update`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{containers, update, volumes};
use crate::kinds::{FieldError, names};

/// Why `new` may not be stored in the place of `old`.
pub fn pod(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = spec("spec", &new["spec"]);
    if let Some(old) = old {
        errors.extend(update::pod(new, old));
    }
    errors
}

/// Reasons against a pod spec at `path`, of a Pod or in a template.
pub fn spec(path: &str, spec: &Value) -> Vec<FieldError> {
    let (mut errors, volume_names) = volumes::all(&format!("{path}.volumes"), &spec["volumes"]);
    errors.extend(containers::all(path, spec, &volume_names));
    errors.extend(one_of(path, spec, "restartPolicy", &["Always", "OnFailure", "Never"]));
    errors.extend(one_of(path, spec, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]));
    if spec["dnsPolicy"] == "None" && spec["dnsConfig"]["nameservers"].as_array().is_none_or(Vec::is_empty) {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{path}.dnsConfig.nameservers"), why));
    }
    errors.extend(FieldError::negative(
        format!("{path}.terminationGracePeriodSeconds"),
        &spec["terminationGracePeriodSeconds"],
    ));
    if spec["activeDeadlineSeconds"].as_i64().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(format!("{path}.activeDeadlineSeconds"), &spec["activeDeadlineSeconds"], why));
    }
    errors.extend(names::labels(&format!("{path}.nodeSelector"), &spec["nodeSelector"]));
    for (field, check) in [
        ("serviceAccountName", names::subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
    ] {
        if let Some(text) = spec[field].as_str().filter(|t| !t.is_empty()) {
            let wrong = check(text).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.{field}"), &spec[field], why)));
        }
    }
    errors.extend(tolerations(&format!("{path}.tolerations"), &spec["tolerations"]));
    errors.extend(host_ports(path, spec));
    errors
}

/// An unset field was given its default before.
fn one_of(path: &str, spec: &Value, field: &str, supported: &[&str]) -> Option<FieldError> {
    let value = &spec[field];
    let supported_value = value.as_str().is_none_or(|text| supported.contains(&text));
    (!supported_value).then(|| FieldError::not_supported(format!("{path}.{field}"), value, supported))
}

fn tolerations(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, toleration) in list.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        let text = |field: &str| toleration[field].as_str().unwrap_or_default();
        if !text("key").is_empty() {
            let wrong = names::qualified_name(text("key")).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.key"), &toleration["key"], why)));
        } else if text("operator") != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(format!("{path}.operator"), &toleration["operator"], why));
        }
        match text("operator") {
            "" | "Equal" => {}
            "Exists" if text("value").is_empty() => {}
            "Exists" => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(format!("{path}.operator"), &toleration["value"], why));
            }
            _ => {
                let operator = &toleration["operator"];
                errors.push(FieldError::not_supported(format!("{path}.operator"), operator, &["Equal", "Exists"]));
            }
        }
        if !toleration["tolerationSeconds"].is_null() && text("effect") != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(format!("{path}.effect"), &toleration["effect"], why));
        }
        if !matches!(text("effect"), "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            errors.push(FieldError::not_supported(format!("{path}.effect"), &toleration["effect"], &effects));
        }
    }
    errors
}

/// Two containers cannot have one port of the host, and on the host's network a port is what it is.
fn host_ports(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut taken = BTreeSet::new();
    for (c, container) in spec["containers"].as_array().into_iter().flatten().enumerate() {
        for (p, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.containers[{c}].ports[{p}]");
            let Some(host_port) = port["hostPort"].as_i64().filter(|n| *n != 0) else { continue };
            let text = |field: &str| port[field].as_str().unwrap_or_default();
            let key = format!("{}/{}/{host_port}", text("protocol"), text("hostIP"));
            if !taken.insert(key.clone()) {
                errors.push(FieldError::duplicate(format!("{path}.hostPort"), &Value::from(key)));
            }
            if spec["hostNetwork"] == true && port["hostPort"] != port["containerPort"] {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(format!("{path}.hostPort"), &port["hostPort"], why));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(spec: Value) -> Vec<String> {
        pod(&json!({"spec": spec}), None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_plain_pod_is_valid() {
        assert!(words(json!({"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]})).is_empty());
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        assert_eq!(words(json!({})), ["spec.containers: Required value"]);
        assert_eq!(
            words(json!({"restartPolicy": "Sometimes", "containers": [{"name": "a", "image": "x"}]})),
            [
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""
            ]
        );
        let port = json!({"containerPort": 80, "protocol": "TCP", "hostPort": 80});
        let twice = json!({"containers": [{"name": "a", "image": "x", "ports": [port]}, {"name": "b", "image": "x", "ports": [port]}]});
        assert_eq!(words(twice), ["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""]);
    }
}
