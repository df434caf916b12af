//! How near each candidate is to the pods that a pod prefers, and that prefer it.

use std::collections::HashMap;

use super::{
    Labels, NamespaceLabels, Neighbours, PlacedTerms,
    placed_terms::{Sums, add_to},
};
use crate::scheduler::{matching::NodeCounts, node::NodeInfo, score::MAX_SCORE};

/// A score from 0 to 100 for each of `candidates`; `None` where neither the pod nor a placed one prefers anything.
/// `selected` holds the placed pods that each preference of the pod selects, `labels` gives those of the node at a
/// position.
pub fn scores<'n>(
    own: &Neighbours,
    selected: &[Option<&NodeCounts>],
    placed: &PlacedTerms,
    labels: impl Fn(usize) -> Option<&'n Labels>,
    known: &NamespaceLabels,
    candidates: &[(usize, &NodeInfo)],
) -> Option<Vec<i64>> {
    let mut sums = Sums::new();
    for ((weight, term), counts) in own.preferred.iter().zip(selected) {
        for (at, count) in counts.iter().flat_map(|counts| counts.iter()) {
            let amount = weight.saturating_mul(count.all);
            labels(at).into_iter().for_each(|labels| add_to(&mut sums, &term.topology_key, labels, amount));
        }
    }
    for (topology_key, at, amount) in placed.weighing(own, known) {
        labels(at).into_iter().for_each(|labels| add_to(&mut sums, topology_key, labels, amount));
    }
    if sums.is_empty() {
        return None;
    }
    let raw = candidates.iter().map(|(_, candidate)| {
        let of_key = |(key, values): (&String, &HashMap<String, i64>)| {
            candidate.node.labels.get(key).and_then(|value| values.get(value)).copied().unwrap_or(0)
        };
        sums.iter().map(of_key).fold(0i64, i64::saturating_add)
    });
    Some(normalized(&raw.collect::<Vec<i64>>()))
}

/// 0 for the least, 100 for the most; 0 for all where they are equal.
fn normalized(sums: &[i64]) -> Vec<i64> {
    let least = sums.iter().copied().min().unwrap_or(0);
    let range = sums.iter().copied().max().unwrap_or(0).saturating_sub(least);
    let score = |sum: i64| match range {
        0 => 0,
        // As in Kubernetes, so that both round alike.
        _ => (MAX_SCORE as f64 * (sum.saturating_sub(least) as f64 / range as f64)) as i64,
    };
    sums.iter().map(|sum| score(*sum)).collect()
}
