//! The sizes of a Deployment's sets, one step on: rolling update, recreation, and scaling in proportion.
//!
//! Every function returns the new sizes of the sets that change; an empty result means that nothing is to be done.
//! Source for the figures: Kubernetes' deployment controller (`rolling.go`, `recreate.go`, `sync.go`).

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{
    limits::{self, Limits, asked, available, total},
    revision::MAX_REPLICAS,
};

/// A set and the size it should have.
#[derive(Clone, Debug)]
pub struct Resize {
    /// The set as the cache shows it.
    pub set: Arc<ReplicaSet>,
    /// The size it is to get.
    pub replicas: i32,
}

/// Size of the new set in a rolling update, where `total` is what all sets ask for, it included.
pub fn new_size(limits: Limits, current: i32, total: i32) -> i32 {
    if current >= limits.replicas {
        return limits.replicas;
    }
    let room = limits.most().saturating_sub(total);
    if room <= 0 { current } else { current + room.min(limits.replicas - current) }
}

/// One step of a rolling update: first the new set grows, then the old ones shrink.
pub fn roll(limits: Limits, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let total = total(old, asked).saturating_add(asked(new));
    let size = new_size(limits, asked(new), total);
    if size != asked(new) {
        return vec![Resize { set: new.clone(), replicas: size }];
    }
    shrink_old(limits, new, old, total)
}

fn shrink_old(limits: Limits, new: &ReplicaSet, old: &[Arc<ReplicaSet>], total: i32) -> Vec<Resize> {
    let new_unavailable = asked(new).saturating_sub(available(new));
    let spare = total.saturating_sub(limits.fewest_available()).saturating_sub(new_unavailable);
    if spare <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<Resize> = old.iter().map(|set| Resize { set: set.clone(), replicas: asked(set) }).collect();
    sizes.sort_by(|a, b| by_age(&a.set, &b.set));
    // Broken pods first: they serve nobody.
    let mut left = spare;
    for size in &mut sizes {
        let broken = (size.replicas - available(&size.set)).max(0).min(left);
        size.replicas -= broken;
        left -= broken;
    }
    let up = limits::total(old, available).saturating_add(available(new));
    let mut left = up.saturating_sub(limits.fewest_available()).max(0);
    for size in &mut sizes {
        let healthy = size.replicas.min(left);
        size.replicas -= healthy;
        left -= healthy;
    }
    sizes.retain(|size| size.replicas != asked(&size.set));
    sizes
}

/// Scales all sets that still ask for pods to zero.
pub fn empty(sets: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let live = sets.iter().filter(|set| asked(set) > 0);
    live.map(|set| Resize { set: set.clone(), replicas: 0 }).collect()
}

/// Scales without rolling: the one live set, or all live sets in proportion to their size.
///
/// `pods` is the number of pods the Deployment last reported: the former total of sets that carry no annotation of it.
pub fn scale(
    limits: Limits,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
    pods: i32,
    rolling: bool,
) -> Vec<Resize> {
    let mut live: Vec<Arc<ReplicaSet>> = old.iter().chain(new).filter(|set| asked(set) > 0).cloned().collect();
    let only = match live.as_slice() {
        [] => new.cloned().or_else(|| old.iter().max_by(|a, b| by_age(a, b)).cloned()),
        [one] => Some(one.clone()),
        _ => None,
    };
    if live.len() < 2 {
        let resized = only.filter(|set| asked(set) != limits.replicas);
        return resized.map(|set| Resize { set, replicas: limits.replicas }).into_iter().collect();
    }
    if new.is_some_and(|set| asked(set) == limits.replicas && available(set) == limits.replicas) {
        return empty(old);
    }
    if !rolling {
        return Vec::new();
    }
    let total = total(&live, asked);
    let allowed = if limits.replicas > 0 { limits.most() } else { 0 };
    let to_add = allowed.saturating_sub(total);
    if to_add == 0 {
        return Vec::new();
    }
    // The largest takes its share first; among equals the newer one grows, and the older one shrinks.
    live.sort_by(|a, b| {
        let age = by_age(a, b);
        asked(b).cmp(&asked(a)).then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(live.len());
    for set in live {
        let share = share(limits, &set, pods, to_add.saturating_sub(added));
        added = added.saturating_add(share);
        sizes.push(Resize { replicas: asked(&set).saturating_add(share).max(0), set });
    }
    if let Some(first) = sizes.first_mut() {
        first.replicas = first.replicas.saturating_add(to_add.saturating_sub(added)).max(0);
    }
    sizes.retain(|size| size.replicas != asked(&size.set));
    sizes
}

/// How much of what is `left` to add (or, below zero, to take) falls to `set`.
fn share(limits: Limits, set: &ReplicaSet, pods: i32, left: i32) -> i32 {
    if left == 0 {
        return 0;
    }
    let fraction = if limits.replicas == 0 {
        -asked(set)
    } else {
        let before = set.metadata.annotations.as_ref().and_then(|a| a.get(MAX_REPLICAS)).and_then(|v| v.parse().ok());
        let before: i32 = before.filter(|before| *before > 0).unwrap_or(pods);
        if before <= 0 {
            return 0;
        }
        let size = f64::from(asked(set)) * f64::from(limits.most()) / f64::from(before);
        (size.round() as i32).saturating_sub(asked(set))
    };
    if left > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// Older first; equal times by name, so that the order is always the same.
pub fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|t| t.0);
    created(a).cmp(&created(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits(replicas: i32, surge: i32, unavailable: i32) -> Limits {
        Limits { replicas, surge, unavailable }
    }

    fn set(name: &str, second: u8, asked: i32, available: i32, max: Option<i32>) -> Arc<ReplicaSet> {
        let annotations = max.map(|max| json!({MAX_REPLICAS: max.to_string()})).unwrap_or(json!({}));
        let set = json!({"metadata": {"name": name, "annotations": annotations,
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"replicas": asked, "selector": {}},
            "status": {"replicas": asked, "availableReplicas": available}});
        Arc::new(serde_json::from_value(set).expect("a valid set"))
    }

    fn sizes(resizes: Vec<Resize>) -> Vec<(String, i32)> {
        resizes.into_iter().map(|r| (r.set.metadata.name.clone().unwrap_or_default(), r.replicas)).collect()
    }

    #[test]
    fn a_rolling_update_grows_the_new_set_within_the_surge_then_shrinks_the_old() {
        let limits = limits(10, 3, 2);
        let old = [set("old", 1, 10, 10, None)];
        assert_eq!(sizes(roll(limits, &set("new", 2, 0, 0, None), &old)), [("new".into(), 3)]);
        assert_eq!(sizes(roll(limits, &set("new", 2, 3, 0, None), &old)), [("old".into(), 8)]);
        let old = [set("old", 1, 8, 8, None)];
        assert_eq!(sizes(roll(limits, &set("new", 2, 3, 0, None), &old)), [("new".into(), 5)]);
        assert!(roll(limits, &set("new", 2, 5, 0, None), &old).is_empty());
        assert_eq!(sizes(roll(limits, &set("new", 2, 5, 5, None), &old)), [("old".into(), 3)]);
    }

    #[test]
    fn broken_old_pods_go_first_even_when_nothing_else_may() {
        let old = [set("broken", 1, 4, 0, None), set("good", 2, 6, 6, None)];
        let new = set("new", 3, 2, 0, None);
        assert_eq!(sizes(roll(limits(10, 2, 2), &new, &old)), [("broken".into(), 2)]);
    }

    #[test]
    fn growth_in_the_middle_of_a_rollout_is_shared_in_proportion() {
        let (new, old) = (set("new", 2, 5, 2, Some(13)), [set("old", 1, 8, 8, Some(13))]);
        let resized = scale(limits(15, 3, 2), Some(&new), &old, 13, true);
        assert_eq!(sizes(resized), [("old".into(), 11), ("new".into(), 7)]);
    }

    #[test]
    fn scaling_to_zero_empties_every_set() {
        let (new, old) = (set("new", 2, 5, 2, Some(13)), [set("old", 1, 8, 8, Some(13))]);
        let resized = scale(limits(0, 0, 0), Some(&new), &old, 13, true);
        assert_eq!(sizes(resized), [("old".into(), 0), ("new".into(), 0)]);
    }

    #[test]
    fn a_saturated_new_set_empties_the_old_ones() {
        let (new, old) = (set("new", 2, 5, 5, None), [set("old", 1, 1, 1, None)]);
        assert_eq!(sizes(scale(limits(5, 1, 1), Some(&new), &old, 6, true)), [("old".into(), 0)]);
    }

    #[test]
    fn a_single_live_set_takes_the_whole_size() {
        assert_eq!(sizes(scale(limits(7, 1, 1), Some(&set("new", 2, 5, 5, None)), &[], 5, true)), [("new".into(), 7)]);
    }

    #[test]
    fn sets_of_the_largest_size_are_sized_without_overflow() {
        let most = i32::MAX;
        let old = [set("a", 1, most, most, None), set("b", 2, most, most, None)];
        let new = set("new", 3, most, 0, Some(1));
        roll(limits(most, most, most), &new, &old);
        roll(limits(0, 0, 0), &new, &old);
        for pods in [i32::MIN, 0, most] {
            for resize in scale(limits(most, most, 0), Some(&new), &old, pods, true) {
                assert!(resize.replicas >= 0);
            }
            scale(limits(1, most, 0), Some(&new), &old, pods, true);
        }
    }
}
