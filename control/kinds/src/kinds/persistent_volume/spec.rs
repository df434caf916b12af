//! What may stand in the spec of a PersistentVolume: one of its own, or one that a VolumeAttachment has inline.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kinds::{
    FieldError, names,
    pod::affinity,
    quantity::Quantity,
    reading::{entries, is_empty, text},
    volume_source::{
        self, AWS, AZURE_DISK, CEPHFS, FC, FLEX, FLOCKER, GCE, HOST_PATH, NFS, PHOTON, PORTWORX, QUOBYTE, RBD,
        SCALE_IO, VSPHERE, VolumeType, required,
    },
};

/// The types that a PersistentVolume can have, in the order in which they are looked at.
pub const TYPES: &[VolumeType] = &[
    HOST_PATH,
    GCE,
    AWS,
    VolumeType::new("glusterfs", glusterfs),
    FLOCKER,
    NFS,
    RBD,
    QUOBYTE,
    CEPHFS,
    VolumeType::new("iscsi", iscsi),
    VolumeType::new("cinder", cinder),
    FC,
    volume_source::VolumeType { beside_others: true, ..FLEX },
    VolumeType::new("azureFile", azure_file),
    VSPHERE,
    PHOTON,
    PORTWORX,
    AZURE_DISK,
    SCALE_IO,
    VolumeType::new("local", local),
    VolumeType::new("storageos", storage_os),
    VolumeType::new("csi", csi),
];

/// Why the spec at `path` of the volume with this name may not stand.
pub fn validate(path: &str, spec: &Value, name: &str) -> Vec<FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    let mut errors = access_modes(path, spec);
    errors.extend(capacity(&at("capacity"), &spec["capacity"]));
    let policy = &spec["persistentVolumeReclaimPolicy"];
    let policies = ["Delete", "Recycle", "Retain"];
    errors.extend(FieldError::unsupported(at("persistentVolumeReclaimPolicy"), policy, &policies));
    errors.extend(node_affinity(&at("nodeAffinity"), &spec["nodeAffinity"]));
    errors.extend(source(path, spec, name));
    if !text(spec, "storageClassName").is_empty() {
        errors.extend(FieldError::each(at("storageClassName"), &spec["storageClassName"], names::subdomain));
    }
    errors.extend(FieldError::unsupported(at("volumeMode"), &spec["volumeMode"], &["Block", "Filesystem"]));
    errors.extend(attributes_class(path, spec));
    errors
}

/// The same of a spec that stands in another object, as what is left of a volume that pods have inline.
pub fn validate_inline(path: &str, spec: &Value) -> Vec<FieldError> {
    const INLINE: &str = "in the context of inline volumes";
    let at = |field: &str| format!("{path}.{field}");
    let forbidden = |field: &str, why: &str| FieldError::forbidden(at(field), &format!("{why} {INLINE}"));
    let not_here = |field: &str| forbidden(field, "may not be specified");
    let mut errors = Vec::new();
    if !spec["claimRef"].is_null() {
        errors.push(not_here("claimRef"));
    }
    if !is_empty(&spec["capacity"]) {
        errors.push(not_here("capacity"));
    }
    if spec["csi"].is_null() {
        errors.push(FieldError::required(at("csi"), &format!("has to be specified {INLINE}")));
    }
    errors.extend(access_modes(path, spec));
    if !matches!(text(spec, "persistentVolumeReclaimPolicy"), "" | "Retain") {
        errors.push(forbidden("persistentVolumeReclaimPolicy", "may only be Retain"));
    }
    if !spec["nodeAffinity"].is_null() {
        errors.push(not_here("nodeAffinity"));
    }
    errors.extend(source(path, spec, ""));
    if !text(spec, "storageClassName").is_empty() {
        errors.push(not_here("storageClassName"));
    }
    if spec["volumeMode"].as_str().is_some_and(|mode| mode != "Filesystem") {
        errors.push(forbidden("volumeMode", "may not specify volumeMode other than Filesystem"));
    }
    errors
}

fn access_modes(path: &str, spec: &Value) -> Vec<FieldError> {
    let path = format!("{path}.accessModes");
    let mut errors = Vec::new();
    if is_empty(&spec["accessModes"]) {
        errors.push(FieldError::required(&path, ""));
    }
    errors.extend(volume_source::access_modes(&path, &spec["accessModes"]));
    errors
}

/// Where the volume is.
fn source(path: &str, spec: &Value, name: &str) -> Vec<FieldError> {
    let mut errors = volume_source::one_of(path, spec, TYPES);
    let first = TYPES.iter().find(|kind| !spec[kind.field].is_null());
    if first.is_some_and(|kind| kind.field == "local") && spec["nodeAffinity"].is_null() {
        errors.push(FieldError::required(format!("{path}.nodeAffinity"), "Local volume requires node affinity"));
    }
    let is_iscsi = first.is_some_and(|kind| kind.field == "iscsi");
    let initiator = &spec["iscsi"]["initiatorName"];
    let portal = text(&spec["iscsi"], "targetPortal");
    if is_iscsi && !initiator.is_null() && name.len() + 1 + portal.len() > 64 {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is \
                   specified.";
        errors.push(FieldError::invalid(format!("{path}.iscsi.targetportal"), &json!(portal), why));
    }
    let whole_host = spec["hostPath"].is_object() && is_root(text(&spec["hostPath"], "path"));
    if whole_host && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(format!("{path}.persistentVolumeReclaimPolicy"), why));
    }
    errors
}

/// Whether a path means `/`: every step that it goes down, it goes up again.
fn is_root(path: &str) -> bool {
    let depth = path.split('/').fold(0_u32, |depth, part| match part {
        "" | "." => depth,
        ".." => depth.saturating_sub(1),
        _ => depth.saturating_add(1),
    });
    path.starts_with('/') && depth == 0
}

/// An object with its fields in the order of their names, as Go shows a map.
fn sorted(object: &Value) -> Value {
    let fields: BTreeMap<String, Value> = entries(object).map(|(name, value)| (name.clone(), value.clone())).collect();
    if object.is_object() { fields.into_iter().collect() } else { object.clone() }
}

fn capacity(path: &str, capacity: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_empty(capacity) {
        errors.push(FieldError::required(path, ""));
    }
    if capacity["storage"].is_null() || entries(capacity).count() > 1 {
        errors.push(FieldError::not_supported_shown(path, &sorted(capacity).to_string(), &["storage"]));
    }
    for (name, amount) in entries(capacity) {
        let Some(quantity) = Quantity::of(amount) else { continue };
        let path = format!("{path}[{name}]");
        if quantity.units() < 0 {
            let why = "must be a valid resource quantity";
            errors.push(FieldError::invalid(&path, &json!(quantity.units()), why));
        }
        if !quantity.is_positive() {
            let canonical = json!(quantity.to_string());
            errors.push(FieldError::invalid(path, &canonical, "must be greater than zero"));
        }
    }
    errors
}

fn node_affinity(path: &str, affinity: &Value) -> Vec<FieldError> {
    let path = format!("{path}.required");
    match affinity {
        Value::Null => Vec::new(),
        affinity if affinity["required"].is_null() => {
            vec![FieldError::required(path, "must specify required node constraints")]
        }
        affinity => affinity::node_selector(&path, &affinity["required"]),
    }
}

fn attributes_class(path: &str, spec: &Value) -> Vec<FieldError> {
    let of_class = format!("{path}.volumeAttributesClassName");
    let class = &spec["volumeAttributesClassName"];
    let mut errors = match class.as_str() {
        None => return Vec::new(),
        Some("") => vec![FieldError::required(of_class, "an empty string is disallowed")],
        Some(_) => FieldError::each(of_class, class, names::subdomain),
    };
    if spec["csi"].is_null() {
        errors.push(FieldError::required(
            format!("{path}.csi"),
            "has to be specified when using volumeAttributesClassName",
        ));
    }
    errors
}

fn glusterfs(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = required(path, source, &["endpoints", "path"]);
    let (path, namespace) = (format!("{path}.endpointsNamespace"), &source["endpointsNamespace"]);
    match namespace.as_str() {
        None => {}
        Some("") => {
            let why = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(FieldError::invalid(path, namespace, why));
        }
        Some(_) => errors.extend(FieldError::each(path, namespace, names::label)),
    }
    errors
}

fn iscsi(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = volume_source::iscsi(path, source, "must be valid format");
    errors.extend(secret(path, source, &["name"]));
    errors
}

fn cinder(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = required(path, source, &["volumeID"]);
    errors.extend(secret(path, source, &["name", "namespace"]));
    errors
}

fn azure_file(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = required(path, source, &["secretName", "shareName"]);
    if source["secretNamespace"] == "" {
        errors.push(FieldError::required(format!("{path}.secretNamespace"), ""));
    }
    errors
}

fn local(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = required(path, source, &["path"]);
    errors.extend(volume_source::backsteps(&format!("{path}.path"), &source["path"]));
    errors
}

fn storage_os(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = volume_source::storage_os(path, source);
    errors.extend(secret(path, source, &["namespace"]));
    errors
}

fn csi(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = names::csi_driver(&format!("{path}.driver"), &source["driver"]);
    errors.extend(required(path, source, &["volumeHandle"]));
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        if source[field].is_null() {
            continue;
        }
        for (part, check) in [("name", names::subdomain as fn(&str) -> Vec<String>), ("namespace", names::label)] {
            let (path, value) = (format!("{path}.{field}.{part}"), &source[field][part]);
            match value.as_str() {
                None | Some("") => errors.push(FieldError::required(path, "")),
                Some(_) => errors.extend(FieldError::each(path, value, check)),
            }
        }
    }
    errors
}

fn secret(path: &str, source: &Value, fields: &[&str]) -> Vec<FieldError> {
    let secret = &source["secretRef"];
    if secret.is_null() { Vec::new() } else { required(&format!("{path}.secretRef"), secret, fields) }
}
