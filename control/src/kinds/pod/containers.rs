//! Validation of the containers of a pod.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kinds::{FieldError, names, port, quantity};

/// All containers of a pod spec at `path`; `volumes` are the names of its volumes.
pub fn all(path: &str, spec: &Value, volumes: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    // Later lists may not repeat the names of earlier ones.
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.{list}[{i}]");
            if let Some(name) = container["name"].as_str().filter(|n| !n.is_empty())
                && !seen.insert(name)
            {
                errors.push(FieldError::duplicate(format!("{path}.name"), &container["name"]));
            }
            errors.extend(one(&path, container, volumes, list == "containers"));
        }
    }
    errors
}

fn one(path: &str, container: &Value, volumes: &BTreeSet<&str>, is_app: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match container["name"].as_str() {
        None | Some("") => errors.push(FieldError::required(format!("{path}.name"), "")),
        Some(name) => {
            let wrong = names::label(name).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.name"), &container["name"], why)));
        }
    }
    if container["image"].as_str().is_none_or(str::is_empty) {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    }
    let supported = |field: &str, values: &[&str]| {
        let value = &container[field];
        let known = value.as_str().is_none_or(|v| values.contains(&v));
        (!known).then(|| FieldError::not_supported(format!("{path}.{field}"), value, values))
    };
    errors.extend(supported("imagePullPolicy", &["Always", "IfNotPresent", "Never"]));
    errors.extend(supported("terminationMessagePolicy", &["File", "FallbackToLogsOnError"]));
    errors.extend(ports(&format!("{path}.ports"), &container["ports"]));
    errors.extend(environment(&format!("{path}.env"), &container["env"]));
    errors.extend(environment_from(&format!("{path}.envFrom"), &container["envFrom"]));
    let privileged = container["securityContext"]["privileged"] == true;
    errors.extend(mounts(&format!("{path}.volumeMounts"), &container["volumeMounts"], volumes, privileged));
    errors.extend(resources(&format!("{path}.resources"), &container["resources"]));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[name].is_object() {
            errors.extend(probe(&format!("{path}.{name}"), &container[name], name != "readinessProbe"));
        }
    }
    for hook in ["postStart", "preStop"] {
        if container["lifecycle"][hook].is_object() {
            let path = format!("{path}.lifecycle.{hook}");
            errors.extend(handler(&path, &container["lifecycle"][hook], &["exec", "httpGet", "tcpSocket", "sleep"]));
        }
    }
    if is_app && !container["restartPolicy"].is_null() {
        errors.push(FieldError::forbidden(format!("{path}.restartPolicy"), "may not be set for non-init containers"));
    }
    errors
}

fn ports(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, entry) in list.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        if let Some(name) = entry["name"].as_str().filter(|n| !n.is_empty()) {
            let wrong = port::name(&format!("{path}.name"), name);
            if wrong.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), &entry["name"]));
            }
            errors.extend(wrong);
        }
        match entry["containerPort"].as_i64() {
            None | Some(0) => errors.push(FieldError::required(format!("{path}.containerPort"), "")),
            Some(_) => errors.extend(port::number(format!("{path}.containerPort"), &entry["containerPort"])),
        }
        if entry["hostPort"].as_i64().unwrap_or_default() != 0 {
            errors.extend(port::number(format!("{path}.hostPort"), &entry["hostPort"]));
        }
        errors.extend(port::protocol(format!("{path}.protocol"), &entry["protocol"]));
    }
    errors
}

fn environment(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, variable) in list.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        match variable["name"].as_str() {
            None | Some("") => errors.push(FieldError::required(format!("{path}.name"), "")),
            Some(name) if name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') => {}
            Some(_) => {
                let why =
                    "a valid environment variable name must consist only of printable ASCII characters other than '='";
                errors.push(FieldError::invalid(format!("{path}.name"), &variable["name"], why));
            }
        }
        if !variable["valueFrom"].is_null() {
            errors.extend(value_from(&format!("{path}.valueFrom"), variable));
        }
    }
    errors
}

fn value_from(path: &str, variable: &Value) -> Vec<FieldError> {
    let source = &variable["valueFrom"];
    let mut errors = Vec::new();
    let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let given: Vec<&str> = kinds.into_iter().filter(|k| !source[*k].is_null()).collect();
    let empty = Value::from("");
    if given.is_empty() {
        let why =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(FieldError::invalid(path, &empty, why));
    } else if variable["value"].as_str().is_some_and(|v| !v.is_empty()) {
        errors.push(FieldError::invalid(path, &empty, "may not be specified when `value` is not empty"));
    } else if given.len() > 1 {
        errors.push(FieldError::invalid(path, &empty, "may not have more than one field specified at a time"));
    }
    for kind in given {
        let required: &[&str] = match kind {
            "configMapKeyRef" | "secretKeyRef" => &["name", "key"],
            "fieldRef" => &["fieldPath"],
            "resourceFieldRef" => &["resource"],
            _ => &[],
        };
        for field in required {
            if source[kind][*field].as_str().is_none_or(str::is_empty) {
                errors.push(FieldError::required(format!("{path}.{kind}.{field}"), ""));
            }
        }
    }
    errors
}

fn environment_from(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, source) in list.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        let given: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|k| !source[*k].is_null()).collect();
        match given.as_slice() {
            [] => {
                let why = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(FieldError::invalid(path, &Value::from(""), why));
            }
            [one] if source[*one]["name"].as_str().is_none_or(str::is_empty) => {
                errors.push(FieldError::required(format!("{path}.{one}.name"), ""));
            }
            [_] => {}
            _ => {
                let why = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(path, &Value::from(""), why));
            }
        }
    }
    errors
}

fn mounts(list_path: &str, list: &Value, volumes: &BTreeSet<&str>, privileged: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, mount) in list.as_array().into_iter().flatten().enumerate() {
        let path = format!("{list_path}[{i}]");
        let text = |field: &str| mount[field].as_str().unwrap_or_default();
        if text("name").is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        if !volumes.contains(text("name")) {
            errors.push(FieldError::not_found(format!("{path}.name"), &mount["name"]));
        }
        if text("mountPath").is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if !seen.insert(text("mountPath")) {
            errors.push(FieldError::invalid(format!("{path}.mountPath"), &mount["mountPath"], "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            errors.extend(descends(&format!("{path}.{field}"), &mount[field]));
        }
        if !text("subPath").is_empty() && !text("subPathExpr").is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(format!("{path}.subPathExpr"), &mount["subPathExpr"], why));
        }
        errors.extend(propagation(list_path, &mount["mountPropagation"], privileged));
    }
    errors
}

/// Kubernetes names the list in these refusals, not the mount in it.
fn propagation(list_path: &str, value: &Value, privileged: bool) -> Option<FieldError> {
    const SUPPORTED: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
    let path = format!("{list_path}.mountPropagation");
    match value.as_str() {
        None => None,
        Some("Bidirectional") if !privileged => {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            Some(FieldError::forbidden(path, why))
        }
        Some(text) if SUPPORTED.contains(&text) => None,
        Some(_) => Some(FieldError::not_supported(path, value, &SUPPORTED)),
    }
}

/// A path that stays below where it starts.
pub fn descends(path: &str, value: &Value) -> Option<FieldError> {
    let text = value.as_str().unwrap_or_default();
    if text.starts_with('/') {
        return Some(FieldError::invalid(path, value, "must be a relative path"));
    }
    text.split('/').any(|part| part == "..").then(|| FieldError::invalid(path, value, "must not contain '..'"))
}

fn resources(path: &str, resources: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let amount = |value: &Value| match value {
        Value::String(text) => quantity::millis(text),
        Value::Number(number) => quantity::millis(&number.to_string()),
        _ => None,
    };
    for what in ["limits", "requests"] {
        for (name, value) in resources[what].as_object().into_iter().flatten() {
            let path = format!("{path}.{what}.{name}");
            match amount(value) {
                None => {
                    let why = "quantities must match the regular expression \
                               '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                    errors.push(FieldError::invalid(path, value, why));
                }
                Some(n) if n < 0 => {
                    errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
                }
                Some(n) if what == "requests" => {
                    let limit = &resources["limits"][name.as_str()];
                    if amount(limit).is_some_and(|limit| n > limit) {
                        let limit = limit.as_str().map_or(limit.to_string(), str::to_owned);
                        let why = format!("must be less than or equal to {name} limit of {limit}");
                        errors.push(FieldError::invalid(format!("{}.requests", path_of(&path)), value, why));
                    }
                }
                Some(_) => {}
            }
        }
    }
    errors
}

/// `…resources` of `…resources.requests.cpu`; a resource's name may have dots of its own.
fn path_of(path: &str) -> &str {
    path.split(".requests.").next().unwrap_or(path)
}

fn probe(path: &str, probe: &Value, one_success: bool) -> Vec<FieldError> {
    let mut errors = handler(path, probe, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.extend(FieldError::negative(format!("{path}.{field}"), &probe[field]));
    }
    if one_success && probe["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        errors.push(FieldError::invalid(format!("{path}.successThreshold"), &probe["successThreshold"], "must be 1"));
    }
    errors
}

/// What a probe or a lifecycle hook does: one thing exactly.
fn handler(path: &str, handler: &Value, kinds: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let given: Vec<&&str> = kinds.iter().filter(|kind| !handler[**kind].is_null()).collect();
    if given.is_empty() {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for extra in given.iter().skip(1) {
        let why = "may not specify more than 1 handler type";
        errors.push(FieldError::forbidden(format!("{path}.{extra}"), why));
    }
    if handler["exec"].is_object() && handler["exec"]["command"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(format!("{path}.exec.command"), ""));
    }
    for kind in ["httpGet", "tcpSocket"] {
        if handler[kind].is_object() {
            errors.extend(port::number_or_name(&format!("{path}.{kind}.port"), &handler[kind]["port"]));
        }
    }
    let scheme = &handler["httpGet"]["scheme"];
    if scheme.as_str().is_some_and(|s| !matches!(s, "HTTP" | "HTTPS")) {
        errors.push(FieldError::not_supported(format!("{path}.httpGet.scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    if handler["grpc"].is_object() {
        errors.extend(port::number(format!("{path}.grpc.port"), &handler["grpc"]["port"]));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(container: Value) -> Vec<String> {
        let spec = json!({"containers": [container]});
        all("spec", &spec, &BTreeSet::from(["data"]))
            .into_iter()
            .map(|e| format!("{}: {}", e.path, e.message))
            .collect()
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        assert_eq!(
            words(json!({})),
            ["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"]
        );
        let container = |field: &str, value: Value| {
            let mut container = json!({"name": "a", "image": "x"});
            container[field] = value;
            words(container)
        };
        assert_eq!(
            container("ports", json!([{"containerPort": 70000, "protocol": "TCP"}])),
            ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"]
        );
        assert_eq!(
            container("volumeMounts", json!([{"name": "other", "mountPath": "/x"}])),
            ["spec.containers[0].volumeMounts[0].name: Not found: \"other\""]
        );
        assert!(container("volumeMounts", json!([{"name": "data", "mountPath": "/x"}])).is_empty());
        assert_eq!(
            container("livenessProbe", json!({"httpGet": {"port": 80}, "exec": {"command": ["x"]}})),
            ["spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type"]
        );
        assert_eq!(
            container("resources", json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}})),
            [
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1500m"
            ]
        );
        assert_eq!(container("resources", json!({"limits": {"memory": "lots"}})).len(), 1);
        assert!(container("env", json!([{"name": "data-1", "value": "x"}, {"name": "A.b"}])).is_empty());
        assert_eq!(container("env", json!([{"name": "a=b"}])).len(), 1);
        assert_eq!(container("env", json!([{"name": "A", "valueFrom": {}}])).len(), 1);
    }

    #[test]
    fn only_a_privileged_container_shows_its_mounts_to_the_host() {
        let words = |propagation: &str, privileged: Value| {
            let mount = json!({"name": "data", "mountPath": "/x", "mountPropagation": propagation});
            words(json!({"name": "a", "image": "x", "securityContext": privileged, "volumeMounts": [mount]}))
        };
        let (privileged, plain) = (json!({"privileged": true}), json!({"privileged": false}));
        let forbidden = "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation \
                         is available only to privileged containers";
        assert_eq!(words("Bidirectional", plain), [forbidden]);
        assert_eq!(words("Bidirectional", Value::Null), [forbidden]);
        assert_eq!(words("Bidirectional", privileged), [""; 0]);
        assert_eq!(words("HostToContainer", Value::Null), [""; 0]);
        assert_eq!(
            words("Both", Value::Null),
            ["spec.containers[0].volumeMounts.mountPropagation: Unsupported value: \"Both\": supported values: \
                 \"Bidirectional\", \"HostToContainer\", \"None\""]
        );
    }
}
