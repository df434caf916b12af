//! Ingress: which Service answers HTTP requests for which host and path.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::{GROUP, typed_reference};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, port, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    subresources: &["status"],
    validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({"loadBalancer": {}}));
        prepare::count_generation(new, old);
    },
    columns: &[
        Column::name(),
        Column::text("Class", "The name of the IngressClass resource that should be used for additional configuration"),
        Column::text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
        Column::text("Address", "Address is a list containing ingress points for the load-balancer"),
        Column::text("Ports", "Ports of TLS configurations that open"),
        Column::age(),
    ],
    cells: |object| {
        let spec = &object["spec"];
        vec![
            Cell::name(object),
            Cell::text(spec["ingressClassName"].as_str().unwrap_or("<none>")),
            Cell::text(hosts(items(spec, "rules"))),
            Cell::text(addresses(items(&object["status"]["loadBalancer"], "ingress"))),
            Cell::text(if items(spec, "tls").is_empty() { "80" } else { "80, 443" }),
            Cell::age(object),
        ]
    },
    schema: "io.k8s.api.networking.v1.Ingress",
    ..BuiltIn::PLAIN
};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// How many hosts a cell shows.
const SHOWN: usize = 3;

fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn hosts(rules: &[Value]) -> String {
    let named =
        || rules.iter().enumerate().map(|(i, rule)| (i, text(rule, "host"))).filter(|(_, host)| !host.is_empty());
    let shown: Vec<(usize, &str)> = named().take(SHOWN).collect();
    let list = shown.iter().map(|(_, host)| *host).collect::<Vec<_>>().join(",");
    match shown.last() {
        None => "*".to_owned(),
        Some((last, _)) if shown.len() == SHOWN && last + 1 < rules.len() => {
            format!("{list} + {} more...", rules.len() - SHOWN)
        }
        Some(_) => list,
    }
}

fn addresses(points: &[Value]) -> String {
    let of = |point| Some(text(point, "ip")).filter(|ip| !ip.is_empty()).unwrap_or_else(|| text(point, "hostname"));
    let all: BTreeSet<&str> = points.iter().map(of).filter(|address| !address.is_empty()).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = Vec::new();
    let backend = &spec["defaultBackend"];
    if items(spec, "rules").is_empty() && backend.is_null() {
        let rules = Value::Array(items(spec, "rules").to_vec());
        let shown = if spec["rules"].is_null() { &Value::Null } else { &rules };
        errors.push(FieldError::invalid("spec", shown, "either `defaultBackend` or `rules` must be specified"));
    }
    if !backend.is_null() {
        errors.extend(backend_errors("spec.defaultBackend", backend));
    }
    for (i, rule) in items(spec, "rules").iter().enumerate() {
        errors.extend(rule_errors(&format!("spec.rules[{i}]"), rule));
    }
    for (i, tls) in items(spec, "tls").iter().enumerate() {
        errors.extend(tls_errors(&format!("spec.tls[{i}]"), tls));
    }
    let class = &spec["ingressClassName"];
    if let Some(name) = class.as_str() {
        errors.extend(FieldError::invalid_each("spec.ingressClassName", class, names::subdomain(name)));
    }
    let annotation = &new["metadata"]["annotations"][CLASS_ANNOTATION];
    if old.is_none() && annotation.is_string() && class.is_string() && annotation != class {
        let why = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(format!("annotations.{CLASS_ANNOTATION}"), annotation, why));
    }
    for (i, point) in items(&new["status"]["loadBalancer"], "ingress").iter().enumerate() {
        errors.extend(point_errors(&format!("status.loadBalancer.ingress[{i}]"), point));
    }
    errors
}

/// An address at which a load balancer serves the Ingress.
fn point_errors(path: &str, point: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (ip, host) = (text(point, "ip"), text(point, "hostname"));
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(format!("{path}.ip"), &point["ip"], why));
    }
    if !host.is_empty() {
        let path = format!("{path}.hostname");
        errors.extend(FieldError::invalid_each(&path, &point["hostname"], names::subdomain(host)));
        errors.extend(not_an_address(path, &point["hostname"]));
    }
    errors
}

fn not_an_address(path: String, host: &Value) -> Option<FieldError> {
    let is_address = host.as_str().is_some_and(|host| host.parse::<IpAddr>().is_ok());
    is_address.then(|| FieldError::invalid(path, host, "must be a DNS name, not an IP address"))
}

fn host_name(host: &str) -> Vec<String> {
    if host.contains('*') { names::wildcard_subdomain(host) } else { names::subdomain(host) }
}

fn rule_errors(path: &str, rule: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let host = text(rule, "host");
    if !host.is_empty() {
        let path = format!("{path}.host");
        errors.extend(not_an_address(path.clone(), &rule["host"]));
        errors.extend(FieldError::invalid_each(path, &rule["host"], host_name(host)));
    }
    if rule["http"].is_null() {
        return errors;
    }
    let paths = items(&rule["http"], "paths");
    if paths.is_empty() {
        errors.push(FieldError::required(format!("{path}.http.paths"), ""));
    }
    for (i, entry) in paths.iter().enumerate() {
        errors.extend(path_errors(&format!("{path}.http.paths[{i}]"), entry));
    }
    errors
}

fn path_errors(path: &str, entry: &Value) -> Vec<FieldError> {
    const TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
    let mut errors = Vec::new();
    let given = match &entry["path"] {
        Value::Null => &json!(""),
        given => given,
    };
    let at = given.as_str().unwrap_or_default();
    let mut wrong = |why: String| errors.push(FieldError::invalid(format!("{path}.path"), given, why));
    match entry["pathType"].as_str() {
        None => return vec![FieldError::required(format!("{path}.pathType"), "pathType must be specified")],
        Some("Exact" | "Prefix") => {
            if !at.starts_with('/') {
                wrong("must be an absolute path".into());
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| at.contains(part)) {
                wrong(format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|end| at.ends_with(end)) {
                wrong(format!("cannot end with '{end}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !at.is_empty() && !at.starts_with('/') {
                wrong("must be an absolute path".into());
            }
        }
        Some(_) => errors.push(FieldError::not_supported(format!("{path}.pathType"), &entry["pathType"], &TYPES)),
    }
    errors.extend(backend_errors(&format!("{path}.backend"), &entry["backend"]));
    errors
}

fn backend_errors(path: &str, backend: &Value) -> Vec<FieldError> {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    let wrong = |why: &str| vec![FieldError::invalid(path, &json!(""), why)];
    match (resource.is_null(), service.is_null()) {
        (false, false) => wrong("cannot set both resource and service backends"),
        (false, true) => typed_reference(&format!("{path}.resource"), resource),
        (true, true) => wrong("resource or service backend is required"),
        (true, false) => service_errors(path, service),
    }
}

/// `path` is that of the backend.
fn service_errors(path: &str, service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name_path = format!("{path}.service.name");
    match text(service, "name") {
        "" => errors.push(FieldError::required(name_path, "")),
        name => errors.extend(FieldError::invalid_each(name_path, &service["name"], names::label_1035(name))),
    }
    let (name, number) = (text(&service["port"], "name"), &service["port"]["number"]);
    let has_number = number.as_i64().is_some_and(|number| number != 0);
    match (name.is_empty(), has_number) {
        (false, true) => errors.push(FieldError::invalid(path, &json!(""), "cannot set both port name & port number")),
        (false, false) => errors.extend(port::name(&format!("{path}.service.port.name"), name)),
        (true, true) => errors.extend(port::number(format!("{path}.service.port.number"), number)),
        (true, false) => errors.push(FieldError::required(path, "port name or number is required")),
    }
    errors
}

fn tls_errors(path: &str, tls: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, host) in items(tls, "hosts").iter().enumerate() {
        let wrong = host_name(host.as_str().unwrap_or_default());
        errors.extend(FieldError::invalid_each(format!("{path}.hosts[{i}]"), host, wrong));
    }
    let secret = text(tls, "secretName");
    if !secret.is_empty() {
        let wrong = names::subdomain(secret);
        errors.extend(FieldError::invalid_each(format!("{path}.secretName"), &tls["secretName"], wrong));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(spec: Value) -> Vec<String> {
        let errors = validate(&json!({"spec": spec}), None);
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    fn rule(host: &str, path: &str, path_type: &str) -> Value {
        json!({"host": host, "http": {"paths": [{"path": path, "pathType": path_type,
            "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}})
    }

    #[test]
    fn usual_ingresses_are_valid() {
        let backend = json!({"service": {"name": "web", "port": {"name": "http"}}});
        for spec in [
            json!({"defaultBackend": backend}),
            json!({"rules": [rule("a.example.com", "/", "Prefix"), rule("*.b.com", "", "ImplementationSpecific")]}),
            json!({"rules": [{"host": "a.b"}], "tls": [{"hosts": ["*.a.b", "a.b"], "secretName": "s"}]}),
            json!({"defaultBackend": {"resource": {"apiGroup": "a.io", "kind": "Bucket", "name": "b"}}}),
        ] {
            assert_eq!(words(spec.clone()), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        let one = |rule: Value| words(json!({"rules": [rule]}));
        assert_eq!(
            words(json!({})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        assert_eq!(
            one(rule("10.0.0.1", "a//b", "Exact")),
            [
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
            ]
        );
        assert_eq!(
            one(json!({"http": {"paths": [{"path": "/"}]}})),
            ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
        );
        assert_eq!(one(json!({"http": {"paths": []}})), ["spec.rules[0].http.paths: Required value"]);
        assert_eq!(
            one(rule("a.b", "/", "Regex")),
            ["spec.rules[0].http.paths[0].pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \
                 \"ImplementationSpecific\", \"Prefix\""]
        );
        assert_eq!(
            words(json!({"defaultBackend": {"service": {"name": "", "port": {"name": "a", "number": 1}}}})),
            [
                "spec.defaultBackend.service.name: Required value",
                "spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number"
            ]
        );
    }

    #[test]
    fn a_row_shows_three_hosts_and_every_address() {
        let rules: Vec<Value> = ["a", "b", "c", "d"].map(|host| json!({"host": host})).into();
        assert_eq!(hosts(&rules), "a,b,c + 1 more...");
        assert_eq!(hosts(&rules[..3]), "a,b,c");
        assert_eq!(hosts(&[json!({})]), "*");
        assert_eq!(
            addresses(&[json!({"ip": "10.0.0.2"}), json!({"hostname": "lb.example.com"})]),
            "10.0.0.2,lb.example.com"
        );
    }

    #[test]
    fn an_annotation_does_not_contradict_the_class() {
        let ingress = json!({"metadata": {"annotations": {CLASS_ANNOTATION: "a"}},
            "spec": {"ingressClassName": "b", "rules": [{"host": "a.b"}]}});
        assert_eq!(validate(&ingress, None)[0].path, "annotations.kubernetes.io/ingress.class");
        assert_eq!(validate(&ingress, Some(&ingress)), []);
    }
}
