//! Pod: containers that share a network namespace and a lifecycle.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, json};

use super::{BuiltIn, Cell, Column, Deletion, Storage, prepare};

mod containers;
pub mod defaults;
mod qos;
mod summary;
mod termination;
mod update;
pub mod validation;
mod volumes;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    subresources: &["binding", "eviction", "log", "status"],
    storage: Storage::Stored,
    default: defaults::pod,
    validate: validation::pod,
    prepare: prepare_pod,
    columns: &[
        Column::name(),
        Column::text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
        Column::text("Status", "The aggregate status of the containers in this pod."),
        Column::text(
            "Restarts",
            "The number of times the containers in this pod have been restarted and when the last container in this pod has \
             restarted.",
        ),
        Column::age(),
        Column::wide("IP", "Address of the pod."),
        Column::wide("Node", "Node that the pod is bound to."),
        Column::wide("Nominated Node", "Node where room is being made for the pod."),
        Column::wide("Readiness Gates", "Conditions that must hold beside the containers' readiness."),
    ],
    cells,
    selectable,
    indexed: &[Cow::Borrowed("spec.nodeName")],
    schema: "io.k8s.api.core.v1.Pod",
    deletion: Deletion { grace_seconds: termination::grace_seconds, ..Deletion::PLAIN },
    ..BuiltIn::PLAIN
};

fn prepare_pod(new: &mut Value, old: Option<&Value>) {
    let initial = json!({"phase": "Pending", "qosClass": qos::class(&new["spec"])});
    prepare::keep_status(new, old, initial);
    prepare::count_generation(new, old);
}

fn cells(pod: &Value) -> Vec<Cell> {
    let summary = summary::of(pod);
    let or_none = |v: &Value| Cell::text(v.as_str().filter(|s| !s.is_empty()).unwrap_or("<none>"));
    vec![
        Cell::name(pod),
        Cell::text(format!("{}/{}", summary.ready, summary.containers)),
        Cell::text(summary.reason),
        match summary.last_restart.is_null() || summary.restarts == 0 {
            true => Cell::text(summary.restarts.to_string()),
            false => Cell::since_text(&format!("{} (", summary.restarts), &summary.last_restart, " ago)"),
        },
        Cell::age(pod),
        or_none(&pod["status"]["podIPs"][0]["ip"]),
        or_none(&pod["spec"]["nodeName"]),
        or_none(&pod["status"]["nominatedNodeName"]),
        Cell::text(readiness_gates(pod)),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod["spec"]["readinessGates"].as_array().filter(|gates| !gates.is_empty());
    let Some(gates) = gates else { return "<none>".to_owned() };
    let holds = |gate: &&Value| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
    };
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

fn selectable(pod: &Value) -> BTreeMap<&'static str, String> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    BTreeMap::from([
        ("spec.nodeName", text(&spec["nodeName"])),
        ("spec.restartPolicy", text(&spec["restartPolicy"])),
        ("spec.schedulerName", text(&spec["schedulerName"])),
        ("spec.serviceAccountName", text(&spec["serviceAccountName"])),
        ("spec.hostNetwork", spec["hostNetwork"].as_bool().unwrap_or(false).to_string()),
        ("status.phase", text(&status["phase"])),
        ("status.podIP", text(&status["podIPs"][0]["ip"])),
        ("status.nominatedNodeName", text(&status["nominatedNodeName"])),
    ])
}
