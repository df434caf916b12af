//! What the placed pods mean to a pod: the domains of the rules that must hold, and the scores of those that need not.

use std::borrow::Cow;

use super::{Candidate, Cluster};
use crate::scheduler::{
    domains::Domains,
    matching::{NodeCounts, PodSet},
    neighbours::{self, AffinityDomains, Labels, SelectedPods},
    node::{NodeInfo, NodeProperties},
    pod::Needs,
    score::{WEIGHT_POD_AFFINITY, WEIGHT_SPREAD},
    spread::{self, Constraint, SpreadDomains, live_on, system_constraints},
};

/// The counts of a set: kept ones, or counted for this once.
type Counts<'c> = Option<Cow<'c, NodeCounts>>;

impl Cluster {
    /// Counts what the rules of a pod select, and keeps it for the next pod with such rules.
    pub(super) fn keep_counts(&mut self, pod: Candidate) {
        let (needs, known) = (pod.needs, &self.namespaces);
        let own = &needs.neighbours;
        let mut sets: Vec<Option<PodSet>> = vec![own.wanted_set(known)];
        sets.extend(own.unwanted_sets(known));
        sets.extend(own.preferred_sets(known));
        let declared = needs.spread.hard.iter().chain(&needs.spread.soft);
        sets.extend(declared.map(|constraint| constraint.set().cloned()));
        // The default constraints all count the same pods.
        let default = defaults(pod).into_iter().next();
        sets.push(default.and_then(|constraint| constraint.set().cloned()));
        for set in sets.into_iter().flatten() {
            if !self.matching.ask(&set) {
                let counts = self.count(&set);
                self.matching.keep(set, counts);
            }
        }
    }

    /// Where the other pods allow this one; `None` where there is no rule about it.
    pub fn domains(&self, needs: &Needs) -> Option<Domains> {
        let own = &needs.neighbours;
        if !own.has_rules() && needs.spread.hard.is_empty() && !self.terms.keep_away() {
            return None;
        }
        let known = &self.namespaces;
        let wanted = self.counts_of(own.wanted_set(known).as_ref());
        let unwanted: Vec<Counts> = own.unwanted_sets(known).iter().map(|set| self.counts_of(set.as_ref())).collect();
        let selected = SelectedPods {
            wanted: wanted.as_deref(),
            unwanted: &unwanted.iter().map(Option::as_deref).collect::<Vec<_>>(),
        };
        let labels = |at: usize| self.labels_at(at);
        let affinity = AffinityDomains::new(own, &selected, &self.terms, labels, known);
        let counts: Vec<(&Constraint, Counts)> =
            needs.spread.hard.iter().map(|constraint| (constraint, self.counts_of(constraint.set()))).collect();
        let live = |constraint: &Constraint, at: usize| {
            let found = counts.iter().find(|(counted, _)| std::ptr::eq(*counted, constraint));
            live_on(found.and_then(|(_, counts)| counts.as_deref()), at)
        };
        let nodes = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, &node.as_ref()?.node)));
        Some(Domains { spread: SpreadDomains::new(needs, nodes, live), affinity })
    }

    /// What the placed pods add to the score of each of `candidates`.
    pub(super) fn scores_by_pods(&self, pod: Candidate, candidates: &[(usize, &NodeInfo)]) -> Vec<i64> {
        let (needs, known) = (pod.needs, &self.namespaces);
        let mut scores = vec![0i64; candidates.len()];
        let mut add = |weight: i64, part: Vec<i64>| {
            for (score, part) in scores.iter_mut().zip(part) {
                *score = score.saturating_add(weight.saturating_mul(part));
            }
        };
        let defaults = defaults(pod);
        // Nodes without a zone are spread all the same where nobody asked for zones.
        let (soft, needs_all_keys) =
            if needs.spread.is_declared() { (&needs.spread.soft, true) } else { (&defaults, false) };
        if !soft.is_empty() {
            let counts: Vec<Counts> = soft.iter().map(|constraint| self.counts_of(constraint.set())).collect();
            let selected: Vec<spread::Selected> = soft.iter().zip(counts.iter().map(Option::as_deref)).collect();
            let node = |at: usize| self.node_at(at);
            add(WEIGHT_SPREAD, spread::scores(needs, &selected, needs_all_keys, node, candidates));
        }
        let counts: Vec<Counts> =
            needs.neighbours.preferred_sets(known).iter().map(|set| self.counts_of(set.as_ref())).collect();
        let selected: Vec<Option<&NodeCounts>> = counts.iter().map(Option::as_deref).collect();
        let labels = |at: usize| self.labels_at(at);
        let near = neighbours::scores(&needs.neighbours, &selected, &self.terms, labels, known, candidates);
        near.into_iter().for_each(|part| add(WEIGHT_POD_AFFINITY, part));
        scores
    }

    fn counts_of(&self, set: Option<&PodSet>) -> Counts<'_> {
        let set = set?;
        Some(self.matching.get(set).map_or_else(|| Cow::Owned(self.count(set)), Cow::Borrowed))
    }

    fn count(&self, set: &PodSet) -> NodeCounts {
        let placed = |uid: &String| self.placed.get(uid).map(|pod| (pod.node, &*pod.needs));
        match set.namespaces() {
            None => NodeCounts::of(set, self.placed.values().map(|pod| (pod.node, &*pod.needs))),
            Some(namespaces) => {
                let uids = namespaces.iter().filter_map(|namespace| self.by_namespace.get(namespace)).flatten();
                NodeCounts::of(set, uids.filter_map(placed))
            }
        }
    }

    fn node_at(&self, at: usize) -> Option<&NodeProperties> {
        self.nodes.get(at)?.as_ref().map(|node| &node.node)
    }

    fn labels_at(&self, at: usize) -> Option<&Labels> {
        self.node_at(at).map(|node| &node.labels)
    }
}

/// The constraints of a pod that declares none.
fn defaults(pod: Candidate) -> Vec<Constraint> {
    let selector = pod.siblings.filter(|_| !pod.needs.spread.is_declared());
    selector.map(|selector| system_constraints(&pod.needs.neighbours.namespace, selector)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
