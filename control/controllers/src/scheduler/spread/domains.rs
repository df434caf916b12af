//! How many pods each domain of the constraints that must hold has, so that a single pod can be thought away or added
//! without a look at all the others.

use std::collections::HashMap;

use super::{Constraint, has_all_keys};
use crate::scheduler::{
    matching::{CountChange, NodeCounts},
    neighbours::Labels,
    node::NodeProperties,
    pod::Needs,
};

/// The domains of each of a pod's hard constraints, in their order.
#[derive(Clone, Default)]
pub struct SpreadDomains {
    constraints: Vec<CountedConstraint>,
}

#[derive(Clone)]
struct CountedConstraint {
    topology_key: String,
    /// By the value of the label.
    counts: HashMap<String, i64>,
    /// 0 while there are too few domains.
    fewest: i64,
    min_domains: usize,
    max_skew: i64,
    /// 1 where the pod counts itself.
    own: i64,
}

impl SpreadDomains {
    /// Counts the pods on `nodes`, each with its position, for the pod `own`; `counts` holds those that each constraint
    /// selects.
    pub fn new<'n>(
        own: &Needs,
        nodes: impl Iterator<Item = (usize, &'n NodeProperties)>,
        counts: impl Fn(&Constraint, usize) -> i64,
    ) -> Self {
        let hard = &own.spread.hard;
        let mut constraints: Vec<CountedConstraint> =
            hard.iter().map(|constraint| CountedConstraint::new(constraint, own)).collect();
        for (at, node) in nodes.filter(|(_, node)| !hard.is_empty() && has_all_keys(node, hard)) {
            for (constraint, counted) in hard.iter().zip(&mut constraints) {
                if let Some(domain) = node.labels.get(&constraint.topology_key)
                    && constraint.counts_node(own, node)
                {
                    let count = counts(constraint, at);
                    match counted.counts.get_mut(domain) {
                        Some(sum) => *sum = sum.saturating_add(count),
                        None => drop(counted.counts.insert(domain.clone(), count)),
                    }
                }
            }
        }
        constraints.iter_mut().for_each(CountedConstraint::settle);
        Self { constraints }
    }

    /// Counts a pod on `node` that comes or goes.
    pub fn change(&mut self, own: &Needs, placed: &Needs, node: &NodeProperties, step: CountChange) {
        let hard = &own.spread.hard;
        let is_counted = own.neighbours.namespace == placed.neighbours.namespace && !placed.terminating;
        if hard.is_empty() || !is_counted || !has_all_keys(node, hard) {
            return;
        }
        for (constraint, counted) in hard.iter().zip(&mut self.constraints) {
            if constraint.set.is_some()
                && constraint.selects(&placed.neighbours.labels)
                && constraint.counts_node(own, node)
                && let Some(count) = node.labels.get(&counted.topology_key).and_then(|d| counted.counts.get_mut(d))
            {
                *count = count.saturating_add(step.sign());
                counted.settle();
            }
        }
    }

    /// Whether a node with these labels is in no domain of some constraint, whatever pods end.
    pub fn is_hopeless(&self, labels: &Labels) -> bool {
        self.constraints.iter().any(|counted| !labels.contains_key(&counted.topology_key))
    }

    /// Why a node with these labels is out of the question, in Kubernetes' words.
    pub fn refusal(&self, labels: &Labels) -> Option<&'static str> {
        for counted in &self.constraints {
            let Some(domain) = labels.get(&counted.topology_key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let count = counted.counts.get(domain).copied().unwrap_or(0);
            if count.saturating_add(counted.own).saturating_sub(counted.fewest) > counted.max_skew {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        None
    }
}

impl CountedConstraint {
    fn new(constraint: &Constraint, own: &Needs) -> Self {
        Self {
            topology_key: constraint.topology_key.clone(),
            counts: HashMap::new(),
            fewest: 0,
            min_domains: constraint.min_domains,
            max_skew: constraint.max_skew,
            own: i64::from(constraint.selects(&own.neighbours.labels)),
        }
    }

    fn settle(&mut self) {
        let has_enough = self.counts.len() >= self.min_domains;
        self.fewest = self.counts.values().copied().min().filter(|_| has_enough).unwrap_or(0);
    }
}

/// The pods of a constraint on a node, as they are spread: without those that are terminating.
pub fn live_on(counts: Option<&NodeCounts>, node: usize) -> i64 {
    counts.map_or(0, |counts| counts.on(node).live)
}
