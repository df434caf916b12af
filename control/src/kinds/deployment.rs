//! Deployment: a pod template, how many pods of it, and how one template replaces another.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::{
    Cell, Column, FieldError, Kind, Storage, Subresource,
    decode::decode,
    pod::defaults::{fill, fill_text, pod_spec},
    prepare, workload,
};

pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Subresource::Scale, Subresource::Status],
    storage: Storage::Stored,
    decode: decode::<Deployment>,
    default,
    validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        prepare::count_generation(new, old);
    },
    columns: COLUMNS,
    cells,
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.apps.v1.Deployment",
};

pub const COLUMNS: &[Column] = &[
    Column::name(),
    Column::text("Ready", "Number of the pod with ready state"),
    Column::text("Up-to-date", "Pods that have the desired template spec."),
    Column::text("Available", "Pods ready for at least minReadySeconds."),
    Column::age(),
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide("Images", "Images referenced by each container in the template."),
    Column::wide("Selector", "Label selector for pods."),
];

pub fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |v: &Value| v.as_i64().unwrap_or_default();
    let (names, images) = workload::containers(&spec["template"]["spec"]);
    let desired = spec["replicas"].as_i64().unwrap_or(1);
    vec![
        Cell::name(object),
        Cell::text(format!("{}/{desired}", number(&status["readyReplicas"]))),
        Cell::integer(number(&status["updatedReplicas"])),
        Cell::integer(number(&status["availableReplicas"])),
        Cell::age(object),
        Cell::text(names),
        Cell::text(images),
        Cell::text(workload::selector_text(&spec["selector"])),
    ]
}

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    fill(spec, "replicas", || json!(1));
    fill(spec, "revisionHistoryLimit", || json!(10));
    fill(spec, "progressDeadlineSeconds", || json!(600));
    fill(spec, "strategy", || json!({}));
    let strategy = &mut spec["strategy"];
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(strategy, "rollingUpdate", || json!({}));
        fill(&mut strategy["rollingUpdate"], "maxSurge", || json!("25%"));
        fill(&mut strategy["rollingUpdate"], "maxUnavailable", || json!("25%"));
    }
    if spec["template"].is_object() {
        pod_spec(&mut spec["template"]["spec"]);
    }
}

fn validate(_new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
