//! Where other pods want a pod, and where they do not: counted by topology domain, so that a single pod can be thought
//! away or added without a look at all the others.

use std::collections::HashMap;

use super::{
    Labels, NamespaceLabels, Neighbours, PlacedTerms,
    placed_terms::{Sums, add_to},
};
use crate::scheduler::matching::{CountChange, NodeCounts};

/// What the placed pods mean to one pod, by domain.
#[derive(Clone, Default)]
pub struct AffinityDomains {
    wanted: Vec<Wanted>,
    /// The pod selects itself: the first of such a group may be placed anywhere.
    wants_itself: bool,
    /// How many pods are in each domain that the pod does not want to share.
    unwanted: Sums,
    /// How many pods in each domain do not want to share it with the pod.
    unwelcome: Sums,
}

/// A term of required affinity: how many pods that meet all terms are in each of its domains.
#[derive(Clone)]
struct Wanted {
    topology_key: String,
    found: HashMap<String, i64>,
}

/// The placed pods that the rules of a pod select.
pub struct SelectedPods<'c> {
    /// Those that all required affinity selects.
    pub wanted: Option<&'c NodeCounts>,
    /// Those that each term of required anti-affinity selects.
    pub unwanted: &'c [Option<&'c NodeCounts>],
}

impl AffinityDomains {
    /// Counts what is placed, for the pod `own`. `labels` are those of the node at a position.
    pub fn new<'n>(
        own: &Neighbours,
        selected: &SelectedPods,
        placed: &PlacedTerms,
        labels: impl Fn(usize) -> Option<&'n Labels>,
        known: &NamespaceLabels,
    ) -> Self {
        let wanted =
            own.wanted.iter().map(|term| Wanted { topology_key: term.topology_key.clone(), found: HashMap::new() });
        let mut domains = Self { wanted: wanted.collect(), wants_itself: own.wants(own, known), ..Default::default() };
        for (at, count) in selected.wanted.into_iter().flat_map(NodeCounts::iter) {
            labels(at).into_iter().for_each(|labels| domains.find(labels, count.all));
        }
        for (term, counts) in own.unwanted.iter().zip(selected.unwanted) {
            for (at, count) in counts.iter().flat_map(|counts| counts.iter()) {
                let labels = labels(at).into_iter();
                labels.for_each(|labels| add_to(&mut domains.unwanted, &term.topology_key, labels, count.all));
            }
        }
        for (topology_key, at, count) in placed.unwelcoming(own, known) {
            labels(at).into_iter().for_each(|labels| add_to(&mut domains.unwelcome, topology_key, labels, count));
        }
        domains
    }

    /// Counts a pod, on a node with these labels, that comes or goes.
    pub fn change(
        &mut self,
        own: &Neighbours,
        placed: &Neighbours,
        labels: &Labels,
        step: CountChange,
        known: &NamespaceLabels,
    ) {
        if !own.wanted.is_empty() && own.wants(placed, known) {
            self.find(labels, step.sign());
        }
        for term in own.unwanted.iter().filter(|term| term.selects(placed, known)) {
            add_to(&mut self.unwanted, &term.topology_key, labels, step.sign());
        }
        for term in placed.unwanted.iter().filter(|term| term.selects(own, known)) {
            add_to(&mut self.unwelcome, &term.topology_key, labels, step.sign());
        }
    }

    fn find(&mut self, labels: &Labels, amount: i64) {
        for wanted in &mut self.wanted {
            let Some(domain) = labels.get(&wanted.topology_key) else { continue };
            match wanted.found.get_mut(domain) {
                Some(count) => *count = count.saturating_add(amount),
                None => drop(wanted.found.insert(domain.clone(), amount)),
            }
        }
    }

    /// Whether a node with these labels is in the domains that are wanted.
    pub fn has_wanted(&self, labels: &Labels) -> bool {
        if self.wanted.is_empty() {
            return true;
        }
        let is_first = self.wants_itself && self.wanted.iter().all(|w| w.found.values().all(|count| *count <= 0));
        self.wanted.iter().all(|wanted| {
            let domain = labels.get(&wanted.topology_key);
            domain.is_some_and(|domain| is_first || wanted.found.get(domain).is_some_and(|count| *count > 0))
        })
    }

    /// Why a node with these labels is out of the question, in Kubernetes' words.
    pub fn refusal(&self, labels: &Labels) -> Option<&'static str> {
        if !self.has_wanted(labels) {
            return Some("node(s) didn't match pod affinity rules");
        }
        let within = |sums: &Sums| {
            sums.iter().any(|(key, values)| {
                labels.get(key).and_then(|value| values.get(value)).is_some_and(|count| *count > 0)
            })
        };
        if within(&self.unwanted) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        within(&self.unwelcome).then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }
}
