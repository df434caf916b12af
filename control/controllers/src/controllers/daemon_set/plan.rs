//! Which nodes get a pod of a DaemonSet, and which pods go, apart from rollouts. Pure.

use std::{collections::HashSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;

use super::{nodes::DaemonNodes, placement::Placement};
use crate::objects::pod_state::{is_ready, is_terminating, node_name, phase};

/// Most pods that one pass creates, and most that it deletes. Source: `BurstReplicas` of `pkg/controller/daemon`.
pub const BURST: usize = 250;

/// What one pass changes.
#[derive(Debug, Default)]
pub struct DaemonPlan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go.
    pub delete: Vec<Arc<Pod>>,
    /// Of those that go, the ones that failed, with their nodes.
    pub failed: Vec<(String, Arc<Pod>)>,
    /// Of those that go, the ones that ended well: a daemon should not.
    pub succeeded: Vec<Arc<Pod>>,
    /// When the next failed pod can be replaced.
    pub retry: Option<Duration>,
}

impl DaemonPlan {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }

    /// As much of it as one pass does; what is left is decided on anew, once the view shows what this pass did.
    pub fn within_burst(mut self) -> Self {
        self.create.truncate(BURST);
        if self.delete.len() > BURST {
            self.delete.truncate(BURST);
            let going: HashSet<*const Pod> = self.delete.iter().map(Arc::as_ptr).collect();
            self.failed.retain(|(_, pod)| going.contains(&Arc::as_ptr(pod)));
            self.succeeded.retain(|pod| going.contains(&Arc::as_ptr(pod)));
        }
        self
    }
}

/// Decides over all nodes. `wait` is how long a failed pod of a node still stays. Source: `podsShouldBeOnNode`.
pub fn plan(nodes: &DaemonNodes<'_>, wait: impl Fn(&str) -> Option<Duration>) -> DaemonPlan {
    let mut plan = DaemonPlan::default();
    for (node, placement) in &nodes.placements {
        match (placement, nodes.pods.get(node)) {
            (Placement::Run, None) => plan.create.push(node.clone()),
            (Placement::Run | Placement::Keep, Some(pods)) => {
                let running = sort_out(&mut plan, node, pods, &wait);
                if nodes.allows_surge() {
                    if running.is_empty() && *placement == Placement::Run {
                        plan.create.push(node.clone());
                    }
                    plan.delete.extend(beyond_surge(nodes, &running));
                } else {
                    plan.delete.extend(running.into_iter().skip(1).cloned());
                }
            }
            (Placement::Refuse, Some(pods)) => {
                plan.delete.extend(pods.iter().filter(|pod| !is_terminating(pod)).cloned());
            }
            (Placement::Keep | Placement::Refuse, None) => {}
        }
    }
    // The scheduler will never bind them, and the garbage collector of pods leaves unbound ones alone.
    let gone = nodes.pods.iter().filter(|(node, _)| !nodes.placements.contains_key(*node));
    let unbound = |pod: &&Arc<Pod>| node_name(pod).is_none() && !is_terminating(pod);
    plan.delete.extend(gone.flat_map(|(_, pods)| pods).filter(unbound).cloned());
    plan
}

/// Ended pods go; returns those that run.
fn sort_out<'p>(
    plan: &mut DaemonPlan,
    node: &str,
    pods: &'p [Arc<Pod>],
    wait: impl Fn(&str) -> Option<Duration>,
) -> Vec<&'p Arc<Pod>> {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|pod| !is_terminating(pod)) {
        match (phase(pod), wait(node)) {
            ("Failed", Some(rest)) => plan.retry = Some(plan.retry.map_or(rest, |soonest| soonest.min(rest))),
            ("Failed", None) => {
                plan.failed.push((node.to_owned(), pod.clone()));
                plan.delete.push(pod.clone());
            }
            ("Succeeded", _) => {
                plan.succeeded.push(pod.clone());
                plan.delete.push(pod.clone());
            }
            _ => running.push(pod),
        }
    }
    running
}

/// With surge a node has two pods while the old one is ready and the new one is not yet available.
fn beyond_surge(nodes: &DaemonNodes<'_>, running: &[&Arc<Pod>]) -> Vec<Arc<Pod>> {
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = running.iter().partition(|pod| nodes.has_hash(pod));
    let mut beyond: Vec<Arc<Pod>> = new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| Arc::clone(pod)).collect();
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!is_ready(old) || nodes.is_available(new))
    {
        beyond.push(Arc::clone(old));
    }
    beyond
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controllers::daemon_set::fixtures::{created, daemon_set, names, nodes, now, old_pod, pod, with};

    fn decide(set: Value, pods: &[Arc<Pod>]) -> DaemonPlan {
        let set = daemon_set(set);
        plan(&DaemonNodes::new(&set, "new", &nodes(&["n1", "n2"]), pods, now()), |_| None)
    }

    #[test]
    fn each_node_gets_one_pod_and_the_oldest_stays() {
        let plan = decide(json!({}), &[pod("a", "n2", "True")]);
        assert_eq!((plan.create, plan.delete.len()), (vec!["n1".to_owned()], 0));
        let younger = created(pod("younger", "n1", "True"), "2026-01-01T00:00:02Z");
        let older = created(pod("older", "n1", "True"), "2026-01-01T00:00:01Z");
        let unbound = with(pod("unbound", "n1", "False"), json!({"spec": {"nodeName": null}}));
        let plan = decide(json!({}), &[unbound, younger, older, pod("b", "n2", "False")]);
        assert_eq!((plan.create.len(), names(&plan.delete)), (0, vec!["younger", "unbound"]));
    }

    #[test]
    fn nodes_that_refuse_lose_their_pods_and_terminating_ones_are_left_alone() {
        let elsewhere = json!({"spec": {"template": {"spec": {"nodeName": "n1"}}}});
        let going =
            with(pod("going", "n2", "True"), json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let plan = decide(elsewhere, &[pod("a", "n1", "True"), pod("b", "n2", "True"), going.clone()]);
        assert_eq!((plan.create.len(), names(&plan.delete)), (0, vec!["b"]));
        let plan = decide(json!({}), &[going, pod("a", "n1", "True")]);
        assert!(plan.is_empty(), "a node with a terminating pod gets the next when that is gone");
    }

    #[test]
    fn ended_pods_are_replaced_and_failed_ones_only_after_their_wait() {
        let failed = with(pod("failed", "n1", "False"), json!({"status": {"phase": "Failed"}}));
        let done = with(pod("done", "n2", "False"), json!({"status": {"phase": "Succeeded"}}));
        let pods = [failed.clone(), done];
        let first = decide(json!({}), &pods);
        assert_eq!(names(&first.delete), ["failed", "done"]);
        assert_eq!((first.failed.len(), first.succeeded.len(), first.create.len()), (1, 1, 0));
        let set = daemon_set(json!({}));
        let all = nodes(&["n1"]);
        let nodes = DaemonNodes::new(&set, "new", &all, &pods[..1], now());
        let waits = plan(&nodes, |_| Some(Duration::from_secs(4)));
        assert!(waits.is_empty());
        assert_eq!(waits.retry, Some(Duration::from_secs(4)));
        let gone = with(failed, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert_eq!(decide(json!({}), &[gone]).create, ["n1", "n2"], "nothing is left to do about it");
    }

    #[test]
    fn of_ended_pods_beyond_the_burst_nothing_is_said_yet() {
        let ended = |phase: &str, number: usize| {
            with(pod(&format!("{phase}-{number}"), "n1", "False"), json!({"status": {"phase": phase}}))
        };
        let pods: Vec<_> =
            (0..BURST).flat_map(|number| [ended("Failed", number), ended("Succeeded", number)]).collect();
        let all = decide(json!({}), &pods);
        assert_eq!((all.delete.len(), all.failed.len(), all.succeeded.len()), (2 * BURST, BURST, BURST));
        let first = all.within_burst();
        let said: HashSet<_> =
            first.failed.iter().map(|(_, pod)| pod).chain(&first.succeeded).map(|pod| &pod.metadata.name).collect();
        let deleted: HashSet<_> = first.delete.iter().map(|pod| &pod.metadata.name).collect();
        assert_eq!((deleted.len(), said == deleted), (BURST, true));
    }

    #[test]
    fn unbound_pods_of_nodes_that_are_gone_go_and_bound_ones_are_the_collectors() {
        let unbound = with(
            pod("unbound", "n1", "False"),
            json!({"spec": {"nodeName": null, "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": ["gone"]}]}]}}}}}),
        );
        let pods = [pod("a", "n1", "True"), pod("b", "n2", "True"), pod("c", "gone", "True"), unbound];
        assert_eq!(names(&decide(json!({}), &pods).delete), ["unbound"]);
    }

    #[test]
    fn with_surge_the_old_pod_stays_until_the_new_one_is_available() {
        let surge = || {
            json!({"spec": {"minReadySeconds": 10, "updateStrategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}})
        };
        let other = || pod("other", "n2", "True");
        let beyond = |new: Arc<Pod>, old: Arc<Pod>| -> Vec<String> {
            names(&decide(surge(), &[new, old, other()]).delete).into_iter().map(str::to_owned).collect()
        };
        let young = || {
            with(
                pod("new", "n1", "True"),
                json!({"status": {"conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:09:55Z"}]}}),
            )
        };
        assert_eq!(beyond(pod("new", "n1", "False"), old_pod("old", "n1", "True")), [""; 0]);
        assert_eq!(beyond(young(), old_pod("old", "n1", "True")), [""; 0], "ready, and not yet available");
        assert_eq!(beyond(pod("new", "n1", "True"), old_pod("old", "n1", "True")), ["old"]);
        assert_eq!(beyond(pod("new", "n1", "False"), old_pod("old", "n1", "False")), ["old"]);
        let going =
            with(pod("going", "n1", "True"), json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert_eq!(decide(surge(), &[going, other()]).create, ["n1"], "the next starts while the last ends");
    }
}
