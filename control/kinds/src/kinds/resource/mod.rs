//! Kinds of `resource.k8s.io`: devices and who has them (KEP 4381). They are stored; nothing here allocates a device.
//!
//! Fields of features that Kubernetes 1.35 has switched off are dropped, as there.

mod claim_spec;
mod configuration;
pub mod device_class;
mod device_status;
mod qualified_name;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{FieldError, names};

/// The name of the API group.
const GROUP: &str = "resource.k8s.io";

fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// Removes fields of an object, if it is one.
fn drop_fields(object: &mut Value, fields: &[&str]) {
    if let Some(map) = object.as_object_mut() {
        for field in fields {
            map.shift_remove(*field);
        }
    }
}

/// Something, if a list has more than `most` items. Its items are not looked at then.
fn too_many(path: &str, list: &[Value], most: usize) -> Option<FieldError> {
    (list.len() > most).then(|| FieldError::too_many(path, list.len(), most))
}

/// Every item that has the same key as one before it.
fn duplicates(path: &str, keys: impl IntoIterator<Item = String>) -> Vec<FieldError> {
    let mut seen = BTreeSet::new();
    let mut errors = Vec::new();
    for (i, key) in keys.into_iter().enumerate() {
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), &key.as_str().into()));
        }
        seen.insert(key);
    }
    errors
}

/// The name of a pool: subdomains joined by slashes.
fn pool_name(path: &str, value: &Value) -> Vec<FieldError> {
    const MOST: usize = 253;
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors: Vec<FieldError> =
        (text.len() > MOST).then(|| FieldError::too_long(path, MOST)).into_iter().collect();
    for part in text.split('/') {
        errors.extend(FieldError::invalid_each(path, &part.into(), names::subdomain(part)));
    }
    errors
}

/// An RFC 1123 label, required.
fn label(path: &str, value: &Value) -> Vec<FieldError> {
    let text = value.as_str().unwrap_or_default();
    FieldError::invalid_each(path, &text.into(), names::label(text)).collect()
}
