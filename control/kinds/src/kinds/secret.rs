//! Secret: bytes by key, of a type.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::{BuiltIn, Cell, Column, FieldError, Storage, config_map, names, reading::text};
use crate::schema::SentEmpties;

/// Annotation of a Secret that is to hold a token of a ServiceAccount: the account's name.
pub const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

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
    validate_sent: Some(validate),
    prepare: |_, _| {},
    columns: &[
        Column::name(),
        Column::text("Type", "What the data is for."),
        Column::text("Data", "Number of keys."),
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

fn validate(new: &Value, old: Option<&Value>, empties: &SentEmpties) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in new["data"].as_object().into_iter().flatten() {
        errors.extend(FieldError::each(format!("data[{key}]"), &Value::from(key.as_str()), names::config_key));
        size += value.as_str().unwrap_or_default().len() / 4 * 3;
    }
    if size > config_map::MAX_DATA {
        errors.push(FieldError::too_long("data", config_map::MAX_DATA));
    }
    for key in required_keys(text(new, "type"), &new["data"]) {
        errors.push(FieldError::required(format!("data[{key}]"), ""));
    }
    let json = match text(new, "type") {
        "kubernetes.io/dockerconfigjson" => Some(".dockerconfigjson"),
        "kubernetes.io/dockercfg" => Some(".dockercfg"),
        _ => None,
    };
    if let Some(key) = json
        && let Some(content) = new["data"][key].as_str().and_then(|content| BASE64_STANDARD.decode(content).ok())
        && let Err(error) = serde_json::from_slice::<Map<String, Value>>(&content)
    {
        let redacted = Value::from("<secret contents redacted>");
        errors.push(FieldError::invalid(format!("data[{key}]"), &redacted, error.to_string()));
    }
    if new["type"] == "kubernetes.io/service-account-token"
        && new["metadata"]["annotations"][ACCOUNT_NAME].as_str().is_none_or(str::is_empty)
    {
        errors.push(FieldError::required(format!("metadata.annotations[{ACCOUNT_NAME}]"), ""));
    }
    if let Some(old) = old {
        if old["type"] != new["type"] {
            errors.push(FieldError::immutable("type", &new["type"]));
        }
        errors.extend(config_map::immutable(new, old, empties, &["data"]));
    }
    errors
}

/// The keys that `data` lacks for a type.
fn required_keys(kind: &str, data: &Value) -> Vec<&'static str> {
    let keys: &[&str] = match kind {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" => &["username", "password"],
        _ => &[],
    };
    let is_there = |key: &&str| match kind {
        "kubernetes.io/ssh-auth" => !text(data, key).is_empty(),
        _ => !data[*key].is_null(),
    };
    // One of a name and a password is enough.
    if kind == "kubernetes.io/basic-auth" && keys.iter().any(is_there) {
        return Vec::new();
    }
    keys.iter().copied().filter(|key| !is_there(key)).collect()
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
        assert_eq!(validate(&secret, None, &SentEmpties::NONE), []);
    }

    #[test]
    fn a_type_has_its_keys_and_stays() {
        let tls = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}});
        let errors = validate(&tls, Some(&json!({"type": "Opaque"})), &SentEmpties::NONE);
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["data[tls.key]", "type"]);
        let paths =
            |secret: Value| validate(&secret, None, &SentEmpties::NONE).into_iter().map(|e| e.path).collect::<Vec<_>>();
        let of = |kind: &str, data: Value| paths(json!({"type": format!("kubernetes.io/{kind}"), "data": data}));
        assert_eq!(of("dockercfg", json!({".dockercfg": "eA=="})), ["data[.dockercfg]"]);
        assert_eq!(paths(json!({"type": "Opaque", "data": {"": "eA=="}})).len(), 1, "no name, and no JSON");
        assert_eq!(of("basic-auth", json!({})), ["data[username]", "data[password]"]);
        assert_eq!(of("basic-auth", json!({"password": ""})), Vec::<String>::new());
        assert_eq!(of("ssh-auth", json!({"ssh-privatekey": ""})), ["data[ssh-privatekey]"]);
        assert_eq!(of("dockercfg", json!({".dockercfg": "W10="})), ["data[.dockercfg]"], "a list is no such file");
        assert_eq!(of("dockercfg", json!({".dockercfg": "e30="})), Vec::<String>::new());
    }
}
