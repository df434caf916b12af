//! PersistentVolume: a piece of storage of the cluster.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, names,
    persistent_volume_claim::{changed_fields, class},
    pod::{
        affinity,
        defaults::{fill, fill_text},
    },
    prepare,
    quantity::Quantity,
    reading::{entries, is_empty, same, text},
    volume_source::{
        self, AWS, AZURE_DISK, CEPHFS, FC, FLEX, FLOCKER, GCE, HOST_PATH, NFS, PHOTON, PORTWORX, QUOBYTE, RBD,
        SCALE_IO, VSPHERE, VolumeType, access_modes_text, required,
    },
    workload,
};
use crate::rfc3339;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    categories: &[],
    namespaced: false,
    subresources: &["status"],
    storage: Storage::Stored,
    default,
    validate,
    prepare: |new, old| {
        let initial = json!({"phase": "Pending", "lastPhaseTransitionTime": rfc3339::now()});
        prepare::keep_status(new, old, initial);
    },
    prepare_status: time_phase,
    columns: &[
        Column::name(),
        Column::text("Capacity", "Size of the volume."),
        Column::text("Access Modes", "How the volume may be mounted."),
        Column::text("Reclaim Policy", "What becomes of the volume once its claim is gone."),
        Column::text("Status", "Pending, Available, Bound, Released or Failed."),
        Column::text("Claim", "Claim that the volume is bound to."),
        Column::text("StorageClass", "StorageClass of the pv"),
        Column::text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
        Column::text("Reason", "Why the volume is in this state."),
        Column::age(),
        Column::wide("VolumeMode", "Filesystem or Block."),
    ],
    cells,
    selectable: |o| BTreeMap::from([("name", text(&o["metadata"], "name").to_owned())]),
    schema: "io.k8s.api.core.v1.PersistentVolume",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

/// The types that a PersistentVolume can have, in the order in which they are looked at.
const TYPES: &[VolumeType] = &[
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

/// The types whose volumes can be mounted with options.
const WITH_MOUNT_OPTIONS: [&str; 13] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// Keeps the time of the last change of the phase, or sets it where the reporter does not.
fn time_phase(new: &mut Value, old: &Value) {
    const TIME: &str = "lastPhaseTransitionTime";
    let (now, was) = (&mut new["status"], &old["status"]);
    let same_phase = now["phase"] == was["phase"];
    if same_phase && now[TIME].is_null() && !was[TIME].is_null() {
        now[TIME] = was[TIME].clone();
    } else if !same_phase && (now[TIME].is_null() || now[TIME] == was[TIME]) {
        now[TIME] = rfc3339::now().into();
    }
}

fn default(object: &mut Value) {
    fill(object, "status", || json!({}));
    fill_text(&mut object["status"], "phase", "Pending");
    let Some(spec) = workload::spec_of(object) else { return };
    fill_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill(spec, "volumeMode", || json!("Filesystem"));
    volume_source::default(spec);
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(validate_spec(new));
        errors.extend(old.map(|old| changes(&new["spec"], &old["spec"])).unwrap_or_default());
    }
    errors
}

fn validate_spec(volume: &Value) -> Vec<FieldError> {
    let spec = &volume["spec"];
    let mut errors = Vec::new();
    if is_empty(&spec["accessModes"]) {
        errors.push(FieldError::required("spec.accessModes", ""));
    }
    errors.extend(volume_source::access_modes("spec.accessModes", &spec["accessModes"]));
    errors.extend(capacity(&spec["capacity"]));
    let policy = &spec["persistentVolumeReclaimPolicy"];
    let policies = ["Delete", "Recycle", "Retain"];
    errors.extend(FieldError::unsupported("spec.persistentVolumeReclaimPolicy", policy, &policies));
    errors.extend(node_affinity(spec));
    errors.extend(volume_source::one_of("spec", spec, TYPES));
    let first = TYPES.iter().find(|kind| !spec[kind.field].is_null());
    if first.is_some_and(|kind| kind.field == "local") && spec["nodeAffinity"].is_null() {
        errors.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
    }
    let initiator = &spec["iscsi"]["initiatorName"];
    let (name, portal) = (text(&volume["metadata"], "name"), text(&spec["iscsi"], "targetPortal"));
    if !initiator.is_null() && name.len() + 1 + portal.len() > 64 {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is \
                   specified.";
        errors.push(FieldError::invalid("spec.iscsi.targetportal", &json!(portal), why));
    }
    let whole_host = spec["hostPath"].is_object() && is_root(text(&spec["hostPath"], "path"));
    if whole_host && policy == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden("spec.persistentVolumeReclaimPolicy", why));
    }
    if !text(spec, "storageClassName").is_empty() {
        errors.extend(FieldError::each("spec.storageClassName", &spec["storageClassName"], names::subdomain));
    }
    errors.extend(FieldError::unsupported("spec.volumeMode", &spec["volumeMode"], &["Block", "Filesystem"]));
    errors.extend(attributes_class(spec));
    let options = !volume["metadata"]["annotations"][MOUNT_OPTIONS].is_null();
    if options && WITH_MOUNT_OPTIONS.iter().all(|kind| spec[*kind].is_null()) {
        let why = "may not specify mount options for this volume type";
        errors.push(FieldError::forbidden(format!("metadata.annotations.{MOUNT_OPTIONS}"), why));
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

fn capacity(capacity: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_empty(capacity) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    if capacity["storage"].is_null() || entries(capacity).count() > 1 {
        let mut error = FieldError::not_supported("spec.capacity", capacity, &["storage"]);
        if capacity.is_null() {
            error.message = error.message.replacen("\"\"", "null", 1);
        }
        errors.push(error);
    }
    for (name, amount) in entries(capacity) {
        let Some(quantity) = Quantity::of(amount) else { continue };
        let path = format!("spec.capacity[{name}]");
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

fn node_affinity(spec: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.nodeAffinity.required";
    match &spec["nodeAffinity"] {
        Value::Null => Vec::new(),
        affinity if affinity["required"].is_null() => {
            vec![FieldError::required(PATH, "must specify required node constraints")]
        }
        affinity => affinity::node_selector(PATH, &affinity["required"]),
    }
}

fn attributes_class(spec: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.volumeAttributesClassName";
    let class = &spec["volumeAttributesClassName"];
    let mut errors = match class.as_str() {
        None => return Vec::new(),
        Some("") => vec![FieldError::required(PATH, "an empty string is disallowed")],
        Some(_) => FieldError::each(PATH, class, names::subdomain),
    };
    if spec["csi"].is_null() {
        errors.push(FieldError::required("spec.csi", "has to be specified when using volumeAttributesClassName"));
    }
    errors
}

fn changes(now: &Value, was: &Value) -> Vec<FieldError> {
    let source = |spec: &Value| {
        let fields = TYPES.iter().filter(|kind| !spec[kind.field].is_null());
        Value::Object(fields.map(|kind| (kind.field.to_owned(), spec[kind.field].clone())).collect::<Map<_, _>>())
    };
    let (mut after, before) = (source(now), source(was));
    // A volume of CSI may learn later which secret expands it.
    if was["csi"].is_object()
        && was["csi"]["controllerExpandSecretRef"].is_null()
        && let Some(csi) = after.get_mut("csi").and_then(Value::as_object_mut)
    {
        csi.shift_remove("controllerExpandSecretRef");
    }
    let mut errors = Vec::new();
    let changed = changed_fields(&after, &before);
    if !changed.is_empty() {
        let why = format!("spec.persistentvolumesource is immutable after creation\nchanged: {}", changed.join(", "));
        errors.push(FieldError::forbidden("spec.persistentvolumesource", &why));
    }
    if !same(&now["volumeMode"], &was["volumeMode"]) {
        errors.push(FieldError::immutable("volumeMode", &now["volumeMode"]));
    }
    let affinity = &now["nodeAffinity"];
    if !was["nodeAffinity"].is_null() && !same(&stable_labels(&was["nodeAffinity"], affinity), affinity) {
        let why = "field is immutable, except for updating from beta label to GA";
        errors.push(FieldError::invalid("nodeAffinity", affinity, why));
    }
    if !was["volumeAttributesClassName"].is_null() && now["volumeAttributesClassName"].is_null() {
        let why = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", why));
    }
    errors
}

/// `before` with those labels of nodes under their present names that `after` has under these.
fn stable_labels(before: &Value, after: &Value) -> Value {
    const STABLE: [(&str, &str); 5] = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    let mut renamed = before.clone();
    let terms = renamed.pointer_mut("/required/nodeSelectorTerms").and_then(Value::as_array_mut);
    for (t, term) in terms.into_iter().flatten().enumerate() {
        for list in ["matchExpressions", "matchFields"] {
            for (e, expression) in term.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
                let key = &after["required"]["nodeSelectorTerms"][t][list][e]["key"];
                let known = STABLE.iter().any(|(old, new)| expression["key"] == *old && key == new);
                if known {
                    expression["key"] = key.clone();
                }
            }
        }
    }
    renamed
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

fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let deleted = !object["metadata"]["deletionTimestamp"].is_null();
    let claim = &spec["claimRef"];
    let claim =
        if claim.is_null() { String::new() } else { format!("{}/{}", text(claim, "namespace"), text(claim, "name")) };
    vec![
        Cell::name(object),
        Cell::text(Quantity::of(&spec["capacity"]["storage"]).unwrap_or(Quantity::ZERO).to_string()),
        Cell::text(access_modes_text(&spec["accessModes"])),
        Cell::text(text(spec, "persistentVolumeReclaimPolicy")),
        Cell::text(if deleted { "Terminating" } else { text(status, "phase") }),
        Cell::text(claim),
        Cell::text(class(object)),
        Cell::text(spec["volumeAttributesClassName"].as_str().unwrap_or("<unset>")),
        Cell::text(text(status, "reason")),
        Cell::age(object),
        Cell::text(spec["volumeMode"].as_str().unwrap_or("<unset>")),
    ]
}

#[cfg(test)]
mod tests;
