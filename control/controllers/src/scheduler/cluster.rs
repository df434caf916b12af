//! All nodes and the pods placed on them, those assumed but not yet in the view included: the state that placements are
//! made on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    filter::{fits, refusals},
    neighbours::{self, Domains},
    node::{NodeInfo, NodeProperties},
    pod::Needs,
    score,
    spread::Siblings,
};

/// The nodes, the pods on them, and where the next search begins.
#[derive(Default)]
pub struct Cluster {
    nodes: Vec<Option<NodeInfo>>,
    by_name: HashMap<String, usize>,
    placed: HashMap<String, PlacedPod>,
    /// Pods bound to nodes that are not known (yet), by node and uid.
    unassigned: HashMap<String, HashMap<String, Arc<Needs>>>,
    /// uids of the placed pods of each namespace.
    by_namespace: HashMap<String, HashSet<String>>,
    groups: HashMap<String, Siblings>,
    /// Placed pods that keep others away.
    with_anti_affinity: BTreeSet<String>,
    next: usize,
}

struct PlacedPod {
    node: usize,
    needs: Arc<Needs>,
}

/// Why no node can take a pod: each reason with the number of nodes that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes were looked at.
    pub nodes: usize,
    /// In Kubernetes' words: `Insufficient cpu`…
    pub reasons: BTreeMap<String, usize>,
}

impl Unschedulable {
    /// As `kubectl describe pod` shows it.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        format!("0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

impl Cluster {
    /// Takes over a node's new state. Returns whether it may now take pods that it refused before.
    pub fn set_node(&mut self, node: NodeProperties) -> bool {
        if let Some(state) = self.by_name.get(&node.name).and_then(|at| self.nodes[*at].as_mut()) {
            if state.node == node {
                return false;
            }
            if state.node.zone == node.zone {
                state.node = node;
                return true;
            }
            // Its pods are counted by zone.
            self.remove_node(&node.name);
        }
        let at = self.nodes.iter().position(Option::is_none).unwrap_or(self.nodes.len());
        let name = node.name.clone();
        let state = NodeInfo { node, ..Default::default() };
        if at == self.nodes.len() {
            self.nodes.push(Some(state))
        } else {
            self.nodes[at] = Some(state)
        }
        self.by_name.insert(name.clone(), at);
        for (uid, needs) in self.unassigned.remove(&name).unwrap_or_default() {
            self.place(&uid, &name, needs);
        }
        true
    }

    /// Forgets a node; its pods stay on record, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.by_name.remove(name) else { return };
        let here = self.nodes[at].as_mut().map(|state| std::mem::take(&mut state.placed)).unwrap_or_default();
        for uid in here {
            if let Some(needs) = self.remove_placed(&uid) {
                self.unassigned.entry(name.to_owned()).or_default().insert(uid, needs);
            }
        }
        self.nodes[at] = None;
    }

    /// Counts a pod on a node, with its needs as they are now.
    pub fn place(&mut self, uid: &str, node: &str, needs: Arc<Needs>) {
        let Some(at) = self.by_name.get(node).copied() else {
            self.remove_placed(uid);
            self.unassigned.entry(node.to_owned()).or_default().insert(uid.to_owned(), needs);
            return;
        };
        let is_same =
            |placed: &PlacedPod| placed.node == at && (Arc::ptr_eq(&placed.needs, &needs) || placed.needs == needs);
        if self.placed.get(uid).is_some_and(is_same) {
            return;
        }
        self.remove_placed(uid);
        let Some(state) = self.nodes[at].as_mut() else { return };
        state.take(&needs);
        state.placed.insert(uid.to_owned());
        self.by_namespace.entry(needs.neighbours.namespace.clone()).or_default().insert(uid.to_owned());
        if let Some(group) = &needs.group {
            self.groups.entry(group.clone()).or_default().add(at, state.node.zone.as_deref());
        }
        if needs.neighbours.has_anti_affinity() {
            self.with_anti_affinity.insert(uid.to_owned());
        }
        self.placed.insert(uid.to_owned(), PlacedPod { node: at, needs });
    }

    /// Frees what a pod took. Returns the name of its node and what it took.
    pub fn remove_pod(&mut self, uid: &str) -> Option<(String, Arc<Needs>)> {
        let at = self.placed.get(uid).map(|placed| placed.node);
        let Some(needs) = self.remove_placed(uid) else {
            self.unassigned.retain(|_, pods| {
                pods.remove(uid);
                !pods.is_empty()
            });
            return None;
        };
        let node = self.nodes.get(at?)?.as_ref()?;
        Some((node.node.name.clone(), needs))
    }

    /// Whether a placed pod has required anti-affinity, which keeps matching pods away.
    pub fn has_anti_affinity(&self, uid: &str) -> bool {
        self.with_anti_affinity.contains(uid)
    }

    fn remove_placed(&mut self, uid: &str) -> Option<Arc<Needs>> {
        let PlacedPod { node, needs } = self.placed.remove(uid)?;
        self.with_anti_affinity.remove(uid);
        let namespace = &needs.neighbours.namespace;
        if let Some(pods) = self.by_namespace.get_mut(namespace) {
            pods.remove(uid);
            if pods.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
        if let Some(state) = self.nodes[node].as_mut() {
            state.give_back(&needs);
            state.placed.remove(uid);
            if let Some(group) = &needs.group
                && let Some(siblings) = self.groups.get_mut(group)
                && siblings.remove(node, state.node.zone.as_deref())
            {
                self.groups.remove(group);
            }
        }
        Some(needs)
    }

    /// Whether the node called `name` can take a pod with these needs, as far as the node alone can tell.
    pub fn can_take(&self, name: &str, needs: &Needs) -> bool {
        self.by_name.get(name).and_then(|at| self.nodes[*at].as_ref()).is_some_and(|node| fits(needs, node))
    }

    /// Names the best node for a pod, of as many as need be looked at.
    pub fn choose(&mut self, needs: &Needs) -> Result<String, Unschedulable> {
        let domains = self.domains(needs);
        let total = self.by_name.len();
        let enough = enough(total);
        let slots = self.nodes.len();
        let mut candidates = Vec::with_capacity(enough.min(total));
        let mut looked_at = 0;
        for step in 0..slots {
            let at = (self.next + step) % slots;
            looked_at = step + 1;
            if let Some(node) = &self.nodes[at]
                && fits(needs, node)
                && domains.as_ref().is_none_or(|domains| domains.refusal(&node.node.labels).is_none())
            {
                candidates.push((at, node));
                if candidates.len() >= enough {
                    break;
                }
            }
        }
        let siblings = needs.group.as_ref().and_then(|group| self.groups.get(group));
        let Some(best) = score::best(needs, &candidates, siblings) else {
            return Err(self.explain(needs, domains.as_ref()));
        };
        // The next search begins where this one ended, so that all nodes have their turn.
        self.next = (self.next + looked_at) % slots;
        self.nodes[best].as_ref().map(|state| state.node.name.clone()).ok_or_else(|| self.explain(needs, None))
    }

    /// Where the other pods allow this one; `None` where there is no rule about it.
    fn domains(&self, needs: &Needs) -> Option<Domains> {
        let own = &needs.neighbours;
        if !own.has_rules() && self.with_anti_affinity.is_empty() {
            return None;
        }
        let namespaces = own.namespaces();
        let is_counted = |uid: &String| {
            let namespace = self.placed.get(uid).map(|placed| placed.needs.neighbours.namespace.as_str());
            namespaces.as_ref().is_none_or(|all| namespace.is_some_and(|namespace| all.contains(namespace)))
        };
        let of_namespaces: Vec<&String> = match &namespaces {
            None => self.placed.keys().collect(),
            Some(all) => all.iter().filter_map(|namespace| self.by_namespace.get(*namespace)).flatten().collect(),
        };
        let others = self.with_anti_affinity.iter().filter(|uid| !is_counted(uid));
        let relevant: Vec<&PlacedPod> =
            of_namespaces.into_iter().chain(others).filter_map(|uid| self.placed.get(uid)).collect();
        let others = relevant.into_iter().filter_map(|placed| {
            let node_labels = &self.nodes[placed.node].as_ref()?.node.labels;
            Some(neighbours::Placed { neighbours: &placed.needs.neighbours, node_labels })
        });
        let admitted = self.nodes.iter().flatten().filter(|n| needs.affinity.admits(&n.node.name, &n.node.labels));
        Some(own.domains(others, admitted.map(|n| &n.node.labels)))
    }

    fn explain(&self, needs: &Needs, domains: Option<&Domains>) -> Unschedulable {
        let mut reasons = BTreeMap::new();
        for node in self.nodes.iter().flatten() {
            let mut refused = refusals(needs, node);
            if refused.is_empty() {
                refused.extend(domains.and_then(|d| d.refusal(&node.node.labels)).map(str::to_owned));
            }
            for reason in refused {
                *reasons.entry(reason).or_insert(0) += 1;
            }
        }
        Unschedulable { nodes: self.by_name.len(), reasons }
    }
}

/// How many nodes that fit are enough to choose from. Source: kube-scheduler's adaptive `percentageOfNodesToScore`.
fn enough(nodes: usize) -> usize {
    if nodes < 100 {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scheduler::pod::PodInfo;

    fn cluster(nodes: &[(&str, &str)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (name, zone) in nodes {
            let node = serde_json::from_value(
                json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                    "conditions": [{"type": "Ready", "status": "True"}]}}),
            )
            .expect("a valid node");
            cluster.set_node(NodeProperties::read(&node));
        }
        cluster
    }

    fn needs(cpu: &str, group: Option<&str>) -> Arc<Needs> {
        let owners =
            group.map(|uid| json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true}]));
        let pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "ownerReferences": owners.unwrap_or(json!([]))},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
            .expect("a valid pod");
        Arc::new(PodInfo::read(&pod).needs)
    }

    fn fill(cluster: &mut Cluster, count: usize, needs: &Arc<Needs>) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for n in 0..count {
            let node = cluster.choose(needs).expect("a node fits");
            cluster.place(&format!("{:?}-{n}", needs.group), &node, needs.clone());
            *counts.entry(node).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn pods_of_a_group_are_spread_over_nodes_and_zones() {
        let mut cluster = cluster(&[("a", "east"), ("b", "east"), ("c", "west"), ("d", "west")]);
        let counts = fill(&mut cluster, 8, &needs("10m", Some("set")));
        assert!(counts.values().all(|count| *count == 2), "{counts:?}");
    }

    #[test]
    fn pods_without_a_group_go_where_most_is_free() {
        let mut cluster = cluster(&[("a", "z"), ("b", "z")]);
        cluster.place("big", "a", needs("3", None));
        assert_eq!(fill(&mut cluster, 2, &needs("500m", None)), [("b".to_owned(), 2)].into());
    }

    #[test]
    fn a_full_cluster_says_why_and_takes_pods_again_when_one_goes() {
        let mut cluster = cluster(&[("a", "z"), ("b", "z")]);
        let big = needs("3", None);
        fill(&mut cluster, 2, &big);
        let refused = cluster.choose(&big).expect_err("nothing fits");
        assert_eq!(refused.message(), "0/2 nodes are available: 2 Insufficient cpu.");
        let (node, _) = cluster.remove_pod("None-0").expect("was placed");
        assert!(cluster.can_take(&node, &big));
        assert_eq!(cluster.choose(&big).expect("fits again"), node);
    }

    #[test]
    fn pods_seen_before_their_node_count_once_it_appears() {
        let mut cluster = cluster(&[]);
        assert_eq!(
            cluster.choose(&needs("1", None)).expect_err("no node").message(),
            "no nodes available to schedule pods"
        );
        cluster.place("early", "late", needs("4", None));
        let node = serde_json::from_value(json!({"metadata": {"name": "late"}, "status": {"allocatable": {"cpu": "4"},
            "conditions": [{"type": "Ready", "status": "True"}]}}))
        .expect("a valid node");
        cluster.set_node(NodeProperties::read(&node));
        assert!(!cluster.can_take("late", &needs("1", None)));
        cluster.remove_node("late");
        cluster.set_node(NodeProperties::read(&node));
        assert!(!cluster.can_take("late", &needs("1", None)));
        cluster.remove_pod("early");
        assert!(cluster.can_take("late", &needs("1", None)));
    }

    #[test]
    fn a_pod_that_changes_its_labels_is_counted_as_it_is_now() {
        let mut cluster = cluster(&[("a", "east"), ("b", "west")]);
        let pod = |labels: serde_json::Value, spec: serde_json::Value| {
            let pod =
                serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "default", "labels": labels},
                "spec": spec}))
                .expect("a valid pod");
            Arc::new(PodInfo::read(&pod).needs)
        };
        let follower = pod(
            json!({}),
            json!({"containers": [], "affinity": {"podAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "topology.kubernetes.io/zone",
                "labelSelector": {"matchLabels": {"app": "db"}}}]}}}),
        );
        cluster.place("db", "b", pod(json!({"app": "other"}), json!({"containers": []})));
        assert!(cluster.choose(&follower).is_err());
        cluster.place("db", "b", pod(json!({"app": "db"}), json!({"containers": []})));
        assert_eq!(cluster.choose(&follower).as_deref(), Ok("b"));
        cluster.remove_pod("db");
        assert!(cluster.choose(&follower).is_err() && cluster.by_namespace.is_empty());
    }

    #[test]
    fn large_clusters_are_sampled() {
        assert_eq!((enough(50), enough(1000), enough(10_000)), (50, 420, 500));
    }
}
