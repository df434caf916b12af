//! Validation of the volumes of a pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::containers::descends;
use crate::kinds::{FieldError, names};

/// Reasons against all volumes, and the names there are.
pub fn all<'a>(path: &str, volumes: &'a Value) -> (Vec<FieldError>, BTreeSet<&'a str>) {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, volume) in volumes.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        match volume["name"].as_str() {
            None | Some("") => errors.push(FieldError::required(format!("{path}.name"), "")),
            Some(name) => {
                let wrong = names::label(name).into_iter();
                errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.name"), &volume["name"], why)));
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(format!("{path}.name"), &volume["name"]));
                }
            }
        }
        errors.extend(source(&path, volume));
    }
    (errors, seen)
}

fn source(path: &str, volume: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let fields = volume.as_object().into_iter().flatten();
    let sources: Vec<&String> = fields.filter(|(k, v)| *k != "name" && !v.is_null()).map(|(k, _)| k).collect();
    if sources.is_empty() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    for extra in sources.iter().skip(1) {
        errors.push(FieldError::forbidden(format!("{path}.{extra}"), "may not specify more than 1 volume type"));
    }
    for (kind, field) in [("configMap", "name"), ("secret", "secretName"), ("hostPath", "path"), ("nfs", "server")] {
        if volume[kind].is_object() && volume[kind][field].as_str().is_none_or(str::is_empty) {
            errors.push(FieldError::required(format!("{path}.{kind}.{field}"), ""));
        }
    }
    let host_path = &volume["hostPath"]["path"];
    if host_path.as_str().is_some_and(|p| p.split('/').any(|part| part == "..")) {
        errors.push(FieldError::invalid(format!("{path}.hostPath.path"), host_path, "must not contain '..'"));
    }
    const HOST_PATH_TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let host_path_type = &volume["hostPath"]["type"];
    if host_path_type.as_str().is_some_and(|t| !HOST_PATH_TYPES.contains(&t)) {
        errors.push(FieldError::not_supported(format!("{path}.hostPath.type"), host_path_type, &HOST_PATH_TYPES[1..]));
    }
    for kind in ["configMap", "secret", "downwardAPI", "projected"] {
        let path = format!("{path}.{kind}");
        errors.extend(mode(&format!("{path}.defaultMode"), &volume[kind]["defaultMode"]));
        errors.extend(items(&path, &volume[kind]["items"], kind != "downwardAPI"));
    }
    for (i, projection) in volume["projected"]["sources"].as_array().into_iter().flatten().enumerate() {
        for kind in ["configMap", "secret", "downwardAPI"] {
            let path = format!("{path}.projected.sources[{i}].{kind}");
            errors.extend(items(&path, &projection[kind]["items"], kind != "downwardAPI"));
        }
    }
    errors
}

fn items(path: &str, items: &Value, keyed: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, item) in items.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.items[{i}]");
        for field in if keyed { &["key", "path"][..] } else { &["path"][..] } {
            if item[*field].as_str().is_none_or(str::is_empty) {
                errors.push(FieldError::required(format!("{path}.{field}"), ""));
            }
        }
        errors.extend(descends(&format!("{path}.path"), &item["path"]));
        errors.extend(mode(&format!("{path}.mode"), &item["mode"]));
    }
    errors
}

fn mode(path: &str, value: &Value) -> Option<FieldError> {
    let valid = value.as_i64().is_none_or(|mode| (0..=0o777).contains(&mode));
    let why = "must be a number between 0 and 0777 (octal), both inclusive";
    (!valid).then(|| FieldError::invalid(path, value, why))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_has_one_name_and_one_source() {
        let volumes = json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}, {"name": "a", "configMap": {}},
            {"name": "b", "hostPath": {"path": "/x/../y"}}]);
        let words: Vec<String> =
            all("spec.volumes", &volumes).0.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(
            words,
            [
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[1].name: Duplicate value: \"a\"",
                "spec.volumes[1].configMap.name: Required value",
                "spec.volumes[2].hostPath.path: Invalid value: \"/x/../y\": must not contain '..'",
            ]
        );
        let plain = json!([{"name": "a", "emptyDir": {}}]);
        assert_eq!(all("spec.volumes", &plain), (Vec::new(), BTreeSet::from(["a"])));
    }
}
