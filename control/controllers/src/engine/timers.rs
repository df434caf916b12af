//! One timer per key: of several, the earliest wins. It waits for nothing itself.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use tokio::time::Instant;

/// The timers of keys.
pub struct KeyTimers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: HashMap<K, Instant>,
}

impl<K> Default for KeyTimers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> KeyTimers<K> {
    /// Whether the key has a timer.
    pub fn has(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// The time of the earliest.
    pub fn earliest(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Sets the timer of a key, unless it has an earlier one. Whether it did.
    pub fn arm(&mut self, key: K, at: Instant) -> bool {
        if let Some(standing) = self.by_key.get(&key) {
            if *standing <= at {
                return false;
            }
            let standing = *standing;
            self.by_time.remove(&(standing, key.clone()));
        }
        self.by_key.insert(key.clone(), at);
        self.by_time.insert((at, key));
        true
    }

    /// The key whose timer is due first, without that timer.
    pub fn take_due(&mut self, now: Instant) -> Option<K> {
        if self.earliest()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_is_due_once_at_its_earliest_time() {
        let mut timers = KeyTimers::default();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(timers.arm("a", at(5)) && timers.arm("b", at(4)));
        assert!(timers.arm("a", at(2)) && !timers.arm("a", at(3)));
        assert_eq!((timers.earliest(), timers.take_due(at(1))), (Some(at(2)), None));
        assert_eq!(
            (timers.take_due(at(9)), timers.take_due(at(9)), timers.take_due(at(9))),
            (Some("a"), Some("b"), None)
        );
        assert!(!timers.has(&"a"));
    }
}
