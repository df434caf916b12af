//! PersistentVolume: a piece of storage of the cluster.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage,
    persistent_volume_claim::{changed_fields, class},
    pod::{
        defaults::{fill, fill_text},
        resources,
    },
    prepare,
    quantity::Quantity,
    reading::{same, text},
    volume_source::{self, access_modes_text},
    workload,
};
use crate::rfc3339;

pub mod spec;

use spec::TYPES;

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
    resources::round_lists(spec, &["capacity"]);
    volume_source::default(spec);
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(spec::validate("spec", &new["spec"], text(&new["metadata"], "name")));
        errors.extend(mount_options(new));
        errors.extend(old.map(|old| changes(&new["spec"], &old["spec"])).unwrap_or_default());
    }
    errors
}

fn mount_options(volume: &Value) -> Option<FieldError> {
    let options = !volume["metadata"]["annotations"][MOUNT_OPTIONS].is_null();
    let takes_none = || WITH_MOUNT_OPTIONS.iter().all(|kind| volume["spec"][*kind].is_null());
    let why = "may not specify mount options for this volume type";
    (options && takes_none()).then(|| FieldError::forbidden(format!("metadata.annotations.{MOUNT_OPTIONS}"), why))
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
