//! How well each candidate spreads a pod, by constraints that need not hold.

use std::collections::HashMap;

use super::{Constraint, has_all_keys};
use crate::scheduler::{
    matching::NodeCounts,
    node::{NodeInfo, NodeProperties},
    pod::Needs,
    score::MAX_SCORE,
};

/// Each node is a domain of its own: its pods are counted by node.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A constraint, and the placed pods that it selects.
pub type Selected<'c> = (&'c Constraint, Option<&'c NodeCounts>);

/// A score from 0 to 100 for each of `candidates`: 100 where the fewest pods are. With `needs_all_keys`, a candidate
/// that is in no domain of some constraint scores 0, and its pods do not count. `node` gives what is at a position.
pub fn scores<'n>(
    own: &Needs,
    constraints: &[Selected],
    needs_all_keys: bool,
    node: impl Fn(usize) -> Option<&'n NodeProperties>,
    candidates: &[(usize, &'n NodeInfo)],
) -> Vec<i64> {
    let counts_node = |node: &NodeProperties| {
        !needs_all_keys || has_all_keys(node, constraints.iter().map(|(constraint, _)| *constraint))
    };
    let counted: Vec<bool> = candidates.iter().map(|(_, candidate)| counts_node(&candidate.node)).collect();
    let parts: Vec<Part> = constraints
        .iter()
        .map(|(constraint, selected)| {
            let within = candidates.iter().zip(&counted).filter(|(_, counted)| **counted);
            let mut part = Part::new(constraint, within.map(|((_, candidate), _)| &candidate.node));
            let nodes = selected.iter().flat_map(|counts| counts.iter());
            for (at, count) in nodes.filter(|_| constraint.topology_key != HOSTNAME) {
                if let Some(node) = node(at).filter(|node| counts_node(node) && constraint.counts_node(own, node)) {
                    part.add(node, count.live);
                }
            }
            part
        })
        .collect();
    let raw = candidates.iter().zip(&counted).map(|((at, candidate), counted)| {
        let sum: f64 = constraints
            .iter()
            .zip(&parts)
            .filter_map(|((_, selected), part)| {
                let on_node = selected.map_or(0, |counts| counts.on(*at).live);
                part.cost(&candidate.node, on_node)
            })
            .sum();
        // What is rounded is small and not negative.
        counted.then_some(sum.round() as i64)
    });
    normalized(&raw.collect::<Vec<Option<i64>>>())
}

/// One constraint over the candidates.
struct Part<'c> {
    constraint: &'c Constraint,
    /// Pods in each domain that has a candidate; empty for nodes.
    domains: HashMap<&'c str, i64>,
    /// Keeps the counts of a few large domains from drowning in those of many small ones.
    weight: f64,
}

impl<'c> Part<'c> {
    fn new(constraint: &'c Constraint, candidates: impl Iterator<Item = &'c NodeProperties>) -> Self {
        let mut domains = HashMap::new();
        let size = if constraint.topology_key == HOSTNAME {
            candidates.count()
        } else {
            domains.extend(candidates.map(|node| (domain_of(constraint, node), 0)));
            domains.len()
        };
        Self { constraint, domains, weight: (size as f64 + 2.0).ln() }
    }

    fn add(&mut self, node: &NodeProperties, count: i64) {
        if let Some(sum) = self.domains.get_mut(domain_of(self.constraint, node)) {
            *sum = sum.saturating_add(count);
        }
    }

    /// `None` for a node that is in no domain.
    fn cost(&self, node: &NodeProperties, on_node: i64) -> Option<f64> {
        let domain = node.labels.get(&self.constraint.topology_key)?;
        let count = if self.constraint.topology_key == HOSTNAME {
            on_node
        } else {
            self.domains.get(domain.as_str()).copied().unwrap_or(0)
        };
        Some(count as f64 * self.weight + self.constraint.max_skew.saturating_sub(1) as f64)
    }
}

/// Nodes without the label form a domain, too, where they count.
fn domain_of<'n>(constraint: &Constraint, node: &'n NodeProperties) -> &'n str {
    node.labels.get(&constraint.topology_key).map(String::as_str).unwrap_or_default()
}

/// 100 for the least cost, less the more it costs, 0 for what does not count.
fn normalized(costs: &[Option<i64>]) -> Vec<i64> {
    let least = costs.iter().flatten().copied().min().unwrap_or(0);
    let most = costs.iter().flatten().copied().max().unwrap_or(0);
    let score = |cost: i64| match most {
        0 => MAX_SCORE,
        _ => MAX_SCORE.saturating_mul(most.saturating_add(least).saturating_sub(cost)) / most,
    };
    costs.iter().map(|cost| cost.map_or(0, score)).collect()
}
