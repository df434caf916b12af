//! What probes and lifecycle hooks of a container do.

use serde_json::{Value, json};

use crate::kinds::{
    FieldError,
    field::child,
    port,
    reading::{is_empty, items, text},
};

/// Reasons against the probes of a container.
pub fn probes(path: &str, container: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if !container[name].is_null() {
            errors.extend(probe(&child(path, name), &container[name], name == "readinessProbe"));
        }
    }
    errors
}

fn probe(path: &str, probe: &Value, readiness: bool) -> Vec<FieldError> {
    let mut errors = handler(path, probe, &["exec", "httpGet", "tcpSocket", "grpc"], None);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.extend(FieldError::negative(child(path, field), &probe[field]));
    }
    let (grace, threshold) = (&probe["terminationGracePeriodSeconds"], &probe["successThreshold"]);
    let path_of_grace = child(path, "terminationGracePeriodSeconds");
    if grace.as_i64().is_some_and(|grace| grace <= 0) {
        errors.push(FieldError::invalid(&path_of_grace, grace, "must be greater than 0"));
    }
    if readiness && !grace.is_null() {
        errors.push(FieldError::invalid(path_of_grace, grace, "must not be set for readinessProbes"));
    }
    if !readiness && threshold.as_i64().is_some_and(|n| n != 1) {
        errors.push(FieldError::invalid(child(path, "successThreshold"), threshold, "must be 1"));
    }
    errors
}

/// Reasons against the hooks of a container whose pod ends within `grace` seconds.
pub fn lifecycle(path: &str, lifecycle: &Value, grace: Option<i64>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for hook in ["postStart", "preStop"] {
        if !lifecycle[hook].is_null() {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            errors.extend(handler(&child(path, hook), &lifecycle[hook], &kinds, grace));
        }
    }
    errors
}

/// One of `kinds` exactly.
fn handler(path: &str, handler: &Value, kinds: &[&str], grace: Option<i64>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut found = false;
    for kind in kinds.iter().filter(|kind| !handler[**kind].is_null()) {
        let path = child(path, kind);
        if found {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
        } else {
            errors.extend(action(&path, kind, &handler[*kind], grace));
        }
        found = true;
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    errors
}

fn action(path: &str, kind: &str, action: &Value, grace: Option<i64>) -> Vec<FieldError> {
    match kind {
        "exec" if is_empty(&action["command"]) => vec![FieldError::required(child(path, "command"), "")],
        "httpGet" => http_get(path, action),
        "tcpSocket" => port::number_or_name(&child(path, "port"), &action["port"]),
        "grpc" => port::number(child(path, "port"), &json!(action["port"].as_i64().unwrap_or(0))).into_iter().collect(),
        "sleep" => sleep(path, &action["seconds"], grace).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn http_get(path: &str, get: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = FieldError::missing(child(path, "path"), &get["path"]).into_iter().collect();
    errors.extend(port::number_or_name(&child(path, "port"), &get["port"]));
    let schemes = ["HTTP", "HTTPS"];
    if !schemes.contains(&text(get, "scheme")) {
        errors.push(FieldError::not_supported(child(path, "scheme"), &get["scheme"], &schemes));
    }
    for header in items(&get["httpHeaders"]) {
        errors.extend(FieldError::each(child(path, "httpHeaders"), &json!(text(header, "name")), header_name));
    }
    errors
}

fn header_name(text: &str) -> Vec<String> {
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
               validation is '[-A-Za-z0-9]+')";
    if valid { Vec::new() } else { vec![why.to_owned()] }
}

fn sleep(path: &str, seconds: &Value, grace: Option<i64>) -> Option<FieldError> {
    let (asked, grace) = (seconds.as_i64().unwrap_or_default(), grace?);
    let wrong = asked < 0 || asked > grace;
    let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
    wrong.then(|| FieldError::invalid(path, &json!(asked), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_probe_does_one_thing() {
        let get = json!({"path": "/", "port": 80, "scheme": "HTTP"});
        assert_eq!(probes("c", &json!({"livenessProbe": {"httpGet": get, "successThreshold": 1}})), []);
        assert_eq!(
            words(probes("c", &json!({"livenessProbe": {"httpGet": get, "exec": {}, "successThreshold": 2}}))),
            [
                "c.livenessProbe.exec.command: Required value",
                "c.livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
                "c.livenessProbe.successThreshold: Invalid value: 2: must be 1"
            ]
        );
        assert_eq!(
            words(probes("c", &json!({"readinessProbe": {"terminationGracePeriodSeconds": 5}}))),
            [
                "c.readinessProbe: Required value: must specify a handler type",
                "c.readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes"
            ]
        );
        let bad = json!({"path": "/", "port": "http--", "scheme": "FTP", "httpHeaders": [{"name": "a b"}]});
        assert_eq!(probes("c", &json!({"startupProbe": {"httpGet": bad}})).len(), 4);
    }

    #[test]
    fn a_hook_sleeps_no_longer_than_the_pod_has() {
        let hook = |seconds: i64| json!({"preStop": {"sleep": {"seconds": seconds}}});
        assert_eq!(lifecycle("l", &hook(30), Some(30)), []);
        assert_eq!(
            words(lifecycle("l", &hook(31), Some(30))),
            [
                "l.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"
            ]
        );
    }
}
