//! Rules about other pods on whole clusters: what the kept counts say is what a look at every pod would say.

mod affinity;
mod speed;
mod spread;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::scheduler::{matching::CountChange, pod::PodInfo};

/// A ready node with labels, and more for its spec.
pub fn add_node(cluster: &mut Cluster, name: &str, labels: Value, spec: Value) {
    let node = json!({"metadata": {"name": name, "labels": labels}, "spec": spec,
        "status": {"allocatable": {"cpu": "16", "memory": "32Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.set_node(NodeProperties::read(&serde_json::from_value(node).expect("a valid node")));
}

/// Nodes, each with its labels.
pub fn cluster(nodes: &[(&str, Value)]) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, labels) in nodes {
        add_node(&mut cluster, name, labels.clone(), json!({}));
    }
    cluster
}

/// A pod of the namespace `default`, if `metadata` names no other.
pub fn pod(labels: Value, spec: Value) -> Arc<Needs> {
    pod_in("default", labels, spec)
}

/// A pod of a namespace.
pub fn pod_in(namespace: &str, labels: Value, spec: Value) -> Arc<Needs> {
    let mut pod = json!({"metadata": {"name": "p", "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().expect("an object") {
        pod["spec"][key] = value.clone();
    }
    Arc::new(PodInfo::read(&serde_json::from_value(pod).expect("a valid pod")).needs)
}

/// Places `count` pods on a node.
pub fn place(cluster: &mut Cluster, node: &str, count: usize, needs: &Arc<Needs>) {
    for _ in 0..count {
        let uid = format!("{node}-{}", cluster.placed.len());
        cluster.place(&uid, node, needs.clone());
    }
}

fn seeker<'p>(needs: &'p Needs, siblings: Option<&'p kube::core::Selector>) -> Candidate<'p> {
    Candidate { uid: "seeker", needs, siblings }
}

/// Whether each node, by name, admits the pod, and why not. Asked in every way that there is: with counts that are made
/// now, with kept ones, and with domains to which the pods are added one by one.
pub fn refusals(cluster: &mut Cluster, needs: &Needs) -> Vec<Option<&'static str>> {
    let fresh = cluster.domains(needs).unwrap_or_default();
    cluster.keep_counts(seeker(needs, None));
    let kept = cluster.domains(needs).unwrap_or_default();
    let mut empty = Cluster { namespaces: cluster.namespaces.clone(), ..Cluster::default() };
    for node in cluster.nodes.iter().flatten() {
        empty.set_node(node.node.clone());
    }
    let mut added = empty
        .domains(needs)
        .unwrap_or(Domains { spread: SpreadDomains::default(), affinity: AffinityDomains::default() });
    for placed in cluster.placed.values() {
        let node = cluster.node_at(placed.node).expect("a node");
        added.change(needs, &placed.needs, node, CountChange::Comes, &cluster.namespaces);
    }
    let of = |domains: &Domains| -> Vec<Option<&'static str>> {
        let labels = cluster.nodes.iter().flatten().map(|node| &node.node.labels);
        labels.map(|labels| domains.spread.refusal(labels).or_else(|| domains.affinity.refusal(labels))).collect()
    };
    assert_eq!(of(&fresh), of(&kept), "kept counts");
    assert_eq!(of(&fresh), of(&added), "one by one");
    // And all of them taken away again leave nothing.
    for placed in cluster.placed.values() {
        let node = cluster.node_at(placed.node).expect("a node");
        added.change(needs, &placed.needs, node, CountChange::Goes, &cluster.namespaces);
    }
    let none = empty.domains(needs).unwrap_or_default();
    assert_eq!(of(&added), of(&none), "taken away");
    of(&fresh)
}

/// What the placed pods add to the score of each of the nodes `names`, as if no other node could take the pod.
pub fn scores(
    cluster: &mut Cluster,
    needs: &Needs,
    siblings: Option<&kube::core::Selector>,
    names: &[&str],
) -> Vec<i64> {
    let pod = seeker(needs, siblings);
    let of = |cluster: &Cluster| {
        let positions = names.iter().map(|name| cluster.by_name[*name]);
        let candidates: Vec<(usize, &NodeInfo)> =
            positions.map(|at| (at, cluster.nodes[at].as_ref().expect("a node"))).collect();
        cluster.scores_by_pods(pod, &candidates)
    };
    let fresh = of(cluster);
    cluster.keep_counts(pod);
    assert_eq!(fresh, of(cluster), "kept counts");
    // One of the two kinds of rules is asked at a time, both of weight 2.
    fresh.into_iter().map(|score| score / 2).collect()
}
