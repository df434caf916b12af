//! Which of the nodes that can take a pod is best: the emptiest, most evenly used, with the pods that it is to be near
//! or apart from.
//!
//! Every part is a number from 0 to 100; the weights are Kubernetes' defaults.

use super::{
    node::{NodeInfo, load_of},
    pod::Needs,
    resources::Amount,
};
use crate::objects::taints::{PREFER_NO_SCHEDULE, covers};

const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_AFFINITY: i64 = 2;
/// Weight of topology spread.
pub const WEIGHT_SPREAD: i64 = 2;
/// Weight of affinity and anti-affinity to pods.
pub const WEIGHT_POD_AFFINITY: i64 = 2;
/// The best that a part can be.
pub const MAX_SCORE: i64 = 100;

/// Picks the best of `candidates` (positions in the cluster); the first of equals. `by_pods` is what the placed pods
/// add to the score of each.
pub fn best(needs: &Needs, candidates: &[(usize, &NodeInfo)], by_pods: &[i64]) -> Option<usize> {
    let preferences: Option<Vec<i64>> = needs
        .affinity
        .prefers()
        .then(|| candidates.iter().map(|(_, n)| needs.affinity.preference(&n.node.name, &n.node.labels)).collect());
    let most_preferred = preferences.iter().flatten().copied().max().unwrap_or(0).max(1);
    let most_intolerable = candidates.iter().map(|(_, n)| count_intolerable_taints(needs, n)).max().unwrap_or(0);
    let mut best: Option<(i64, usize)> = None;
    for (at, (index, node)) in candidates.iter().enumerate() {
        let mut score = room(needs, node);
        if let Some(preferences) = &preferences {
            score += WEIGHT_AFFINITY * preferences[at] * MAX_SCORE / most_preferred;
        }
        if most_intolerable > 0 {
            score += WEIGHT_TAINTS * (MAX_SCORE - count_intolerable_taints(needs, node) * MAX_SCORE / most_intolerable);
        }
        score = score.saturating_add(by_pods.get(at).copied().unwrap_or(0));
        if best.is_none_or(|(most, _)| score > most) {
            best = Some((score, *index));
        }
    }
    best.map(|(_, index)| index)
}

/// Least allocated plus balanced allocation, over CPU and memory, with the pod on the node.
fn room(needs: &Needs, node: &NodeInfo) -> i64 {
    let load = load_of(needs);
    let has = &node.node.allocatable;
    let most = Amount::from(MAX_SCORE);
    let free = |has: Amount, taken: Amount| if has <= 0 || taken > has { 0 } else { (has - taken) * most / has };
    let least = (free(has.cpu_milli, node.load.0 + load.0) + free(has.memory, node.load.1 + load.1)) / 2;
    let used = |has: Amount, taken: Amount| match has {
        1.. => (taken.max(0).min(has) * most / has).clamp(0, most),
        _ => most,
    };
    let cpu = used(has.cpu_milli, node.requested.cpu_milli + needs.requests.cpu_milli);
    let memory = used(has.memory, node.requested.memory + needs.requests.memory);
    // The standard deviation of two values is half their distance.
    let balanced = most - (cpu - memory).abs() / 2;
    i64::try_from(least + balanced).unwrap_or(0)
}

fn count_intolerable_taints(needs: &Needs, node: &NodeInfo) -> i64 {
    let soft = node.node.taints.iter().filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
    soft.filter(|taint| !needs.tolerations.iter().any(|t| covers(t, taint))).fold(0, |count, _| count + 1)
}
