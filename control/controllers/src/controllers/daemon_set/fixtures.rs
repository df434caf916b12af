//! DaemonSets, nodes and pods for tests.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Pod},
};
use serde_json::{Value, json};

use crate::controllers::fixtures::merge;
pub use crate::controllers::fixtures::{now, with};

/// A set with the label `app: d`, changed by `patch`.
pub fn daemon_set(patch: Value) -> DaemonSet {
    let mut set = json!({"metadata": {"name": "d", "namespace": "default", "uid": "set", "generation": 2},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    merge(&mut set, &patch);
    serde_json::from_value(set).expect("a valid set")
}

/// Nodes that take every pod.
pub fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
    let node = |name: &&str| serde_json::from_value(json!({"metadata": {"name": name}})).expect("a valid node");
    names.iter().map(node).map(Arc::new).collect()
}

/// A pod of the present template, `new`.
pub fn pod(name: &str, node: &str, ready: &str) -> Arc<Pod> {
    of_revision("new", name, node, ready)
}

/// A pod of another template.
pub fn old_pod(name: &str, node: &str, ready: &str) -> Arc<Pod> {
    of_revision("old", name, node, ready)
}

fn of_revision(hash: &str, name: &str, node: &str, ready: &str) -> Arc<Pod> {
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
    let pod = json!({
        "metadata": {"name": name, "uid": name, "namespace": "default",
            "labels": {"app": "d", "controller-revision-hash": hash}},
        "spec": {"nodeName": node, "affinity": affinity, "containers": []},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    Arc::new(serde_json::from_value(pod).expect("a valid pod"))
}

/// `pod`, created at this moment.
pub fn created(pod: Arc<Pod>, at: &str) -> Arc<Pod> {
    with(pod, json!({"metadata": {"creationTimestamp": at}}))
}

/// Names of `pods`.
pub fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}
