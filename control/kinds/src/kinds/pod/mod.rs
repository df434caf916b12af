//! Pod: containers that share a network namespace and a lifecycle.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, json};

use super::{BuiltIn, Cell, Column, Deletion, Storage, prepare, reading::items};
use crate::rfc3339;

pub mod affinity;
mod annotations;
pub(super) mod containers;
pub mod defaults;
mod environment;
pub mod ephemeral_containers;
mod handlers;
mod mounts;
mod projected;
pub mod qos;
pub mod resize;
pub mod resources;
mod security;
pub mod sent_empties;
mod status;
mod summary;
mod termination;
pub mod tolerations;
mod update;
pub mod validation;
mod volumes;
mod windows;

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
    subresources: &[
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
        "resize",
        "status",
    ],
    storage: Storage::Stored,
    default: defaults::pod,
    validate: validation::pod,
    validate_sent: Some(|new, old, empties| sent_empties::refused_with(validation::pod(new, old), empties)),
    prepare: prepare_pod,
    prepare_status: status::prepare,
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
    deletion: Deletion { grace_seconds: termination::grace_seconds, ends_gracefully: true, ..Deletion::RETURNING },
    makes_paths_on_demand: true,
    ..BuiltIn::PLAIN
};

fn prepare_pod(new: &mut Value, old: Option<&Value>) {
    let initial = json!({"phase": "Pending", "qosClass": qos::class(&new["spec"])});
    prepare::keep_status(new, old, initial);
    drop_unknown(new);
    if old.is_none() {
        affinity::take_labels(new);
        annotations::move_app_armor_to_fields(new);
        if items(&new["spec"]["schedulingGates"]).len() > 0 {
            new["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": rfc3339::now()}]);
        }
    }
    prepare::count_generation(new, old);
}

/// Drops the fields of features that are off in Kubernetes 1.35, as it does, from a pod or a template.
pub fn drop_unknown(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let drop_field = |object: Option<&mut Value>, field: &str| {
        if let Some(object) = object.and_then(Value::as_object_mut) {
            object.shift_remove(field);
        }
    };
    drop_field(Some(spec), "workloadRef");
    for list in CONTAINER_LISTS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            drop_field(container.get_mut("lifecycle"), "stopSignal");
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        let sources = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut);
        for source in sources.into_iter().flatten() {
            drop_field(Some(source), "clusterTrustBundle");
            drop_field(Some(source), "podCertificate");
        }
    }
}

/// The lists of containers that a spec has, in the order in which Kubernetes visits them.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Every container of a spec. Init containers come first.
pub fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS.into_iter().flat_map(|list| items(&spec[list]))
}

/// Every container of a spec, with its place in it: `containers[0]`. Init containers come first.
fn each_container(spec: &Value) -> impl Iterator<Item = (String, &Value)> {
    CONTAINER_LISTS.into_iter().flat_map(move |list| {
        items(&spec[list]).enumerate().map(move |(i, container)| (format!("{list}[{i}]"), container))
    })
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
