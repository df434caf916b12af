//! What a pod's status shows: active, ready, available. Pure readings, no decisions.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    jiff::Timestamp,
};

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// The pod's phase.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Finished: phase Succeeded or Failed.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Counts towards its controller's replicas.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Whether the pod reports that it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when the pod has been ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|c| c.status == "True")?.last_transition_time.as_ref().map(|t| t.0)
}

/// The node the pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// Whether a pod has been ready for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// For long enough.
    Available,
    /// Ready, and available after this time if it stays so.
    In(Duration),
    /// It is not ready now.
    NotReady,
}

/// Whether the pod has been ready for `min_ready_seconds` at `now`.
pub fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::NotReady;
    }
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let needed = Duration::from_secs(min_ready_seconds.unsigned_abs().into());
    let Some(since) = ready_since(pod) else { return Availability::In(needed) };
    let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match needed.checked_sub(elapsed) {
        None | Some(Duration::ZERO) => Availability::Available,
        Some(rest) => Availability::In(rest),
    }
}

/// Whether a change of a pod can change what its controller or its Services count. Binding a pod to a node does not.
pub fn counts_differently(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels != new.metadata.labels
        || old.metadata.owner_references != new.metadata.owner_references
        || is_terminating(old) != is_terminating(new)
        || phase(old) != phase(new)
        || condition(old, "Ready").map(|c| (&c.status, &c.last_transition_time))
            != condition(new, "Ready").map(|c| (&c.status, &c.last_transition_time))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready_at: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ready_at}]}}))
        .expect("a valid pod")
    }

    #[test]
    fn a_pod_is_available_after_min_ready_seconds_of_readiness() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().expect("a valid time");
        assert_eq!(availability(&pod("2026-01-01T00:00:10Z"), 0, now), Availability::Available);
        assert_eq!(availability(&pod("2026-01-01T00:00:08Z"), 5, now), Availability::In(Duration::from_secs(3)));
        assert_eq!(availability(&pod("2026-01-01T00:00:05Z"), 5, now), Availability::Available);
        assert_eq!(availability(&Pod::default(), 0, now), Availability::NotReady);
    }
}
