//! The environment of a container, and the fields and resources that it and volumes can tell of.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kinds::{
    FieldError,
    field::{child, item},
    names,
    quantity::Quantity,
    reading::{items, text},
    volume_source::{backsteps, required},
};

/// What an environment variable can tell of its pod.
const ENVIRONMENT_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What a file can tell of its pod.
pub const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// What a field path can name at all, before the place where it stands is looked at.
const CONVERTIBLE: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Reasons against environment variables.
pub fn variables(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, variable) in items(list).enumerate() {
        let path = item(path, i);
        match text(variable, "name") {
            "" => errors.push(FieldError::required(child(&path, "name"), "")),
            _ => errors.extend(FieldError::each(child(&path, "name"), &variable["name"], names::environment_variable)),
        }
        if !variable["valueFrom"].is_null() {
            errors.extend(value_from(&child(&path, "valueFrom"), variable));
        }
    }
    errors
}

/// Reasons against a source of a value, at its path.
type Check = fn(&str, &Value) -> Vec<FieldError>;

fn value_from(path: &str, variable: &Value) -> Vec<FieldError> {
    let source = &variable["valueFrom"];
    let mut errors = Vec::new();
    let kinds: [(&str, Check); 5] = [
        ("fieldRef", |path, field| field_ref(path, field, &ENVIRONMENT_FIELDS)),
        ("resourceFieldRef", |path, field| resource_ref(path, field, false)),
        ("configMapKeyRef", key_ref),
        ("secretKeyRef", key_ref),
        ("fileKeyRef", file_ref),
    ];
    let mut given = 0;
    for (kind, validate) in kinds.iter().filter(|(kind, _)| !source[*kind].is_null()) {
        given += 1;
        errors.extend(validate(&child(path, kind), &source[*kind]));
    }
    let why = match given {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !text(variable, "value").is_empty() => "may not be specified when `value` is not empty",
        1 => return errors,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(path, &json!(""), why));
    errors
}

/// Reasons against a reference to a field of the pod; `known` are those that can be told there.
pub fn field_ref(path: &str, reference: &Value, known: &[&str]) -> Vec<FieldError> {
    for field in ["apiVersion", "fieldPath"] {
        if text(reference, field).is_empty() {
            return vec![FieldError::required(child(path, field), "")];
        }
    }
    let (version, whole) = (text(reference, "apiVersion"), text(reference, "fieldPath"));
    let subscripted = whole.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let field = match subscripted.map_or(whole, |(field, _)| field) {
        // As clients of the earliest versions say it.
        "spec.host" => "spec.nodeName",
        field => field,
    };
    let convertible = match subscripted {
        Some(_) => matches!(field, "metadata.annotations" | "metadata.labels"),
        None => CONVERTIBLE.contains(&field),
    };
    let unsupported = if version != "v1" {
        Some(format!("unsupported pod version: {version}"))
    } else if subscripted.is_some() && !convertible {
        Some(format!("field label does not support subscript: {whole}"))
    } else {
        (!convertible).then(|| format!("field label not supported: {whole}"))
    };
    if let Some(why) = unsupported {
        let why = format!("error converting fieldPath: {why}");
        return vec![FieldError::invalid(child(path, "fieldPath"), &reference["fieldPath"], why)];
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            FieldError::each(path, &json!(key.to_lowercase()), names::qualified_name)
        }
        Some((_, key)) => FieldError::each(path, &json!(key), names::qualified_name),
        None if known.contains(&field) => Vec::new(),
        None => {
            let mut known = known.to_vec();
            known.sort_unstable();
            vec![FieldError::not_supported(child(path, "fieldPath"), &json!(field), &known)]
        }
    }
}

/// Reasons against a reference to a container's resources. A file must name the container.
pub fn resource_ref(path: &str, reference: &Value, in_file: bool) -> Vec<FieldError> {
    let resource = text(reference, "resource");
    let pages = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    let mut errors = Vec::new();
    if in_file && text(reference, "containerName").is_empty() {
        errors.push(FieldError::required(child(path, "containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(child(path, "resource"), ""));
    } else if !RESOURCES.contains(&resource) && !pages {
        errors.push(FieldError::not_supported(child(path, "resource"), &reference["resource"], &RESOURCES));
    }
    let divisor = Quantity::of(&reference["divisor"]).unwrap_or(Quantity::ZERO);
    let what = match resource.split_once('.').map(|(_, what)| what) {
        Some("cpu") => "cpu",
        Some("memory") => "memory",
        Some("ephemeral-storage") => "local ephemeral storage",
        _ if pages => "hugepages",
        _ => return errors,
    };
    const SIZES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (values, told): (&[&str], &str) = match what {
        "cpu" => (&["1m", "1"], "1m and 1"),
        _ => (&SIZES, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"),
    };
    if divisor != Quantity::ZERO && !values.contains(&divisor.to_string().as_str()) {
        let why = format!("only divisor's values {told} are supported with the {what} resource");
        errors.push(FieldError::invalid(child(path, "divisor"), &json!(resource), why));
    }
    errors
}

fn key_ref(path: &str, reference: &Value) -> Vec<FieldError> {
    let mut errors = FieldError::each(child(path, "name"), &json!(text(reference, "name")), names::subdomain);
    match text(reference, "key") {
        "" => errors.push(FieldError::required(child(path, "key"), "")),
        _ => errors.extend(FieldError::each(child(path, "key"), &reference["key"], names::config_key)),
    }
    errors
}

fn file_ref(path: &str, reference: &Value) -> Vec<FieldError> {
    let mut errors = required(path, reference, &["key", "volumeName", "path"]);
    if !text(reference, "key").is_empty() {
        errors.extend(FieldError::each(child(path, "key"), &reference["key"], names::environment_variable));
    }
    if !text(reference, "volumeName").is_empty() {
        errors.extend(FieldError::each(child(path, "volumeName"), &reference["volumeName"], names::label));
    }
    errors.extend(backsteps(&child(path, "path"), &reference["path"]));
    errors
}

/// Reasons against the ConfigMaps and Secrets that a container takes its environment from.
pub fn sources(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, source) in items(list).enumerate() {
        let path_of_source = item(path, i);
        if !text(source, "prefix").is_empty() {
            let path = child(&path_of_source, "prefix");
            errors.extend(FieldError::each(path, &source["prefix"], names::environment_variable));
        }
        let mut given = 0;
        for kind in ["configMapRef", "secretRef"].into_iter().filter(|kind| !source[*kind].is_null()) {
            given += 1;
            let path = format!("{path_of_source}.{kind}.name");
            match text(&source[kind], "name") {
                "" => errors.push(FieldError::required(path, "")),
                _ => errors.extend(FieldError::each(path, &source[kind]["name"], names::subdomain)),
            }
        }
        let why = match given {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(path, &json!(""), why));
    }
    errors
}

/// Reasons against the files of a container's environment: they are in volumes that are empty at first.
pub fn file_volumes(path: &str, container: &Value, volumes: &Value) -> Vec<FieldError> {
    let known: BTreeSet<&str> = items(volumes).map(|volume| text(volume, "name")).collect();
    let empty: BTreeSet<&str> =
        items(volumes).filter(|volume| !volume["emptyDir"].is_null()).map(|volume| text(volume, "name")).collect();
    let mut errors = Vec::new();
    for (i, variable) in items(&container["env"]).enumerate() {
        let reference = &variable["valueFrom"]["fileKeyRef"];
        if reference.is_null() {
            continue;
        }
        let path = format!("{path}.env[{i}].valueFrom.fileKeyRef.volumeName");
        let name = text(reference, "volumeName");
        if !known.contains(name) {
            errors.push(FieldError::not_found(path, &json!(name)));
        } else if !empty.contains(name) {
            let why = "referenced volume must be of type emptyDir";
            errors.push(FieldError::invalid(path, &json!(name), why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(variable: Value) -> Vec<String> {
        variables("e", &json!([variable])).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    fn field(path: &str) -> Vec<String> {
        words(json!({"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}))
    }

    #[test]
    fn a_variable_has_one_value() {
        for good in [
            json!({"name": "A"}),
            json!({"name": "a.b-c d", "value": "x"}),
            json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
            json!({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}),
        ] {
            assert_eq!(words(good.clone()), Vec::<String>::new(), "{good}");
        }
        assert_eq!(words(json!({"value": "x"})), ["e[0].name: Required value"]);
        assert_eq!(
            words(json!({"name": "A", "value": "x", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}})),
            ["e[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"]
        );
        assert_eq!(
            words(json!({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}})),
            [
                "e[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.gpu\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\""
            ]
        );
        assert_eq!(
            words(json!({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}})),
            [
                "e[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource"
            ]
        );
    }

    #[test]
    fn fields_of_the_pod_are_named_by_path() {
        for good in ["metadata.name", "status.podIP", "metadata.labels['app']", "metadata.annotations['A.b/C']"] {
            assert_eq!(field(good), Vec::<String>::new(), "{good}");
        }
        let path = "e[0].valueFrom.fieldRef";
        assert_eq!(
            field("spec.containers"),
            [format!(
                "{path}.fieldPath: Invalid value: \"spec.containers\": error converting fieldPath: field label not supported: spec.containers"
            )]
        );
        assert!(
            field("metadata.labels")[0]
                .starts_with(&format!("{path}.fieldPath: Unsupported value: \"metadata.labels\""))
        );
        assert_eq!(
            field("metadata.name['x']"),
            [format!(
                "{path}.fieldPath: Invalid value: \"metadata.name['x']\": error converting fieldPath: field label does not support subscript: metadata.name['x']"
            )]
        );
        assert!(field("metadata.labels['a b']")[0].starts_with(&format!("{path}: Invalid value: \"a b\"")));
    }

    #[test]
    fn files_of_the_environment_are_in_empty_volumes() {
        let container = json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef":
            {"key": "K", "path": "env", "volumeName": "v"}}}]});
        assert_eq!(file_volumes("c", &container, &json!([{"name": "v", "emptyDir": {}}])), []);
        assert_eq!(file_volumes("c", &container, &json!([{"name": "v", "hostPath": {"path": "/"}}])).len(), 1);
        assert_eq!(file_volumes("c", &container, &json!([])).len(), 1);
    }
}
