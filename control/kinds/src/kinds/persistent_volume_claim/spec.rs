//! The spec of a claim, also of those of StatefulSets and ephemeral volumes: defaults and validation.

use serde_json::{Value, json};

use crate::kinds::{
    FieldError, label_selector, names,
    pod::{defaults::fill, resources},
    quantity::Quantity,
    reading::{is_empty, text},
    resource_name, volume_source,
};

const MODES: [&str; 2] = ["Block", "Filesystem"];

/// Fills in what is missing in the spec of a claim, also in that of an ephemeral volume.
pub fn default(spec: &mut Value) {
    fill(spec, "volumeMode", || json!("Filesystem"));
    if let Some(resources) = spec.get_mut("resources") {
        resources::round(resources);
    }
}

/// Reasons against the spec of a claim at `path`.
pub fn validate(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let modes = format!("{path}.accessModes");
    if is_empty(&spec["accessModes"]) {
        errors.push(FieldError::required(&modes, "at least 1 access mode is required"));
    }
    errors.extend(label_selector::validate(&format!("{path}.selector"), &spec["selector"]));
    errors.extend(volume_source::access_modes(&modes, &spec["accessModes"]));
    let storage = format!("{path}.resources[storage]");
    let asked = &spec["resources"]["requests"]["storage"];
    match Quantity::of(asked) {
        None => errors.push(FieldError::required(storage, "")),
        Some(asked) if !asked.is_positive() => {
            let canonical = json!(asked.to_string());
            errors.push(FieldError::invalid(storage, &canonical, "must be greater than zero"));
        }
        Some(_) => errors.extend(resource_name::amount(&storage, "storage", asked)),
    }
    errors.extend(class_name(format!("{path}.storageClassName"), &spec["storageClassName"]));
    errors.extend(FieldError::unsupported(format!("{path}.volumeMode"), &spec["volumeMode"], &MODES));
    errors.extend(data_sources(path, spec));
    let attributes = format!("{path}.volumeAttributesClassName");
    errors.extend(class_name(attributes, &spec["volumeAttributesClassName"]));
    errors
}

fn class_name(path: String, value: &Value) -> Vec<FieldError> {
    match value.as_str() {
        None | Some("") => Vec::new(),
        Some(_) => FieldError::each(path, value, names::subdomain),
    }
}

fn data_sources(path: &str, spec: &Value) -> Vec<FieldError> {
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    let mut errors = Vec::new();
    if !source.is_null() {
        errors.extend(data_source(&format!("{path}.dataSource"), source));
    }
    if !reference.is_null() {
        let path = format!("{path}.dataSourceRef");
        errors.extend(data_source(&path, reference));
        if !text(reference, "namespace").is_empty() {
            let path = format!("{path}.namespace");
            errors.extend(FieldError::each(path, &reference["namespace"], names::label));
        }
    }
    if !source.is_null() && !reference.is_null() {
        // Kubernetes shows an empty object for the path of the field here.
        if !text(reference, "namespace").is_empty() {
            let why = "may not be specified when dataSourceRef.namespace is specified";
            errors.push(FieldError::invalid(path, &json!({}), why));
        } else if ["apiGroup", "kind", "name"].iter().any(|field| source[field] != reference[field]) {
            errors.push(FieldError::invalid(path, &json!({}), "must match dataSourceRef"));
        }
    }
    errors
}

fn data_source(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = volume_source::required(path, source, &["name", "kind"]);
    let group = text(source, "apiGroup");
    if group.is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, &json!(text(source, "kind")), why));
    }
    if !group.is_empty() {
        errors.extend(FieldError::each(format!("{path}.apiGroup"), &source["apiGroup"], names::subdomain));
    }
    errors
}
