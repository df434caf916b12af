//! StatefulSets and pods for tests.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, PodTemplateSpec},
};
use serde_json::{Value, json};

use super::identity::{self, Revision};
use crate::controllers::fixtures::merge;
pub use crate::controllers::fixtures::{now, with};

/// A set `web` with the label `app: web`, changed by `patch`.
pub fn stateful_set(replicas: i32, patch: Value) -> StatefulSet {
    let mut set = json!({"metadata": {"name": "web", "namespace": "default", "uid": "set", "generation": 2},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template("new"),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}});
    merge(&mut set, &patch);
    serde_json::from_value(set).expect("a valid set")
}

/// A template with one container.
pub fn template(image: &str) -> PodTemplateSpec {
    serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]}}))
    .expect("a valid template")
}

/// A revision with the template of its name.
pub fn revision(name: &str) -> Revision {
    Revision { name: name.into(), template: template(name) }
}

/// A pod of `set` as it became: `phase`, and whether it is ready.
pub fn member(set: &StatefulSet, of: &str, ordinal: i32, phase: &str, ready: &str) -> Arc<Pod> {
    let mut pod = identity::pod(set, &revision(of), ordinal);
    pod.metadata.uid = Some(format!("uid-{ordinal}"));
    let pod = Arc::new(pod);
    with(
        pod,
        json!({"status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
    )
}

/// A running and ready pod.
pub fn healthy(set: &StatefulSet, of: &str, ordinal: i32) -> Arc<Pod> {
    member(set, of, ordinal, "Running", "True")
}

/// `pod`, being deleted.
pub fn terminating(pod: Arc<Pod>) -> Arc<Pod> {
    with(pod, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:09:00Z"}}))
}
