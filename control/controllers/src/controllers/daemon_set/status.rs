//! What a DaemonSet reports of its nodes and pods. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::{nodes::DaemonNodes, placement::Placement};
use crate::objects::pod_state::{Availability, is_ready};

/// The status to report, and when it changes by time alone. `acted` is whether this pass decided on the set's present
/// generation.
pub fn desired(
    set: &DaemonSet,
    nodes: &DaemonNodes<'_>,
    collisions: i32,
    acted: bool,
) -> (DaemonSetStatus, Option<Duration>) {
    let old = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: if acted { set.metadata.generation } else { old.observed_generation },
        collision_count: (collisions > 0).then_some(collisions).or(old.collision_count),
        conditions: old.conditions,
        ..Default::default()
    };
    let (mut updated, mut available) = (0_i32, 0_i32);
    let mut timer: Option<Duration> = None;
    for (node, placement) in &nodes.placements {
        // The oldest speaks for the node.
        let pod = nodes.pods.get(node).and_then(|pods| pods.first());
        if *placement != Placement::Run {
            increment(&mut status.number_misscheduled, pod.is_some());
            continue;
        }
        increment(&mut status.desired_number_scheduled, true);
        let Some(pod) = pod else { continue };
        increment(&mut status.current_number_scheduled, true);
        increment(&mut status.number_ready, is_ready(pod));
        increment(&mut updated, nodes.is_updated(pod));
        match nodes.availability(pod) {
            Availability::Available => increment(&mut available, true),
            Availability::In(rest) => timer = Some(timer.map_or(rest, |soonest| soonest.min(rest))),
            Availability::NotReady => {}
        }
    }
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available);
    status.number_unavailable = Some(status.desired_number_scheduled.saturating_sub(available));
    (status, timer)
}

fn increment(count: &mut i32, if_so: bool) {
    *count = count.saturating_add(i32::from(if_so));
}

/// Whether both say the same: a counter that is absent is zero.
pub fn says_the_same(a: &DaemonSetStatus, b: &DaemonSetStatus) -> bool {
    let normalised = |status: &DaemonSetStatus| DaemonSetStatus {
        updated_number_scheduled: Some(status.updated_number_scheduled.unwrap_or(0)),
        number_available: Some(status.number_available.unwrap_or(0)),
        number_unavailable: Some(status.number_unavailable.unwrap_or(0)),
        ..status.clone()
    };
    normalised(a) == normalised(b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::daemon_set::fixtures::{daemon_set, nodes, now, old_pod, pod, with};

    #[test]
    fn nodes_are_counted_by_what_they_should_run_and_have() {
        let set =
            daemon_set(json!({"spec": {"minReadySeconds": 10, "template": {"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "NotIn", "values": ["n5"]}]}]}}}}}}}));
        let young = with(
            pod("c", "n3", "True"),
            json!({"status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:09:56Z"}]}}),
        );
        let pods = [old_pod("a", "n1", "True"), pod("b", "n2", "False"), young, pod("misplaced", "n5", "True")];
        let all = nodes(&["n1", "n2", "n3", "n4", "n5"]);
        let nodes = DaemonNodes::new(&set, "new", &all, &pods, now());
        let (status, timer) = desired(&set, &nodes, 0, true);
        let expected = json!({"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberMisscheduled": 1,
            "numberReady": 2, "numberAvailable": 1, "numberUnavailable": 3, "updatedNumberScheduled": 2,
            "observedGeneration": 2});
        assert_eq!(serde_json::to_value(&status).expect("a status"), expected);
        assert_eq!(timer, Some(Duration::from_secs(6)));
        assert_eq!(desired(&set, &nodes, 0, false).0.observed_generation, None);
        assert_eq!(desired(&set, &nodes, 2, true).0.collision_count, Some(2));
    }

    #[test]
    fn absent_counters_are_zero() {
        let stored = DaemonSetStatus::default();
        let new = DaemonSetStatus { number_available: Some(0), ..Default::default() };
        assert!(says_the_same(&stored, &new));
        assert!(!says_the_same(&stored, &DaemonSetStatus { number_available: Some(1), ..new }));
    }
}
