//! ConfigMap: text and binary data by key.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{BuiltIn, Cell, Column, FieldError, FixedMap, GoMemory, Storage, names, reading::entries};

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
    go_memory: GoMemory {
        fixed_maps: &[fixed_where_immutable("data"), fixed_where_immutable("binaryData")],
        ..GoMemory::PLAIN
    },
    prepare: |_, _| {},
    columns: &[Column::name(), Column::text("Data", "Number of keys, text and binary."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::integer(count(&o["data"]) + count(&o["binaryData"])), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.ConfigMap",
    ..BuiltIn::PLAIN
};

/// Data that does not change once the object says that it is immutable.
pub const fn fixed_where_immutable(field: &'static str) -> FixedMap {
    FixedMap {
        field,
        why: "field is immutable when `immutable` is set",
        is_fixed: |old| matches!(old["immutable"], Value::Bool(true)),
    }
}

fn count(map: &Value) -> i64 {
    map.as_object().map_or(0, |m| m.len() as i64)
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in entries(&new[field]) {
            let (path, name) = (format!("{field}[{key}]"), Value::from(key.as_str()));
            errors.extend(FieldError::each(&path, &name, names::config_key));
            let text = value.as_str().unwrap_or_default();
            size += if field == "data" { text.len() } else { text.len() / 4 * 3 };
            if field == "data" && !new["binaryData"][key].is_null() {
                errors.push(FieldError::invalid(path, &name, "duplicate of key present in binaryData"));
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
    fn a_key_is_a_file_name_and_is_there_once() {
        let errors = validate(&json!({"data": {"a/b": "", "c": ""}, "binaryData": {"c": ""}}), None);
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["data[a/b]", "data[c]"]);
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
