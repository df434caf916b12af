//! Which conditions of a node become Unknown when it stops sending heartbeats. Pure.

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

/// Conditions that only the node itself reports.
const REPORTED_BY_NODE: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Whether a node reports that it can run pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It reports that it can run pods.
    Ready,
    /// It reports that it cannot.
    NotReady,
    /// It stopped reporting.
    Unknown,
}

/// The node's readiness, by its Ready condition.
pub fn readiness(node: &Node) -> Readiness {
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("Unknown") => Readiness::Unknown,
        // A node that never reported is not ready, but may be about to become so.
        Some(_) | None => Readiness::NotReady,
    }
}

/// The condition of this type.
pub fn condition<'n>(node: &'n Node, kind: &str) -> Option<&'n NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// The conditions to write for a node that has been silent for too long; those that are Unknown already are left out.
pub fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let stale = |kind: &str| -> Option<NodeCondition> {
        let standing = condition(node, kind);
        if standing.is_some_and(|c| c.status == "Unknown") {
            return None;
        }
        let (reason, message) = match standing {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        Some(NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: standing
                .and_then(|c| c.last_heartbeat_time.clone())
                .or_else(|| node.metadata.creation_timestamp.clone()),
            last_transition_time: Some(Time(now)),
        })
    };
    REPORTED_BY_NODE.into_iter().filter_map(stale).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_silent_node_is_unknown_in_all_it_vouches_for_and_only_once() {
        let mut node: Node = serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions":
            [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}}))
        .expect("a valid node");
        assert_eq!(readiness(&node), Readiness::Ready);
        let conditions = unknown_conditions(&node, Timestamp::now());
        let reasons: Vec<_> = conditions.iter().filter_map(|c| c.reason.as_deref()).collect();
        assert_eq!(reasons[0], "NodeStatusUnknown");
        assert_eq!(reasons[1..], ["NodeStatusNeverUpdated"; 3]);
        node.status.get_or_insert_default().conditions = Some(conditions);
        assert_eq!(readiness(&node), Readiness::Unknown);
        assert!(unknown_conditions(&node, Timestamp::now()).is_empty());
    }
}
