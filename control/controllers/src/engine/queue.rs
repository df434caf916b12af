//! A queue of keys: each key waits at most once, is worked on by one task at a time, and is queued again if it was
//! added meanwhile.
//!
//! It also holds each key's timer and its back-off after failures, and counts what it does for
//! `/metrics`. It never spawns or sleeps.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    deadline::Deadline,
    histogram::{AtomicHistogram, HistogramSnapshot},
    timers::KeyTimers,
};

/// First delay after a failure; doubles with each further one. Source: client-go's default controller rate limiter.
const BACKOFF_BASE: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// The work that waits for one controller.
pub struct WorkQueue<K> {
    name: &'static str,
    state: Mutex<State<K>>,
    changed: Notify,
    adds: AtomicU64,
    retries: AtomicU64,
    queue_duration: AtomicHistogram,
    work_duration: AtomicHistogram,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys that wait, those that are worked on as well included, since when.
    waiting: HashMap<K, Instant>,
    /// Keys that are worked on, since when.
    working: HashMap<K, Instant>,
    timers: KeyTimers<K>,
    failures: HashMap<K, u32>,
}

/// What [`WorkQueue::take`] found.
pub enum Taken<K> {
    /// The caller works on this key now.
    Key(K),
    /// Nothing is ready; the earliest timer, if there is one.
    Nothing(Option<Instant>),
}

/// Counters of a queue at one moment. The names in brackets are Kubernetes' metrics of the same meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// The controller whose queue it is.
    pub name: &'static str,
    /// Keys that wait now (`workqueue_depth`).
    pub depth: usize,
    /// Keys that are worked on now.
    pub working: usize,
    /// For how long the oldest of them has been worked on (`workqueue_longest_running_processor_seconds`).
    pub longest_running: Duration,
    /// Sum of that over all of them (`workqueue_unfinished_work_seconds`).
    pub unfinished_work: Duration,
    /// Keys that were queued (`workqueue_adds_total`).
    pub adds: u64,
    /// Keys that were given back after a failure (`workqueue_retries_total`).
    pub retries: u64,
    /// How long keys waited before they were worked on (`workqueue_queue_duration_seconds`).
    pub queue_duration: HistogramSnapshot,
    /// How long they were worked on (`workqueue_work_duration_seconds`).
    pub work_duration: HistogramSnapshot,
}

/// A queue whose counters can be read, whatever its keys are.
pub trait Measured: Send + Sync {
    /// The counters now.
    fn stats(&self) -> QueueStats;
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// An empty queue; `name` is the controller's.
    pub fn new(name: &'static str) -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashMap::new(),
            working: HashMap::new(),
            timers: KeyTimers::default(),
            failures: HashMap::new(),
        };
        Self {
            name,
            state: Mutex::new(state),
            changed: Notify::new(),
            adds: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            queue_duration: AtomicHistogram::default(),
            work_duration: AtomicHistogram::default(),
        }
    }

    /// Adds `key` to be worked on now.
    pub fn add(&self, key: K) {
        let added = self.state.lock().enqueue(key, Instant::now());
        self.count_adds(added.into());
        if added {
            self.changed.notify_one();
        }
    }

    /// Adds `key` to be worked on now, unless it waits already, be it for its back-off, or is being worked on.
    pub fn add_if_idle(&self, key: K) {
        let mut state = self.state.lock();
        if state.timers.has(&key) || state.working.contains_key(&key) {
            return;
        }
        let added = state.enqueue(key, Instant::now());
        drop(state);
        self.count_adds(added.into());
        if added {
            self.changed.notify_one();
        }
    }

    /// Adds `key` at `at`, unless it has an earlier timer.
    pub fn add_at(&self, key: K, at: Deadline) {
        if let Some(at) = at.instant()
            && self.state.lock().timers.arm(key, at)
        {
            self.changed.notify_one();
        }
    }

    /// Adds `key` after `delay`, unless it has an earlier timer. A delay beyond what the clock can count never ends.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.add_at(key, Deadline::from(Instant::now(), delay));
    }

    /// Takes the next key, after moving due timers into the queue. The key stays with the caller until [`Self::done`].
    pub fn take(&self, now: Instant) -> Taken<K> {
        let mut state = self.state.lock();
        self.count_adds(state.queue_due(now));
        match state.ready.pop_front() {
            Some(key) => {
                if let Some(since) = state.waiting.remove(&key) {
                    self.queue_duration.observe(now.saturating_duration_since(since));
                }
                state.working.insert(key.clone(), now);
                Taken::Key(key)
            }
            None => Taken::Nothing(state.timers.earliest()),
        }
    }

    /// Gives `key` back after success: its failures are forgotten.
    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.failures.remove(key);
        self.release(&mut state, key, Instant::now());
        let again = state.waiting.contains_key(key);
        if again {
            state.ready.push_back(key.clone());
        }
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
        *failures = failures.saturating_add(1);
        // An addition that came meanwhile waits for the back-off too, or a failing key that changes often would spin.
        state.waiting.remove(key);
        self.release(&mut state, key, now);
        if let Some(at) = Deadline::from(now, delay).instant() {
            state.timers.arm(key.clone(), at);
        }
        drop(state);
        self.retries.fetch_add(1, Relaxed);
        self.changed.notify_one();
        delay
    }

    /// Queues again every key that was taken and never given back, after the worker that took them ended.
    pub fn recover(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let abandoned: Vec<K> = state.working.drain().map(|(key, _)| key).collect();
        for key in abandoned {
            state.waiting.remove(&key);
            state.enqueue(key, now);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Returns when something was added since the last look.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn release(&self, state: &mut State<K>, key: &K, now: Instant) {
        if let Some(since) = state.working.remove(key) {
            self.work_duration.observe(now.saturating_duration_since(since));
        }
    }

    fn count_adds(&self, count: u64) {
        self.adds.fetch_add(count, Relaxed);
    }
}

impl<K: Clone + Eq + Hash + Ord + Send> Measured for WorkQueue<K> {
    fn stats(&self) -> QueueStats {
        let now = Instant::now();
        let state = self.state.lock();
        let running: Vec<Duration> = state.working.values().map(|at| now.saturating_duration_since(*at)).collect();
        QueueStats {
            name: self.name,
            depth: state.waiting.len(),
            working: running.len(),
            longest_running: running.iter().max().copied().unwrap_or_default(),
            unfinished_work: running.iter().sum(),
            adds: self.adds.load(Relaxed),
            retries: self.retries.load(Relaxed),
            queue_duration: self.queue_duration.snapshot(),
            work_duration: self.work_duration.snapshot(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    /// Whether the key did not wait already.
    fn enqueue(&mut self, key: K, now: Instant) -> bool {
        if self.waiting.contains_key(&key) {
            return false;
        }
        self.waiting.insert(key.clone(), now);
        if !self.working.contains_key(&key) {
            self.ready.push_back(key);
        }
        true
    }

    /// Queues the keys whose timers are due; returns how many.
    fn queue_due(&mut self, now: Instant) -> u64 {
        let mut added = 0;
        while let Some(key) = self.timers.take_due(now) {
            added += u64::from(self.enqueue(key, now));
        }
        added
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
        let queue = WorkQueue::new("test");
        queue.add("a");
        queue.add("a");
        assert_eq!(next(&queue), Some("a"));
        assert_eq!(next(&queue), None);
    }

    #[test]
    fn a_key_named_while_worked_on_returns_when_done() {
        let queue = WorkQueue::new("test");
        queue.add("a");
        assert_eq!(next(&queue), Some("a"));
        queue.add("a");
        assert_eq!(next(&queue), None);
        queue.done(&"a");
        assert_eq!(next(&queue), Some("a"));
    }

    #[test]
    fn failures_back_off_twice_as_long_each_time_and_success_forgets_them() {
        let queue = WorkQueue::new("test");
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
    fn a_key_that_is_added_only_when_idle_neither_shortens_its_backoff_nor_returns_when_done() {
        let queue = WorkQueue::new("test");
        let now = Instant::now();
        queue.add_if_idle("a");
        queue.add_if_idle("a");
        assert_eq!(next_at(&queue, now), Some("a"));
        queue.add_if_idle("a");
        let delay = queue.failed(&"a", now);
        queue.add_if_idle("a");
        assert_eq!(next_at(&queue, now), None);
        assert_eq!(next_at(&queue, now + delay), Some("a"));
        queue.add_if_idle("a");
        queue.done(&"a");
        assert_eq!(next_at(&queue, now + delay), None);
        queue.add_if_idle("a");
        assert_eq!(next_at(&queue, now + delay), Some("a"));
    }

    #[test]
    fn a_delay_without_end_is_no_timer_and_no_panic() {
        let queue = WorkQueue::new("test");
        queue.add_after("a", Duration::MAX);
        assert!(matches!(queue.take(Instant::now()), Taken::Nothing(None)));
        queue.add_after("a", Duration::ZERO);
        assert_eq!(next(&queue), Some("a"));
    }

    #[test]
    fn keys_of_a_worker_that_is_gone_are_queued_again() {
        let queue = WorkQueue::new("test");
        queue.add("a");
        queue.add("b");
        assert_eq!(next(&queue), Some("a"));
        queue.add("a");
        queue.recover();
        assert_eq!((next(&queue), next(&queue), next(&queue)), (Some("b"), Some("a"), None));
    }

    #[test]
    fn the_counters_tell_what_waits_and_what_was_done() {
        let queue = WorkQueue::new("test");
        for key in ["a", "b", "a"] {
            queue.add(key);
        }
        assert_eq!(next(&queue), Some("a"));
        let stats = queue.stats();
        assert_eq!((stats.depth, stats.working, stats.adds, stats.retries), (1, 1, 2, 0));
        queue.failed(&"a", Instant::now());
        let stats = queue.stats();
        assert_eq!((stats.depth, stats.working, stats.retries), (1, 0, 1));
        let count = |durations: &HistogramSnapshot| durations.buckets.iter().sum::<u64>();
        assert_eq!((count(&stats.queue_duration), count(&stats.work_duration)), (1, 1));
    }

    #[test]
    fn the_earliest_timer_of_a_key_wins() {
        let queue = WorkQueue::new("test");
        let now = Instant::now();
        for seconds in [10, 2, 5] {
            queue.add_at("a", Deadline::from(now, Duration::from_secs(seconds)));
        }
        assert_eq!(next_at(&queue, now + Duration::from_secs(1)), None);
        assert_eq!(next_at(&queue, now + Duration::from_secs(2)), Some("a"));
        queue.done(&"a");
        assert_eq!(next_at(&queue, now + Duration::from_secs(20)), None);
    }
}
