//! Which active pods of a Job are deleted when there are too many, or when an index has more than one.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use super::{super::replica_set::delete_order::Ranked, pods::valid_index, terms::Terms};

/// At least so many pods, those first whose index is not valid or belongs to another pod too, then those that have come
/// the least far.
pub fn chosen(active: &[Arc<Pod>], terms: &Terms, at_least: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let (mut removed, left) = if terms.indexed { misplaced(active, terms, now) } else { (vec![], active.to_vec()) };
    let more = at_least.saturating_sub(removed.len());
    if more > 0 {
        removed.extend(ordered(left, now).into_iter().take(more));
    }
    removed
}

/// The pods without a valid index and all but the best of each index; then the others.
fn misplaced(active: &[Arc<Pod>], terms: &Terms, now: Timestamp) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut by_index: BTreeMap<Option<usize>, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in active {
        by_index.entry(valid_index(pod, terms)).or_default().push(pod.clone());
    }
    let (mut removed, mut left) = (Vec::new(), Vec::new());
    for (index, pods) in by_index {
        let mut pods = ordered(pods, now);
        if index.is_some() {
            left.extend(pods.pop());
        }
        removed.extend(pods);
    }
    (removed, left)
}

fn ordered(pods: Vec<Arc<Pod>>, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut ranked: Vec<Ranked> = pods.iter().map(|pod| Ranked::new(pod, 0, now)).collect();
    ranked.sort();
    ranked.into_iter().map(|ranked| ranked.pod.clone()).collect()
}
