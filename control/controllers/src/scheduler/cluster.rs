//! All nodes and the pods placed on them, those assumed but not yet in the view included: the state that placements are
//! made on.

mod rules;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kube::core::Selector;

use super::{
    domains::Domains,
    filter::{fits, refusals},
    matching::{CountChange, MatchCounts},
    neighbours::{Labels, NamespaceLabels, PlacedTerms},
    node::{NodeInfo, NodeProperties},
    nominated::Nominated,
    pod::Needs,
    rejection::{Refusal, Rejections},
    score,
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
    /// How many placed pods the rules of pods select.
    matching: MatchCounts,
    /// The rules of placed pods about others.
    terms: PlacedTerms,
    nominated: Nominated,
    namespaces: NamespaceLabels,
    next: usize,
}

/// A pod that looks for a node.
#[derive(Clone, Copy)]
pub struct Candidate<'p> {
    /// Of the pod.
    pub uid: &'p str,
    /// What decides where it can run.
    pub needs: &'p Needs,
    /// Selects the pods of its workload: it is spread with them where it asks for nothing else.
    pub siblings: Option<&'p Selector>,
}

struct PlacedPod {
    node: usize,
    needs: Arc<Needs>,
}

/// Why no node can take a pod: each reason with the number of nodes that gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes were looked at.
    pub nodes: usize,
    /// In Kubernetes' words: `Insufficient cpu`…
    pub reasons: BTreeMap<String, usize>,
    /// Who gave them.
    pub rejections: Rejections,
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
            state.node = node;
            return true;
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

    /// The labels of all namespaces.
    pub fn namespaces(&self) -> &NamespaceLabels {
        &self.namespaces
    }

    /// Takes over a namespace's labels; `None` where it is gone. Returns whether they changed.
    pub fn set_namespace(&mut self, name: String, labels: Option<Labels>) -> bool {
        match labels {
            Some(labels) if self.namespaces.get(&name) == Some(&labels) => false,
            Some(labels) => {
                self.namespaces.insert(name, labels);
                true
            }
            None => self.namespaces.remove(&name).is_some(),
        }
    }

    /// Counts a pod on a node, with its needs as they are now. Returns what it was counted with before.
    pub fn place(&mut self, uid: &str, node: &str, needs: Arc<Needs>) -> Option<Arc<Needs>> {
        let Some(at) = self.by_name.get(node).copied() else {
            let before = self.remove_placed(uid);
            self.unassigned.entry(node.to_owned()).or_default().insert(uid.to_owned(), needs);
            return before;
        };
        let is_same =
            |placed: &PlacedPod| placed.node == at && (Arc::ptr_eq(&placed.needs, &needs) || placed.needs == needs);
        if self.placed.get(uid).is_some_and(is_same) {
            return Some(needs);
        }
        let before = self.remove_placed(uid);
        let state = self.nodes[at].as_mut()?;
        state.take(&needs);
        state.placed.insert(uid.to_owned());
        self.by_namespace.entry(needs.neighbours.namespace.clone()).or_default().insert(uid.to_owned());
        self.matching.change(at, &needs, CountChange::Comes);
        self.terms.change(at, &needs.neighbours, CountChange::Comes);
        self.placed.insert(uid.to_owned(), PlacedPod { node: at, needs });
        before
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

    fn remove_placed(&mut self, uid: &str) -> Option<Arc<Needs>> {
        let PlacedPod { node, needs } = self.placed.remove(uid)?;
        self.matching.change(node, &needs, CountChange::Goes);
        self.terms.change(node, &needs.neighbours, CountChange::Goes);
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
        }
        Some(needs)
    }

    /// Whether the node called `name` can take a pod with these needs, as far as the node alone can tell.
    pub fn can_take(&self, name: &str, needs: &Needs) -> bool {
        self.by_name.get(name).and_then(|at| self.nodes[*at].as_ref()).is_some_and(|node| fits(needs, node))
    }

    /// Names the best node for a pod, of as many as need be looked at. The one that it is nominated to comes first.
    pub fn choose(&mut self, pod: Candidate) -> Result<String, Unschedulable> {
        let needs = pod.needs;
        self.keep_counts(pod);
        let domains = self.domains(needs);
        if let Some(name) = self.nominated.node_of(pod.uid)
            && let Some(node) = self.by_name.get(name).and_then(|at| self.nodes[*at].as_ref())
            && self.admits(pod, node, domains.as_ref())
        {
            return Ok(name.to_owned());
        }
        let total = self.by_name.len();
        let enough = enough(total);
        let slots = self.nodes.len();
        let mut candidates = Vec::with_capacity(enough.min(total));
        let mut looked_at = 0;
        for step in 0..slots {
            let at = (self.next + step) % slots;
            looked_at = step + 1;
            if let Some(node) = &self.nodes[at]
                && self.admits(pod, node, domains.as_ref())
            {
                candidates.push((at, node));
                if candidates.len() >= enough {
                    break;
                }
            }
        }
        let by_pods = if candidates.len() > 1 { self.scores_by_pods(pod, &candidates) } else { Vec::new() };
        let Some(best) = score::best(needs, &candidates, &by_pods) else {
            return Err(self.explain(pod, domains.as_ref()));
        };
        // The next search begins where this one ended, so that all nodes have their turn.
        self.next = (self.next + looked_at) % slots;
        self.nodes[best].as_ref().map(|state| state.node.name.clone()).ok_or_else(|| self.explain(pod, None))
    }

    fn admits(&self, pod: Candidate, node: &NodeInfo, domains: Option<&Domains>) -> bool {
        fits(pod.needs, node)
            && domains.is_none_or(|domains| domains.admits(&node.node.labels))
            && self.refusals_beside_nominated(pod, node, domains).is_empty()
    }

    /// Why `node` cannot take the pod. Both may be supposed: a node that has given back what some pods took, and
    /// domains that do not count these.
    pub fn refusals(&self, pod: Candidate, node: &NodeInfo, domains: Option<&Domains>) -> Vec<Refusal> {
        let mut refused = refusals(pod.needs, node);
        if refused.is_empty() {
            refused.extend(domains.and_then(|domains| domains.refusal(&node.node.labels)));
        }
        if refused.is_empty() { self.refusals_beside_nominated(pod, node, domains) } else { refused }
    }

    /// Why `node` could not take the pod if those nominated to it that outrank the pod ran there already.
    fn refusals_beside_nominated(&self, pod: Candidate, node: &NodeInfo, domains: Option<&Domains>) -> Vec<Refusal> {
        let outranking = self.nominated.outranking(pod, &node.node.name);
        if outranking.is_empty() {
            return Vec::new();
        }
        let mut full = node.clone();
        for needs in &outranking {
            full.take(needs);
        }
        let refused = refusals(pod.needs, &full);
        let has_anti_affinity = outranking.iter().any(|needs| needs.neighbours.has_anti_affinity());
        if !refused.is_empty() || (domains.is_none() && !has_anti_affinity) {
            return refused;
        }
        let mut domains = domains.cloned().unwrap_or_default();
        for needs in outranking {
            domains.change(pod.needs, needs, &node.node, CountChange::Comes, &self.namespaces);
        }
        domains.refusal(&node.node.labels).into_iter().collect()
    }

    /// The nodes, beginning with the one at which the next search begins.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        let (before, after) = self.nodes.split_at(self.next.min(self.nodes.len()));
        after.iter().chain(before).flatten()
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).and_then(|at| self.nodes[*at].as_ref())
    }

    /// The pods placed on `node`, by uid.
    pub fn placed_on<'c>(&'c self, node: &'c NodeInfo) -> impl Iterator<Item = (&'c str, &'c Needs)> {
        node.placed.iter().filter_map(|uid| Some((uid.as_str(), &*self.placed.get(uid)?.needs)))
    }

    /// Which pods are nominated to which nodes.
    pub fn nominated(&self) -> &Nominated {
        &self.nominated
    }

    /// As [`Self::nominated`], to be changed.
    pub fn nominated_mut(&mut self) -> &mut Nominated {
        &mut self.nominated
    }

    fn explain(&self, pod: Candidate, domains: Option<&Domains>) -> Unschedulable {
        let (mut reasons, mut rejections) = (BTreeMap::new(), Rejections::default());
        for node in self.nodes.iter().flatten() {
            for Refusal { plugin, reason } in self.refusals(pod, node, domains) {
                rejections.add(plugin);
                *reasons.entry(reason).or_insert(0) += 1;
            }
        }
        Unschedulable { nodes: self.by_name.len(), reasons, rejections }
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
mod tests;
