//! Defaults of a definition, what a write changes in it, and what the beginning of its deletion does.

use serde_json::{Value, json};

use super::conditions;
use crate::kinds::prepare::{count_generation, keep_status};

/// Fills in the names that follow from the kind, the conversion, and the versions in which objects may be stored.
pub fn default(definition: &mut Value) {
    let spec = &mut definition["spec"];
    if !spec.is_object() {
        return;
    }
    let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let is_unset = |names: &serde_json::Map<String, Value>, field: &str| {
            names.get(field).and_then(Value::as_str).is_none_or(str::is_empty)
        };
        if is_unset(names, "singular") && !kind.is_empty() {
            names.insert("singular".into(), kind.to_lowercase().into());
        }
        if is_unset(names, "listKind") && !kind.is_empty() {
            names.insert("listKind".into(), format!("{kind}List").into());
        }
    }
    if !spec["conversion"].is_object() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    if let Some(service) = spec["conversion"].pointer_mut("/webhook/clientConfig/service")
        && service.is_object()
        && service["port"].is_null()
    {
        service["port"] = 443.into();
    }
    add_stored_version(definition, false);
}

/// The status belongs to the controller; the version that objects are stored in from now on is remembered.
pub fn prepare(new: &mut Value, old: Option<&Value>) {
    keep_status(new, old, json!({}));
    count_generation(new, old);
    add_stored_version(new, true);
}

/// Tells that the deletion has begun.
pub fn begin_deletion(definition: &mut Value) {
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    if conditions::find(definition, "Terminating").is_none() {
        conditions::set(definition, "Terminating", "True", "InstanceDeletionPending", message);
    }
}

/// Adds the storage version to those that objects may be stored in: always, or only where none is said.
fn add_stored_version(definition: &mut Value, always: bool) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let Some(storage) = versions.into_iter().find(|version| version["storage"] == true) else { return };
    let name = storage["name"].clone();
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    let stored = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if stored.is_empty() || always && !stored.contains(&name) {
        definition["status"]["storedVersions"] = stored.into_iter().chain([name]).collect();
    }
}
