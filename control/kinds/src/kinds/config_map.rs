//! ConfigMap: text and binary data by key.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{BuiltIn, Cell, Column, FieldError, Storage, names, reading::entries};
use crate::schema::SentEmpties;

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
    validate_sent: Some(validate),
    prepare: |_, _| {},
    columns: &[Column::name(), Column::text("Data", "Number of keys, text and binary."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::integer(count(&o["data"]) + count(&o["binaryData"])), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.ConfigMap",
    ..BuiltIn::PLAIN
};

fn count(map: &Value) -> i64 {
    map.as_object().map_or(0, |m| m.len() as i64)
}

fn validate(new: &Value, old: Option<&Value>, empties: &SentEmpties) -> Vec<FieldError> {
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
        errors.extend(immutable(new, old, empties, &["data", "binaryData"]));
    }
    errors
}

/// Bytes of all values of a ConfigMap or a Secret together.
pub const MAX_DATA: usize = 1 << 20;

/// What `immutable: true` forbids, of a ConfigMap or a Secret: to send empty what is not there is a change, too.
pub fn immutable(new: &Value, old: &Value, empties: &SentEmpties, fields: &[&str]) -> Vec<FieldError> {
    const WHY: &str = "field is immutable when `immutable` is set";
    if old["immutable"] != true {
        return Vec::new();
    }
    let content = |v: &Value| v.as_object().filter(|m| !m.is_empty()).cloned();
    let mut errors = Vec::new();
    if new["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", WHY));
    }
    let is_changed = |field: &&&str| content(&new[**field]) != content(&old[**field]) || empties.is_new_at(field, old);
    errors.extend(fields.iter().filter(is_changed).map(|field| FieldError::forbidden(*field, WHY)));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use serde_json::json;

    #[test]
    fn a_key_is_a_file_name_and_is_there_once() {
        let errors =
            validate(&json!({"data": {"a/b": "", "c": ""}, "binaryData": {"c": ""}}), None, &SentEmpties::NONE);
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["data[a/b]", "data[c]"]);
    }

    #[test]
    fn what_is_immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "b"}});
        assert_eq!(validate(&old, Some(&old), &SentEmpties::NONE), []);
        let errors = validate(&json!({"data": {"a": "c"}}), Some(&old), &SentEmpties::NONE);
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["immutable", "data"]);
        for (immutable, expected) in
            [(true, vec!["binaryData: Forbidden: field is immutable when `immutable` is set"]), (false, vec![])]
        {
            let old = json!({"immutable": immutable, "data": {"a": "b"}});
            let sent = json!({"immutable": immutable, "data": {"a": "b"}, "binaryData": {}});
            let (sent, empties) = Schema::builtin(KIND.schema).unwrap().decode_sent_value(sent).unwrap();
            let errors = validate(&sent.value, Some(&old), &empties);
            assert_eq!(errors.iter().map(|e| format!("{}: {}", e.path, e.message)).collect::<Vec<_>>(), expected);
        }
    }
}
