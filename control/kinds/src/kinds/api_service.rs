//! APIService: which server answers for a version of an API group: this one, or one behind a Service. The proxying
//! itself is not decided here.

use serde_json::{Value, json};

use super::{BuiltIn, Cell, Column, FieldError, group_priority, names, pod::defaults::fill, port, prepare};
use crate::rfc3339;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: group_priority::AGGREGATOR,
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &["status"],
    object_name: names::path_segment,
    default: |object| {
        if object["spec"]["service"].is_object() {
            fill(&mut object["spec"]["service"], "port", || json!(443));
        }
    },
    validate,
    prepare: |new, old| {
        let initial = match new["spec"]["service"].is_null() {
            true => json!({"conditions": [local_condition()]}),
            false => json!({}),
        };
        prepare::keep_status(new, old, initial);
    },
    columns: &[
        Column::name(),
        Column::text("Service", "The reference to the service that hosts this API endpoint."),
        Column::text("Available", "Whether this service is available."),
        Column::age(),
    ],
    cells: |object| {
        let service = &object["spec"]["service"];
        let service = match service.is_object() {
            true => format!("{}/{}", text(service, "namespace"), text(service, "name")),
            false => "Local".to_owned(),
        };
        vec![Cell::name(object), Cell::text(service), Cell::text(available(&object["status"])), Cell::age(object)]
    },
    schema: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// That this server answers itself.
fn local_condition() -> Value {
    json!({"type": "Available", "status": "True", "lastTransitionTime": rfc3339::now(), "reason": "Local",
        "message": "Local APIServices are always available"})
}

fn available(status: &Value) -> String {
    let condition = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Available");
    match condition.map(|condition| (text(condition, "status"), text(condition, "reason"))) {
        None => "Unknown".to_owned(),
        Some((status, reason)) if status == "True" || reason.is_empty() => status.to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    }
}

fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let mut errors = Vec::new();
    let required = format!("{version}.{group}");
    for field in ["generateName", "name"] {
        let name = &new["metadata"][field];
        let is_said = |name: &str| !name.is_empty() || field == "name";
        if name.as_str().is_some_and(|name| is_said(name) && names::path_segment(name).is_empty() && name != required) {
            let why = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.push(FieldError::invalid(format!("metadata.{field}"), name, why));
        }
    }
    if group.is_empty() && version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.push(FieldError::required("spec.group", why));
    }
    if !group.is_empty() {
        errors.extend(FieldError::invalid_each("spec.group", &spec["group"], names::subdomain(group)));
    }
    errors.extend(FieldError::invalid_each("spec.version", &version.into(), names::label_1035(version)));
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let number = spec[field].as_i64().unwrap_or(0);
        if !(1..=most).contains(&number) {
            let why = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(format!("spec.{field}"), &number.into(), why));
        }
    }
    errors.extend(server(spec));
    for (i, condition) in new["status"]["conditions"].as_array().into_iter().flatten().enumerate() {
        const STATES: [&str; 3] = ["True", "False", "Unknown"];
        if !STATES.contains(&text(condition, "status")) {
            let path = format!("status.conditions[{i}].status");
            errors.push(FieldError::not_supported(path, &condition["status"], &STATES));
        }
    }
    errors
}

/// Why the server of an APIService cannot be reached as it says.
fn server(spec: &Value) -> Vec<FieldError> {
    const INSECURE: &str = "spec.insecureSkipTLSVerify";
    let (service, bundle) = (&spec["service"], text(spec, "caBundle"));
    let insecure = spec["insecureSkipTLSVerify"] == true;
    let mut errors = Vec::new();
    if service.is_null() {
        if !bundle.is_empty() {
            // Base64: three bytes in four characters.
            let bytes = bundle.trim_end_matches('=').len() * 3 / 4;
            let shown = format!("{bytes} bytes");
            errors.push(FieldError::invalid(
                "spec.caBundle",
                &shown.into(),
                "local APIServices may not have a caBundle",
            ));
        }
        if insecure {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(INSECURE, &Value::Bool(true), why));
        }
        return errors;
    }
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            errors.push(FieldError::required(format!("spec.service.{field}"), ""));
        }
    }
    if port::number("spec.service.port", &service["port"]).is_some() {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid("spec.service.port", &service["port"], why));
    }
    if insecure && !bundle.is_empty() {
        errors.push(FieldError::invalid(INSECURE, &Value::Bool(true), "may not be true if caBundle is present"));
    }
    errors
}

/// The annotation's label on an APIService that the server makes at its start.
pub const AUTO_MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// The APIService of a version of a built-in group.
pub fn local(group: &str, version: &str, priority: group_priority::Priority) -> Value {
    let mut spec = json!({"version": version, "groupPriorityMinimum": priority.group,
        "versionPriority": priority.version});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec,
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTO_MANAGED: "onstart"}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(spec: Value) -> Vec<String> {
        let name = format!("{}.{}", text(&spec, "version"), text(&spec, "group"));
        let mut service = json!({"metadata": {"name": name}, "spec": spec});
        (KIND.default)(&mut service);
        validate(&service, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn the_built_in_groups_are_local_and_available() {
        for (group, version, priority) in group_priority::all() {
            let mut service = local(group, version, priority);
            (KIND.prepare)(&mut service, None);
            assert_eq!(validate(&service, None), [], "{service}");
            let cells = (KIND.cells)(&service);
            assert_eq!(cells[1..3], [Cell::text("Local"), Cell::text("True")]);
        }
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        let with = |fields: Value| {
            let mut spec =
                json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10});
            for (field, value) in fields.as_object().unwrap() {
                spec[field] = value.clone();
            }
            words(spec)
        };
        assert!(with(json!({"service": {"namespace": "a", "name": "b"}})).is_empty());
        assert_eq!(
            with(json!({"versionPriority": 0})),
            ["spec.versionPriority: Invalid value: 0: must be positive and less than 1000"]
        );
        assert_eq!(
            with(json!({"caBundle": "AAAA", "insecureSkipTLSVerify": true})),
            [
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ]
        );
        let both = json!({"service": {"name": "b", "port": 0}, "caBundle": "AAAA", "insecureSkipTLSVerify": true});
        assert_eq!(
            with(both),
            [
                "spec.service.namespace: Required value",
                "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ]
        );
        let named = json!({"metadata": {"name": "x"}, "spec": {"group": "a.io", "version": "v1",
            "groupPriorityMinimum": 1, "versionPriority": 1}});
        assert_eq!(
            validate(&named, None)[0].message,
            "Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.a.io\""
        );
        let mut generated = named;
        generated["metadata"]["generateName"] = "x-".into();
        let paths: Vec<String> = validate(&generated, None).into_iter().map(|error| error.path).collect();
        assert_eq!(paths, ["metadata.generateName", "metadata.name"]);
    }

    #[test]
    fn a_row_says_why_a_server_is_not_available() {
        let status = |status: &str, reason: &str| {
            available(&json!({"conditions": [{"type": "Available", "status": status, "reason": reason}]}))
        };
        assert_eq!(available(&json!({})), "Unknown");
        assert_eq!(status("True", "Passed"), "True");
        assert_eq!(status("False", "MissingEndpoints"), "False (MissingEndpoints)");
    }
}
