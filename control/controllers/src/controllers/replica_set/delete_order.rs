//! Which pod is deleted first when there are too many. Source: Kubernetes' `ActivePodsWithRanks`.

use std::{cmp::Ordering, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use crate::objects::pod_state::{is_ready, node_name, phase, ready_since};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod with all that its position depends on. The least is deleted first.
pub struct Ranked<'a> {
    /// The pod itself.
    pub pod: &'a Arc<Pod>,
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    crowd: usize,
    /// Power of two of the nanoseconds since it became ready and since it was created: pods of about the same age are
    /// equal, so that a scale-down does not always hit the same zone.
    ready_age: i32,
    age: i32,
    restarts: i32,
}

impl<'a> Ranked<'a> {
    /// `crowd` is how many pods of the same family share the pod's node.
    pub fn new(pod: &'a Arc<Pod>, crowd: usize, now: Timestamp) -> Self {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
        Self {
            pod,
            assigned: node_name(pod).is_some(),
            phase: match phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready: is_ready(pod),
            cost: deletion_cost(pod),
            crowd,
            ready_age: if is_ready(pod) { age(ready_since(pod), now) } else { 0 },
            age: age(pod.metadata.creation_timestamp.as_ref().map(|t| t.0), now),
            restarts: statuses.iter().map(|s| s.restart_count).max().unwrap_or(0),
        }
    }
}

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.cmp(&other.ready))
            .then(self.cost.cmp(&other.cost))
            .then(other.crowd.cmp(&self.crowd))
            .then(self.ready_age.cmp(&other.ready_age))
            .then(other.restarts.cmp(&self.restarts))
            .then(self.age.cmp(&other.age))
            .then_with(|| self.pod.metadata.uid.cmp(&other.pod.metadata.uid))
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked<'_> {}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// log2 of the nanoseconds from `since` to `now`; -1 where the time is unknown or yet to come, which sorts first.
fn age(since: Option<Timestamp>, now: Timestamp) -> i32 {
    let Some(since) = since else { return -1 };
    let nanos = now.duration_since(since).as_nanos();
    if nanos <= 0 { -1 } else { i32::try_from(nanos.ilog2()).unwrap_or(i32::MAX) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, value: Value) -> Arc<Pod> {
        let mut value = value;
        value["metadata"]["name"] = json!(name);
        value["metadata"]["uid"] = json!(name);
        Arc::new(serde_json::from_value(value).expect("a valid pod"))
    }

    fn running(name: &str, ready_at: &str, annotations: Value, restarts: i32) -> Arc<Pod> {
        pod(
            name,
            json!({"metadata": {"annotations": annotations, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running",
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
                    "restartCount": restarts}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ready_at}]}}),
        )
    }

    #[test]
    fn the_order_is_that_of_kubernetes() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a valid time");
        let old = "2026-01-01T00:00:00Z";
        let pods = [
            (running("old", old, json!({}), 0), 1),
            (running("restarted", old, json!({}), 3), 1),
            (running("young", "2026-01-01T23:59:59Z", json!({}), 0), 1),
            (running("crowded", old, json!({}), 0), 5),
            (running("cheap", old, json!({DELETION_COST: "-10"}), 0), 1),
            (pod("not-ready", json!({"spec": {"nodeName": "n", "containers": []}, "status": {"phase": "Running"}})), 1),
            (pod("pending", json!({"spec": {"nodeName": "n", "containers": []}, "status": {"phase": "Pending"}})), 1),
            (pod("unassigned", json!({"status": {"phase": "Pending"}})), 0),
        ];
        let mut ranked: Vec<Ranked> = pods.iter().map(|(pod, crowd)| Ranked::new(pod, *crowd, now)).collect();
        ranked.sort();
        let order: Vec<&str> = ranked.iter().filter_map(|r| r.pod.metadata.name.as_deref()).collect();
        assert_eq!(order, ["unassigned", "pending", "not-ready", "cheap", "crowded", "young", "restarted", "old"]);
    }
}
