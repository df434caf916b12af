//! A queue of keys: each key waits at most once, is worked on by one task at a time, and comes back if it was named meanwhile.
//!
//! It also holds each key's timer (the earliest wins) and its back-off after failures. It never spawns or sleeps.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// First delay after a failure; doubles with each further one. Source: client-go's default controller rate limiter.
const BACKOFF_BASE: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// The work that waits for one controller.
pub struct WorkQueue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    working: HashSet<K>,
    timers: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

/// What [`WorkQueue::take`] found.
pub enum Taken<K> {
    Key(K),
    /// Nothing is ready; the earliest timer, if there is one.
    Nothing(Option<Instant>),
}

impl<K: Clone + Eq + Hash + Ord> Default for WorkQueue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            working: HashSet::new(),
            timers: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// Names `key` for work now.
    pub fn add(&self, key: K) {
        if self.state.lock().enqueue(key) {
            self.changed.notify_one();
        }
    }

    /// Names `key` for work at `at`, unless an earlier timer stands.
    pub fn add_at(&self, key: K, at: Instant) {
        if self.state.lock().arm(key, at) {
            self.changed.notify_one();
        }
    }

    pub fn add_after(&self, key: K, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    /// Takes the next key, after moving due timers into the queue. The key stays with the caller until [`Self::done`].
    pub fn take(&self, now: Instant) -> Taken<K> {
        let mut state = self.state.lock();
        state.fire(now);
        match state.ready.pop_front() {
            Some(key) => {
                state.waiting.remove(&key);
                state.working.insert(key.clone());
                Taken::Key(key)
            }
            None => Taken::Nothing(state.timers.first().map(|(at, _)| *at)),
        }
    }

    /// Gives `key` back after success: its failures are forgotten.
    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.failures.remove(key);
        let again = state.release(key);
        drop(state);
        if again {
            self.changed.notify_one();
        }
    }

    /// Gives `key` back after a failure: it returns after its back-off. Returns that delay.
    pub fn failed(&self, key: &K, now: Instant) -> Duration {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = backoff(*failures);
        *failures += 1;
        // Whatever named the key meanwhile also waits, or a failing key that changes often would spin.
        if state.waiting.remove(key) {
            state.ready.retain(|k| k != key);
        }
        state.working.remove(key);
        state.arm(key.clone(), now + delay);
        drop(state);
        self.changed.notify_one();
        delay
    }

    /// Returns when something was added since the last look.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn enqueue(&mut self, key: K) -> bool {
        if !self.waiting.insert(key.clone()) {
            return false;
        }
        if self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn release(&mut self, key: &K) -> bool {
        self.working.remove(key);
        if self.waiting.contains(key) {
            self.ready.push_back(key.clone());
            return true;
        }
        false
    }

    fn arm(&mut self, key: K, at: Instant) -> bool {
        if let Some(standing) = self.due.get(&key) {
            if *standing <= at {
                return false;
            }
            let standing = *standing;
            self.timers.remove(&(standing, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.timers.insert((at, key));
        true
    }

    fn fire(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.enqueue(key);
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_BASE.saturating_mul(2u32.saturating_pow(failures)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_at(queue: &WorkQueue<&'static str>, now: Instant) -> Option<&'static str> {
        match queue.take(now) {
            Taken::Key(key) => Some(key),
            Taken::Nothing(_) => None,
        }
    }

    fn next(queue: &WorkQueue<&'static str>) -> Option<&'static str> {
        next_at(queue, Instant::now())
    }

    #[test]
    fn a_key_named_twice_is_worked_on_once() {
        let queue = WorkQueue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(next(&queue), Some("a"));
        assert_eq!(next(&queue), None);
    }

    #[test]
    fn a_key_named_while_worked_on_returns_when_done() {
        let queue = WorkQueue::default();
        queue.add("a");
        assert_eq!(next(&queue), Some("a"));
        queue.add("a");
        assert_eq!(next(&queue), None);
        queue.done(&"a");
        assert_eq!(next(&queue), Some("a"));
    }

    #[test]
    fn failures_back_off_twice_as_long_each_time_and_success_forgets_them() {
        let queue = WorkQueue::default();
        let mut now = Instant::now();
        queue.add("a");
        for expected in [5, 10, 20] {
            assert_eq!(next_at(&queue, now), Some("a"));
            queue.add("a");
            assert_eq!(queue.failed(&"a", now), Duration::from_millis(expected));
            assert_eq!(next_at(&queue, now), None, "a change does not shorten the back-off");
            now += Duration::from_millis(expected);
        }
        assert_eq!(next_at(&queue, now), Some("a"));
        queue.done(&"a");
        queue.add("a");
        assert_eq!(next_at(&queue, now), Some("a"));
        assert_eq!(queue.failed(&"a", now), Duration::from_millis(5));
    }

    #[test]
    fn the_earliest_timer_of_a_key_wins() {
        let queue = WorkQueue::default();
        let now = Instant::now();
        for seconds in [10, 2, 5] {
            queue.add_at("a", now + Duration::from_secs(seconds));
        }
        assert_eq!(next_at(&queue, now + Duration::from_secs(1)), None);
        assert_eq!(next_at(&queue, now + Duration::from_secs(2)), Some("a"));
        queue.done(&"a");
        assert_eq!(next_at(&queue, now + Duration::from_secs(20)), None);
    }
}
