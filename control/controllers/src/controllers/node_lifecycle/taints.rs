//! The taints that follow from a node's conditions and spec. Pure.

use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::health::{Readiness, condition, readiness};
use crate::objects::taints::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, UNSCHEDULABLE};

/// Conditions that keep pods away while they hold.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// What becomes of the taint that evicts the pods of a node that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoExecute {
    /// It is put on the node.
    Add,
    /// Not added, but not removed where it is.
    Keep,
    /// It is taken off the node.
    Remove,
}

/// Whether the node has a taint that evicts pods because the node is not ready.
pub fn is_evicting(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|t| t.effect == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&t.key.as_str()))
}

/// All the node's taints as they should be, or `None` if they are so.
pub fn desired(node: &Node, no_execute: NoExecute, now: Timestamp) -> Option<Vec<Taint>> {
    let standing = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let evict = no_execute == NoExecute::Add || (no_execute == NoExecute::Keep && is_evicting(node));
    let wanted = wanted(node, evict);
    let ours = |taint: &Taint| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
            || PRESSURES.iter().any(|(_, key)| *key == taint.key)
    };
    let is = |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let mut taints: Vec<Taint> =
        standing.iter().filter(|taint| !ours(taint) || wanted.iter().any(|w| is(taint, w))).cloned().collect();
    for want in &wanted {
        if !taints.iter().any(|taint| is(taint, want)) {
            taints.push(Taint { key: want.0.into(), effect: want.1.into(), value: None, time_added: Some(Time(now)) });
        }
    }
    (taints != standing).then_some(taints)
}

fn wanted(node: &Node, evict: bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let lost = match readiness(node) {
        Readiness::Ready => None,
        Readiness::NotReady => Some(NOT_READY),
        Readiness::Unknown => Some(UNREACHABLE),
    };
    if let Some(key) = lost {
        wanted.push((key, NO_SCHEDULE));
        if evict {
            wanted.push((key, NO_EXECUTE));
        }
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|c| c.status == "True") {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(ready: &str, spec: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .expect("a valid node")
    }

    fn told(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|taints| taints.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect())
    }

    #[test]
    fn readiness_decides_the_taints_and_foreign_ones_stay() {
        let now = Timestamp::now();
        let own = json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}]});
        assert_eq!(desired(&node("True", own.clone()), NoExecute::Add, now), None);
        let unknown = told(desired(&node("Unknown", own.clone()), NoExecute::Add, now)).expect("a change");
        assert_eq!(
            unknown,
            ["gpu:NoSchedule", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
        );
        let mut lost = node("Unknown", own);
        lost.spec.get_or_insert_default().taints = desired(&lost, NoExecute::Add, now);
        assert_eq!(desired(&lost, NoExecute::Add, now), None, "the time of a taint stays");
        lost.status = node("True", json!({})).status;
        assert_eq!(told(desired(&lost, NoExecute::Add, now)), Some(vec!["gpu:NoSchedule".into()]));
    }

    #[test]
    fn pods_are_evicted_only_when_permitted_and_what_was_begun_is_kept_or_taken_back() {
        let now = Timestamp::now();
        let fresh = node("False", json!({}));
        let only_kept_away = Some(vec!["node.kubernetes.io/not-ready:NoSchedule".to_owned()]);
        assert_eq!(told(desired(&fresh, NoExecute::Keep, now)), only_kept_away);
        assert_eq!(told(desired(&fresh, NoExecute::Remove, now)), only_kept_away);
        let mut evicting = fresh;
        evicting.spec.get_or_insert_default().taints = desired(&evicting, NoExecute::Add, now);
        assert!(is_evicting(&evicting));
        assert_eq!(desired(&evicting, NoExecute::Keep, now), None);
        assert_eq!(told(desired(&evicting, NoExecute::Remove, now)), only_kept_away);
        evicting.status = node("Unknown", json!({})).status;
        let swapped = told(desired(&evicting, NoExecute::Keep, now)).unwrap_or_default();
        assert!(swapped.contains(&"node.kubernetes.io/unreachable:NoExecute".to_owned()), "{swapped:?}");
    }

    #[test]
    fn a_cordoned_node_is_tainted_until_it_is_uncordoned() {
        let mut cordoned = node("True", json!({"unschedulable": true}));
        let taints = desired(&cordoned, NoExecute::Add, Timestamp::now());
        assert_eq!(told(taints.clone()), Some(vec!["node.kubernetes.io/unschedulable:NoSchedule".into()]));
        let spec = cordoned.spec.get_or_insert_default();
        (spec.taints, spec.unschedulable) = (taints, None);
        assert_eq!(told(desired(&cordoned, NoExecute::Add, Timestamp::now())), Some(Vec::new()));
    }
}
