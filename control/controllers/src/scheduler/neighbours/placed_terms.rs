//! The rules of placed pods about others, counted by node: pods of one workload have the same rules, so there are few.

use std::collections::HashMap;

use super::{Labels, NamespaceLabels, Neighbours, Term};
use crate::scheduler::matching::CountChange;

/// What one required affinity of a placed pod adds to the score of a pod that it selects. Source:
/// `HardPodAffinityWeight`.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// The terms of the placed pods.
#[derive(Default)]
pub struct PlacedTerms {
    /// Required anti-affinity: keeps the pods away that it selects.
    apart: HashMap<String, HeldTerm>,
    /// All that draws pods near, or prefers them away.
    weighed: HashMap<String, HeldTerm>,
}

/// A term, and how many pods on each node have it.
struct HeldTerm {
    term: Term,
    weight: i64,
    nodes: HashMap<usize, i64>,
}

impl PlacedTerms {
    /// Whether some pod keeps others away.
    pub fn keep_away(&self) -> bool {
        !self.apart.is_empty()
    }

    /// Counts the rules of a pod that comes or goes.
    pub fn change(&mut self, node: usize, pod: &Neighbours, step: CountChange) {
        for term in &pod.unwanted {
            change(&mut self.apart, term, 0, node, step);
        }
        for term in &pod.wanted {
            change(&mut self.weighed, term, HARD_AFFINITY_WEIGHT, node, step);
        }
        for (weight, term) in &pod.preferred {
            change(&mut self.weighed, term, *weight, node, step);
        }
    }

    /// Topology key, node and number of the pods that keep `pod` away.
    pub(super) fn unwelcoming<'t>(
        &'t self,
        pod: &'t Neighbours,
        known: &'t NamespaceLabels,
    ) -> impl Iterator<Item = (&'t str, usize, i64)> {
        selecting(&self.apart, pod, known).map(|(held, node, count)| (held.term.topology_key.as_str(), node, count))
    }

    /// Topology key, node and summed weight of what placed pods have for or against `pod`.
    pub(super) fn weighing<'t>(
        &'t self,
        pod: &'t Neighbours,
        known: &'t NamespaceLabels,
    ) -> impl Iterator<Item = (&'t str, usize, i64)> {
        let weighed = selecting(&self.weighed, pod, known);
        weighed.map(|(held, node, count)| (held.term.topology_key.as_str(), node, held.weight.saturating_mul(count)))
    }
}

fn selecting<'t>(
    terms: &'t HashMap<String, HeldTerm>,
    pod: &'t Neighbours,
    known: &'t NamespaceLabels,
) -> impl Iterator<Item = (&'t HeldTerm, usize, i64)> {
    let selecting = terms.values().filter(|held| held.term.selects(pod, known));
    selecting.flat_map(|held| held.nodes.iter().map(move |(node, count)| (held, *node, *count)))
}

fn change(terms: &mut HashMap<String, HeldTerm>, term: &Term, weight: i64, node: usize, step: CountChange) {
    let key = format!("{weight} {term:?}");
    let new = || HeldTerm { term: term.clone(), weight, nodes: HashMap::new() };
    let held = terms.entry(key.clone()).or_insert_with(new);
    let count = held.nodes.entry(node).or_default();
    *count = count.saturating_add(step.sign());
    if *count <= 0 {
        held.nodes.remove(&node);
        if held.nodes.is_empty() {
            terms.remove(&key);
        }
    }
}

/// Sums by topology key and its value.
pub(super) type Sums = HashMap<String, HashMap<String, i64>>;

/// Adds to the sum of the domain of `topology_key` in which a node with these labels is.
pub(super) fn add_to(sums: &mut Sums, topology_key: &str, labels: &Labels, amount: i64) {
    let Some(value) = labels.get(topology_key) else { return };
    if !sums.contains_key(topology_key) {
        sums.insert(topology_key.to_owned(), HashMap::new());
    }
    let Some(sums) = sums.get_mut(topology_key) else { return };
    match sums.get_mut(value) {
        Some(sum) => *sum = sum.saturating_add(amount),
        None => drop(sums.insert(value.clone(), amount)),
    }
}
