//! Pods that were requested for a set and are not in the view yet, so that a stale view leads to no second request.
//!
//! Creations are counted (their names come from the server), deletions are known by uid.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    engine::{Key, ObjectChange},
    objects::pod_state::is_terminating,
};

/// After this long an event must have been missed, and the view is trusted again. Source: client-go's
/// `ExpectationsTimeout`.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// Creations and deletions that were requested and that the view does not show yet, by set.
#[derive(Default)]
pub struct Expectations {
    sets: Mutex<HashMap<Key, Expected>>,
}

struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Expects `creations` more pods to appear and those of `deletions` to go. Call before the requests are sent.
    pub fn expect(&self, set: &Key, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let mut sets = self.sets.lock();
        let expected = sets.entry(set.clone()).or_insert_with(|| Expected {
            creations: 0,
            deletions: HashSet::new(),
            since: Instant::now(),
        });
        expected.creations = expected.creations.saturating_add(creations);
        expected.deletions.extend(deletions);
        expected.since = Instant::now();
    }

    /// A pod of the set appeared, or its creation failed.
    pub fn created(&self, set: &Key) {
        if let Some(expected) = self.sets.lock().get_mut(set) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// Takes down what a change of a pod shows: that it appeared, or that it is terminating or gone. `owner_of` names
    /// the set that a pod belongs to.
    pub fn observe(&self, change: &ObjectChange<Pod>, owner_of: impl Fn(&Pod) -> Option<Key>) {
        let terminating = change.new.as_deref().is_none_or(is_terminating);
        for pod in [&change.old, &change.new].into_iter().flatten() {
            let Some(set) = owner_of(pod) else { continue };
            if change.old.is_none() {
                self.created(&set);
            }
            if terminating {
                self.deleted(&set, pod.metadata.uid.as_deref().unwrap_or_default());
            }
        }
    }

    /// Takes back the expectation of `count` creations that will not be asked for.
    pub fn unexpect_creations(&self, set: &Key, count: usize) {
        if let Some(expected) = self.sets.lock().get_mut(set) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// A pod of the set is terminating or gone, or its deletion failed.
    pub fn deleted(&self, set: &Key, uid: &str) {
        if let Some(expected) = self.sets.lock().get_mut(set) {
            expected.deletions.remove(uid);
        }
    }

    /// Whether the view now shows all that was asked for.
    pub fn met(&self, set: &Key, now: Instant) -> bool {
        let mut sets = self.sets.lock();
        let Some(expected) = sets.get(set) else { return true };
        let met = expected.creations == 0 && expected.deletions.is_empty();
        if met || now.saturating_duration_since(expected.since) >= TIMEOUT {
            sets.remove(set);
            return true;
        }
        false
    }

    /// Forgets a set that was deleted.
    pub fn forget(&self, set: &Key) {
        self.sets.lock().remove(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_waits_until_it_has_seen_what_it_asked_for() {
        let expectations = Expectations::default();
        let (set, now) = (Key::new("default", "web"), Instant::now());
        assert!(expectations.met(&set, now));
        expectations.expect(&set, 2, ["uid-1".to_owned()]);
        expectations.created(&set);
        expectations.deleted(&set, "uid-1");
        assert!(!expectations.met(&set, now));
        expectations.created(&set);
        assert!(expectations.met(&set, now));
    }

    #[test]
    fn an_expectation_that_is_never_met_ends_after_its_timeout() {
        let expectations = Expectations::default();
        let set = Key::new("default", "web");
        expectations.expect(&set, 1, []);
        assert!(!expectations.met(&set, Instant::now()));
        assert!(expectations.met(&set, Instant::now() + TIMEOUT));
    }
}
