//! ReplicaSet: a pod template and how many pods of it there are to be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage,
    pod::sent_empties::refused_with,
    prepare,
    workload::{self, CONTAINERS, IMAGES, SELECTOR},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    subresources: &["scale", "status"],
    storage: Storage::Stored,
    default,
    validate,
    validate_sent: Some(|new, old, empties| refused_with(validate(new, old), empties)),
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({"replicas": 0}));
        workload::drop_unknown(new, old, "/spec/template");
        prepare::count_generation(new, old);
    },
    columns: COLUMNS,
    cells,
    schema: "io.k8s.api.apps.v1.ReplicaSet",
    ..BuiltIn::PLAIN
};

/// Columns of the Table form.
pub const COLUMNS: &[Column] = &[
    Column::name(),
    Column::integer("Desired", "Number of desired pods."),
    Column::integer("Current", "Most recently observed number of pods."),
    Column::integer("Ready", "Number of pods with a Ready condition."),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Fields that a field selector may name, beside the metadata.
pub fn selectable(object: &Value) -> BTreeMap<&'static str, String> {
    BTreeMap::from([("status.replicas", object["status"]["replicas"].as_i64().unwrap_or_default().to_string())])
}

/// The cells of these columns.
pub fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [containers, images, selector] = workload::cells(spec);
    vec![
        Cell::name(object),
        Cell::integer(spec["replicas"].as_i64().unwrap_or(1)),
        Cell::integer(status["replicas"].as_i64().unwrap_or_default()),
        Cell::integer(status["readyReplicas"].as_i64().unwrap_or_default()),
        Cell::age(object),
        containers,
        images,
        selector,
    ]
}

fn default(object: &mut Value) {
    if let Some(spec) = workload::spec_of(object) {
        workload::default(spec);
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        let negative = |field| FieldError::negative(format!("spec.{field}"), &new["spec"][field]);
        errors.extend(["replicas", "minReadySeconds"].into_iter().filter_map(negative));
        errors.extend(workload::replicated(new, old));
    }
    if workload::changes_status(new, old).is_some() {
        errors.extend(validate_status(&new["status"]));
    }
    errors
}

/// Reasons against the status of a ReplicaSet or a ReplicationController.
pub fn validate_status(status: &Value) -> Vec<FieldError> {
    let counted = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    let mut errors =
        workload::counts(status, &counted, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"]);
    errors.extend(workload::more_available_than_ready(status, "readyReplicas"));
    errors
}
