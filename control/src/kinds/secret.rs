//! Secret: bytes by key, of a type.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::{BuiltIn, Cell, Column, FieldError, Storage, config_map};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    default,
    validate,
    prepare: |_, _| {},
    columns: &[
        Column::name(),
        Column::text("Type", "What the data is for."),
        Column::integer("Data", "Number of keys."),
        Column::age(),
    ],
    cells: |o| {
        let keys = o["data"].as_object().map_or(0, |m| m.len() as i64);
        vec![Cell::name(o), Cell::text(o["type"].as_str().unwrap_or_default()), Cell::integer(keys), Cell::age(o)]
    },
    selectable: |o| BTreeMap::from([("type", o["type"].as_str().unwrap_or_default().to_owned())]),
    schema: "io.k8s.api.core.v1.Secret",
    ..BuiltIn::PLAIN
};

/// `stringData` is for writing only: it is folded into `data`, over what is there.
fn default(object: &mut Value) {
    if object["type"].as_str().is_none_or(str::is_empty) {
        object["type"] = "Opaque".into();
    }
    let Some(text) = object.as_object_mut().and_then(|secret| secret.shift_remove("stringData")) else { return };
    for (key, value) in text.as_object().into_iter().flatten() {
        if !object["data"].is_object() {
            object["data"] = Value::Object(Map::new());
        }
        object["data"][key.as_str()] = BASE64_STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in new["data"].as_object().into_iter().flatten() {
        errors.extend(config_map::data_key(&format!("data[{key}]"), key));
        size += value.as_str().unwrap_or_default().len() / 4 * 3;
    }
    if size > config_map::MAX_DATA {
        errors.push(FieldError::too_long("data", config_map::MAX_DATA));
    }
    for key in required_keys(new["type"].as_str().unwrap_or_default()) {
        if new["data"][*key].is_null() {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    if new["type"] == "kubernetes.io/dockerconfigjson" {
        let text = new["data"][".dockerconfigjson"].as_str().and_then(|d| BASE64_STANDARD.decode(d).ok());
        if text.is_some_and(|text| serde_json::from_slice::<Value>(&text).is_err()) {
            let why = Value::from("<secret contents redacted>");
            errors.push(FieldError::invalid("data[.dockerconfigjson]", &why, "must be valid JSON"));
        }
    }
    if new["type"] == "kubernetes.io/service-account-token" {
        const ACCOUNT: &str = "kubernetes.io/service-account.name";
        if new["metadata"]["annotations"][ACCOUNT].as_str().is_none_or(str::is_empty) {
            errors.push(FieldError::required(format!("metadata.annotations[{ACCOUNT}]"), ""));
        }
    }
    if let Some(old) = old {
        if old["type"] != new["type"] {
            errors.push(FieldError::immutable("type", &new["type"]));
        }
        errors.extend(config_map::immutable(new, old, &["data"]));
    }
    errors
}

fn required_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_folded_into_data() {
        let mut secret = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "z"}});
        default(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "eA==", "b": "eg=="}, "type": "Opaque"}));
        assert_eq!(validate(&secret, None), []);
    }

    #[test]
    fn a_type_has_its_keys_and_stays() {
        let tls = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}});
        let errors = validate(&tls, Some(&json!({"type": "Opaque"})));
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["data[tls.key]", "type"]);
    }
}
