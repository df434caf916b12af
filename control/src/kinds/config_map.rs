//! ConfigMap: text and binary data by key.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{BuiltIn, Cell, Column, FieldError, Storage};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    default: |_| {},
    validate,
    prepare: |_, _| {},
    columns: &[Column::name(), Column::integer("Data", "Number of keys, text and binary."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::integer(count(&o["data"]) + count(&o["binaryData"])), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.ConfigMap",
    ..BuiltIn::PLAIN
};

fn count(map: &Value) -> i64 {
    map.as_object().map_or(0, |m| m.len() as i64)
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in new[field].as_object().into_iter().flatten() {
            errors.extend(data_key(&format!("{field}[{key}]"), key));
            let text = value.as_str().unwrap_or_default();
            size += if field == "data" { text.len() } else { text.len() / 4 * 3 };
            if field == "binaryData" && !new["data"][key].is_null() {
                let why = "duplicate of key present in data";
                errors.push(FieldError::invalid(format!("{field}[{key}]"), &Value::from(key.as_str()), why));
            }
        }
    }
    if size > MAX_DATA {
        errors.push(FieldError::too_long("", MAX_DATA));
    }
    if let Some(old) = old {
        errors.extend(immutable(new, old, &["data", "binaryData"]));
    }
    errors
}

/// Bytes of all values of a ConfigMap or a Secret together.
pub const MAX_DATA: usize = 1 << 20;

/// Keys become file names and environment variables.
pub fn data_key(path: &str, key: &str) -> Option<FieldError> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let why = match key {
        "." => "must not be '.'".to_owned(),
        ".." => "must not be '..'".to_owned(),
        _ if key.starts_with("..") => "must not start with '..'".to_owned(),
        _ if key.len() > 253 => "must be no more than 253 characters".to_owned(),
        _ if key.is_empty() || !key.bytes().all(valid) => "a valid config key must consist of alphanumeric characters, '-', \
            '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            .to_owned(),
        _ => return None,
    };
    Some(FieldError::invalid(path, &Value::from(key), why))
}

/// What `immutable: true` forbids, of a ConfigMap or a Secret.
pub fn immutable(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    const WHY: &str = "field is immutable when `immutable` is set";
    if old["immutable"] != true {
        return Vec::new();
    }
    let content = |v: &Value| v.as_object().filter(|m| !m.is_empty()).cloned();
    let mut errors = Vec::new();
    if new["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", WHY));
    }
    let changed = fields.iter().filter(|field| content(&new[**field]) != content(&old[**field]));
    errors.extend(changed.map(|field| FieldError::forbidden(*field, WHY)));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_file_names() {
        assert!(data_key("data[a.b_c-D]", "a.b_c-D").is_none());
        for key in ["", "a b", "a/b", ".", "..", "..a"] {
            assert!(data_key("data", key).is_some(), "{key}");
        }
    }

    #[test]
    fn what_is_immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "b"}});
        assert_eq!(validate(&old, Some(&old)), []);
        let errors = validate(&json!({"data": {"a": "c"}}), Some(&old));
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["immutable", "data"]);
    }
}
