//! ReplicaSet: a pod template and how many pods of it there are to be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, Storage,
    pod_template::{self, CONTAINERS, IMAGES, SELECTOR},
    prepare,
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
    validate: pod_template::validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({"replicas": 0}));
        prepare::count_generation(new, old);
    },
    columns: COLUMNS,
    cells,
    selectable,
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
    let [containers, images, selector] = pod_template::cells(spec);
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
    if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
        pod_template::default(spec);
    }
}
