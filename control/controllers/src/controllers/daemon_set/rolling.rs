//! One step of a DaemonSet's rollout: old pods that go, or nodes that get a second pod first. Pure.
//!
//! Taken only when all nodes have what they should (see [`super::plan`]). Source: `rollingUpdate` of Kubernetes'
//! DaemonSet controller.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{
    nodes::{DaemonNodes, RollingLimits},
    placement::Placement,
    plan::DaemonPlan,
};
use crate::objects::pod_state::is_terminating;

/// A node's pods that are not terminating.
enum Stage<'p> {
    /// More than one of a kind: [`super::plan`] deletes those first.
    Excess,
    /// None.
    Empty,
    New(&'p Arc<Pod>),
    Old(&'p Arc<Pod>),
    Both {
        new: &'p Arc<Pod>,
        old: &'p Arc<Pod>,
    },
}

/// Decides the next step.
pub fn step(nodes: &DaemonNodes<'_>) -> DaemonPlan {
    match nodes.limits() {
        None => DaemonPlan::default(),
        Some(RollingLimits { surge: 0, unavailable }) => replace(nodes, unavailable),
        Some(RollingLimits { surge, .. }) => surge_step(nodes, surge),
    }
}

/// The stages of nodes that have pods or should have one.
fn stages<'p>(nodes: &'p DaemonNodes<'_>) -> impl Iterator<Item = (&'p str, Stage<'p>)> {
    let empty = nodes
        .placements
        .iter()
        .filter(|(node, placement)| **placement == Placement::Run && !nodes.pods.contains_key(*node));
    let empty = empty.map(|(node, _)| (node.as_str(), Stage::Empty));
    empty.chain(nodes.pods.iter().map(|(node, pods)| (node.as_str(), stage(nodes, pods))))
}

fn stage<'p>(nodes: &DaemonNodes<'_>, pods: &'p [Arc<Pod>]) -> Stage<'p> {
    let staying = pods.iter().filter(|pod| !is_terminating(pod));
    let (new, old): (Vec<_>, Vec<_>) = staying.partition(|pod| nodes.is_updated(pod));
    match (&new[..], &old[..]) {
        ([], []) => Stage::Empty,
        ([new], []) => Stage::New(new),
        ([], [old]) => Stage::Old(old),
        ([new], [old]) => Stage::Both { new, old },
        _ => Stage::Excess,
    }
}

/// Deletes old pods: those that are not available at once, others as far as so many nodes may be without.
fn replace(nodes: &DaemonNodes<'_>, most_unavailable: usize) -> DaemonPlan {
    let (mut unavailable, mut candidates) = (0_usize, Vec::new());
    let mut plan = DaemonPlan::default();
    for (_, stage) in stages(nodes) {
        match stage {
            Stage::Old(old) if nodes.is_available(old) => candidates.push(old.clone()),
            Stage::Old(old) => {
                plan.delete.push(old.clone());
                unavailable = unavailable.saturating_add(1);
            }
            Stage::New(new) if nodes.is_available(new) => {}
            Stage::New(_) | Stage::Excess | Stage::Empty | Stage::Both { .. } => {
                unavailable = unavailable.saturating_add(1);
            }
        }
    }
    candidates.truncate(most_unavailable.saturating_sub(unavailable));
    plan.delete.extend(candidates);
    plan
}

/// Starts new pods beside old ones, and deletes an old one when its successor is available.
fn surge_step(nodes: &DaemonNodes<'_>, most: usize) -> DaemonPlan {
    let (mut surging, mut available) = (0_usize, 0_usize);
    let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
    let mut plan = DaemonPlan::default();
    for (node, stage) in stages(nodes) {
        let counted = match &stage {
            Stage::New(pod) | Stage::Old(pod) | Stage::Both { old: pod, .. } => nodes.is_available(pod),
            Stage::Excess | Stage::Empty => false,
        };
        available = available.saturating_add(usize::from(counted));
        let runs = nodes.placement(node) == Placement::Run;
        match stage {
            Stage::Excess => surging = surging.saturating_add(1),
            Stage::Empty | Stage::New(_) => {}
            Stage::Both { new, .. } if !nodes.is_available(new) => surging = surging.saturating_add(1),
            Stage::Both { old, .. } => plan.delete.push(old.clone()),
            Stage::Old(old) => match (nodes.is_available(old), runs) {
                (false, false) => plan.delete.push(old.clone()),
                // It serves nobody: its successor does not count as surge.
                (false, true) => plan.create.push(node.to_owned()),
                (true, false) => misplaced.push(old.clone()),
                (true, true) => candidates.push(node.to_owned()),
            },
        }
    }
    // A pod whose node should not run it any more stays until enough others are available.
    misplaced.truncate(available.saturating_sub(nodes.wanted()));
    candidates.truncate(most.saturating_sub(surging));
    plan.delete.extend(misplaced);
    plan.create.extend(candidates);
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controllers::daemon_set::fixtures::{daemon_set, names, nodes, now, old_pod, pod, with};

    fn decide(strategy: Value, pods: &[Arc<Pod>]) -> DaemonPlan {
        let set = daemon_set(json!({"spec": {"updateStrategy": strategy}}));
        let all = nodes(&["n1", "n2", "n3", "n4"]);
        step(&DaemonNodes::new(&set, "new", &all, pods, now()))
    }

    fn rolling(surge: Value, unavailable: Value) -> Value {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
    }

    fn all_old() -> Vec<Arc<Pod>> {
        ["n1", "n2", "n3", "n4"].iter().map(|node| old_pod(node, node, "True")).collect()
    }

    #[test]
    fn as_many_old_pods_go_as_may_be_unavailable() {
        let pods = all_old();
        let cases = [
            (rolling(json!(0), json!(1)), vec!["n1"]),
            (rolling(json!(0), json!("50%")), vec!["n1", "n2"]),
            (rolling(json!(0), json!("30%")), vec!["n1", "n2"]),
            (rolling(json!(0), json!(9)), vec!["n1", "n2", "n3", "n4"]),
            // Neither is allowed: one may be unavailable all the same.
            (rolling(json!(0), json!(0)), vec!["n1"]),
            (json!({"type": "OnDelete"}), vec![]),
        ];
        for (strategy, expected) in cases {
            let plan = decide(strategy.clone(), &pods);
            assert_eq!((names(&plan.delete), plan.create.len()), (expected, 0), "{strategy}");
        }
    }

    #[test]
    fn what_is_unavailable_already_counts_and_unavailable_old_pods_go_first() {
        let one = || rolling(json!(0), json!(1));
        let mut pods = all_old();
        pods[1] = pod("n2", "n2", "False");
        assert!(decide(one(), &pods).is_empty(), "the new pod of n2 is not available yet");
        pods[1] = pod("n2", "n2", "True");
        assert_eq!(names(&decide(one(), &pods).delete), ["n1"]);
        pods[3] = old_pod("n4", "n4", "False");
        assert_eq!(names(&decide(one(), &pods).delete), ["n4"], "it serves nobody");
        pods[2] = old_pod("n3", "n3", "False");
        assert_eq!(names(&decide(one(), &pods).delete), ["n3", "n4"]);
        let terminating = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let mut pods = all_old();
        pods[0] = with(pods[0].clone(), terminating);
        assert!(decide(one(), &pods).is_empty(), "its successor is awaited");
        assert!(decide(one(), &all_old()[..3]).is_empty(), "n4 has none yet");
    }

    #[test]
    fn with_surge_new_pods_start_beside_the_old_ones() {
        let one = || rolling(json!(1), json!(0));
        let mut pods = all_old();
        assert_eq!(decide(one(), &pods).create, ["n1"]);
        assert_eq!(decide(rolling(json!("50%"), json!(0)), &pods).create, ["n1", "n2"]);
        pods.push(pod("n1-new", "n1", "False"));
        assert!(decide(one(), &pods).is_empty());
        pods[4] = pod("n1-new", "n1", "True");
        let plan = decide(one(), &pods);
        assert_eq!((names(&plan.delete), plan.create), (vec!["n1"], vec!["n2".to_owned()]));
        let mut pods = all_old();
        pods[2] = old_pod("n3", "n3", "False");
        assert_eq!(decide(one(), &pods).create, ["n3", "n1"], "an unavailable one is replaced beyond the surge");
    }

    #[test]
    fn with_surge_a_misplaced_pod_stays_until_enough_others_are_available() {
        let set = daemon_set(json!({"spec": {"updateStrategy": rolling(json!(1), json!(0)),
            "template": {"spec": {"nodeSelector": {"on": "yes"}}}}}));
        let mut all = nodes(&["n1", "n2"]);
        let mut labelled = k8s_openapi::api::core::v1::Node::clone(&all[1]);
        labelled.metadata.labels = Some([("on".to_owned(), "yes".to_owned())].into());
        all[1] = Arc::new(labelled);
        let step = |pods: &[Arc<Pod>]| -> Vec<String> {
            let plan = super::step(&DaemonNodes::new(&set, "new", &all, pods, now()));
            names(&plan.delete).into_iter().map(str::to_owned).collect()
        };
        let old = old_pod("old", "n1", "True");
        assert_eq!(step(&[old.clone(), pod("next", "n2", "False")]), [""; 0]);
        assert_eq!(step(&[old, pod("next", "n2", "True")]), ["old"]);
        assert_eq!(step(&[old_pod("old", "n1", "False"), pod("next", "n2", "False")]), ["old"]);
    }

    #[test]
    fn a_pod_of_the_same_template_generation_is_updated() {
        let mut set = daemon_set(json!({}));
        set.metadata.annotations = Some([("deprecated.daemonset.template.generation".into(), "3".into())].into());
        let labelled =
            with(old_pod("a", "n1", "True"), json!({"metadata": {"labels": {"pod-template-generation": "3"}}}));
        let all = nodes(&["n1"]);
        assert!(step(&DaemonNodes::new(&set, "new", &all, &[labelled], now())).is_empty());
    }
}
