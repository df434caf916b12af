//! Pods without a node: pods to be tried (active), unschedulable pods, and pods in back-off.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    pod::{Needs, PodController, PodInfo},
    queueing_hints::Waiting,
    rejection::Rejections,
};
use crate::engine::{Deadline, Key};

/// First delay after a failed binding. Source: kube-scheduler's `podInitialBackoffSeconds`.
const FAILED_BASE: Duration = Duration::from_secs(1);
/// First delay between two attempts that found no node: a freed slot must not cost an attempt of every pod that waits,
/// again and again.
const UNSCHEDULABLE_BASE: Duration = Duration::from_millis(50);
/// The longest delay of both. Source: kube-scheduler's `podMaxBackoffSeconds`.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A pod without a node.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// Namespace and name.
    pub key: Key,
    /// Tells the pod from a later one of the same name.
    pub uid: String,
    /// What controls it.
    pub owner: Option<PodController>,
    /// What decides where it can run.
    pub needs: Arc<Needs>,
    /// The reason that was last written to the pod.
    pub reported: Option<String>,
    /// Which filters refused it in the last attempt.
    rejections: Rejections,
    /// When it was queued first.
    added_at: Instant,
    /// Attempts whose request failed.
    failures: u32,
    /// Attempts that found no node.
    refusals: u32,
    /// Not tried again before this, whatever changes.
    not_before: Deadline,
}

/// Where a pod waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Ready(Rank),
    Unschedulable,
    Until(Instant),
    /// Its binding is under way.
    Binding,
}

/// Higher priority first, then first come.
type Rank = (Reverse<i32>, u64);

/// All pods without a node.
#[derive(Default)]
pub struct SchedulingQueue {
    pods: HashMap<String, (QueuedPod, Position)>,
    ready: BTreeMap<Rank, String>,
    timers: BTreeSet<(Instant, String)>,
    unschedulable: BTreeSet<String>,
    arrivals: u64,
}

impl SchedulingQueue {
    /// Takes over a pending pod. One that is known is tried again only if its needs changed.
    pub fn upsert(&mut self, pod: PodInfo, now: Instant) {
        let PodInfo { key, uid, owner, needs, reported, .. } = pod;
        if let Some((known, position)) = self.pods.get_mut(&uid) {
            (known.reported, known.owner) = (reported, owner);
            if *known.needs == needs {
                return;
            }
            known.needs = Arc::new(needs);
            if *position == Position::Binding {
                // It is tried with them when its request has failed.
                return;
            }
            known.refusals = 0;
            self.make_ready(&uid);
            return;
        }
        let rank = self.rank(needs.priority);
        let pod = QueuedPod {
            key,
            uid: uid.clone(),
            owner,
            needs: Arc::new(needs),
            reported,
            rejections: Rejections::default(),
            added_at: now,
            failures: 0,
            refusals: 0,
            not_before: Deadline::At(now),
        };
        self.ready.insert(rank, uid.clone());
        self.pods.insert(uid, (pod, Position::Ready(rank)));
    }

    /// The next pod to be tried. It counts as binding until [`Self::remove`], [`Self::unschedulable`] or
    /// [`Self::failed`].
    pub fn next(&mut self) -> Option<QueuedPod> {
        let (_, uid) = self.ready.pop_first()?;
        let (pod, position) = self.pods.get_mut(&uid)?;
        *position = Position::Binding;
        Some(pod.clone())
    }

    /// Whether the pod is queued.
    pub fn has(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// When the pod was queued first.
    pub fn added_at(&self, uid: &str) -> Option<Instant> {
        self.pods.get(uid).map(|(pod, _)| pod.added_at)
    }

    /// Whether a pod can be tried now.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many pods are to be tried, wait out their back-off, and are unschedulable.
    pub fn lengths(&self) -> (usize, usize, usize) {
        (self.ready.len(), self.timers.len(), self.unschedulable.len())
    }

    /// No node can take the pod now: it waits for a change. Returns whether the message is new, and must be written to
    /// the pod.
    pub fn unschedulable(&mut self, uid: &str, message: &str, now: Instant) -> bool {
        self.put(uid, Position::Unschedulable);
        let Some((pod, _)) = self.pods.get_mut(uid) else { return false };
        pod.not_before = Deadline::from(now, backoff(UNSCHEDULABLE_BASE, pod.refusals));
        pod.refusals = pod.refusals.saturating_add(1);
        if pod.reported.as_deref() == Some(message) {
            return false;
        }
        pod.reported = Some(message.to_owned());
        true
    }

    /// These filters left no node for the pod: it is helped by what they look at.
    pub fn rejected(&mut self, uid: &str, rejections: Rejections) {
        if let Some((pod, _)) = self.pods.get_mut(uid) {
            pod.rejections = rejections;
        }
    }

    /// What was to be written to the pod could not be: it is written after the next attempt.
    pub fn not_reported(&mut self, uid: &str) {
        if let Some((pod, _)) = self.pods.get_mut(uid) {
            pod.reported = None;
        }
    }

    /// Tries an unschedulable pod again, not before its back-off is over.
    pub fn retry(&mut self, uid: &str, now: Instant) {
        if self.unschedulable.contains(uid) {
            self.retry_uid(uid, now);
        }
    }

    /// The request for the pod failed: it is tried again after its back-off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let Some((pod, _)) = self.pods.get_mut(uid) else { return };
        let until = Deadline::from(now, backoff(FAILED_BASE, pod.failures));
        pod.failures = pod.failures.saturating_add(1);
        pod.not_before = until;
        self.put(uid, until.instant().map_or(Position::Unschedulable, Position::Until));
    }

    /// The pod has a node, or was deleted.
    pub fn remove(&mut self, uid: &str) {
        self.detach(uid);
        self.pods.remove(uid);
    }

    /// Tries again those unschedulable pods that `now_fits` picks, each not before its back-off is over.
    pub fn retry_where(&mut self, now: Instant, now_fits: impl Fn(Waiting) -> bool) {
        let waiting = |pod: &QueuedPod| now_fits(Waiting { needs: &pod.needs, rejections: &pod.rejections });
        let fits = |uid: &&String| self.pods.get(*uid).is_some_and(|(pod, _)| waiting(pod));
        let fitting: Vec<String> = self.unschedulable.iter().filter(fits).cloned().collect();
        for uid in fitting {
            self.retry_uid(&uid, now);
        }
    }

    fn retry_uid(&mut self, uid: &str, now: Instant) {
        match self.pods.get(uid).map(|(pod, _)| pod.not_before) {
            Some(Deadline::At(at)) if at > now => self.put(uid, Position::Until(at)),
            _ => self.make_ready(uid),
        }
    }

    /// Whether a pod waits for a change.
    pub fn has_unschedulable(&self) -> bool {
        !self.unschedulable.is_empty()
    }

    /// Readies those whose back-off is over; returns when the next one's is.
    pub fn release_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                return Some(at);
            }
            self.make_ready(&uid);
        }
        None
    }

    fn make_ready(&mut self, uid: &str) {
        let Some((pod, _)) = self.pods.get(uid) else { return };
        let rank = self.rank(pod.needs.priority);
        self.put(uid, Position::Ready(rank));
    }

    fn put(&mut self, uid: &str, to: Position) {
        self.detach(uid);
        let Some((_, position)) = self.pods.get_mut(uid) else { return };
        *position = to;
        match to {
            Position::Ready(rank) => {
                self.ready.insert(rank, uid.to_owned());
            }
            Position::Until(at) => {
                self.timers.insert((at, uid.to_owned()));
            }
            Position::Unschedulable => {
                self.unschedulable.insert(uid.to_owned());
            }
            Position::Binding => {}
        }
    }

    fn detach(&mut self, uid: &str) {
        match self.pods.get(uid).map(|(_, position)| *position) {
            Some(Position::Ready(rank)) => {
                self.ready.remove(&rank);
            }
            Some(Position::Until(at)) => {
                self.timers.remove(&(at, uid.to_owned()));
            }
            Some(Position::Unschedulable) => {
                self.unschedulable.remove(uid);
            }
            Some(Position::Binding) | None => {}
        }
    }

    fn rank(&mut self, priority: i32) -> Rank {
        self.arrivals += 1;
        (Reverse(priority), self.arrivals)
    }
}

fn backoff(base: Duration, failures: u32) -> Duration {
    base.saturating_mul(2u32.saturating_pow(failures)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::rejection::Plugin;

    fn add(queue: &mut SchedulingQueue, uid: &str, priority: i32) {
        let pod = PodInfo {
            nominated: None,
            revision: 0,
            key: Key::new("default", uid),
            uid: uid.into(),
            node: None,
            finished: false,
            pending: true,
            reported: None,
            owner: None,
            needs: Needs { priority, ..Default::default() },
        };
        queue.upsert(pod, Instant::now());
    }

    fn next(queue: &mut SchedulingQueue) -> Option<String> {
        queue.next().map(|pod| pod.uid)
    }

    #[test]
    fn the_highest_priority_comes_first_then_the_first_to_come() {
        let mut queue = SchedulingQueue::default();
        add(&mut queue, "a", 0);
        add(&mut queue, "b", 0);
        add(&mut queue, "urgent", 10);
        let order: Vec<_> = std::iter::from_fn(|| next(&mut queue)).collect();
        assert_eq!(order, ["urgent", "a", "b"]);
    }

    #[test]
    fn the_reason_of_an_unschedulable_pod_is_written_once_and_tried_again_only_when_it_may_fit() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        let later = now + UNSCHEDULABLE_BASE;
        add(&mut queue, "a", 0);
        assert_eq!(next(&mut queue).as_deref(), Some("a"));
        assert!(queue.unschedulable("a", "no room", now));
        add(&mut queue, "a", 0);
        assert_eq!(next(&mut queue), None, "its own status change is no reason");
        queue.retry_where(later, |_| false);
        assert_eq!(next(&mut queue), None);
        queue.retry_where(later, |_| true);
        assert_eq!(next(&mut queue).as_deref(), Some("a"));
        queue.unschedulable("a", "no room", later);
        assert!(!queue.unschedulable("a", "no room", later));
        add(&mut queue, "a", 5);
        assert_eq!(next(&mut queue).as_deref(), Some("a"), "new needs are a reason");
    }

    #[test]
    fn a_pod_waits_for_what_the_filters_of_its_last_attempt_look_at() {
        let mut queue = SchedulingQueue::default();
        let (now, later) = (Instant::now(), Instant::now() + BACKOFF_MAX);
        add(&mut queue, "a", 0);
        for (plugin, other) in
            [(Plugin::NodeResourcesFit, Plugin::InterPodAffinity), (Plugin::InterPodAffinity, Plugin::NodeResourcesFit)]
        {
            assert_eq!(next(&mut queue).as_deref(), Some("a"));
            queue.rejected("a", [plugin].into_iter().collect());
            queue.unschedulable("a", "no room", now);
            queue.retry_where(later, |waiting| waiting.rejections.may_be_by(other));
            assert_eq!(next(&mut queue), None);
            queue.retry_where(later, |waiting| waiting.rejections.may_be_by(plugin));
        }
        assert_eq!(next(&mut queue).as_deref(), Some("a"));
    }

    #[test]
    fn a_pod_that_is_refused_again_and_again_is_tried_less_and_less_often() {
        let mut queue = SchedulingQueue::default();
        let mut now = Instant::now();
        add(&mut queue, "a", 0);
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert_eq!(next(&mut queue).as_deref(), Some("a"));
            queue.unschedulable("a", "no room", now);
            queue.retry_where(now, |_| true);
            assert_eq!(next(&mut queue), None);
            let until = queue.release_due(now).expect("a time");
            waits.push((until - now).as_millis());
            now = until;
            queue.release_due(now);
        }
        assert_eq!(waits[..3], [50, 100, 200]);
        assert_eq!(waits[9], BACKOFF_MAX.as_millis());
    }

    #[test]
    fn a_failed_binding_waits_out_its_back_off() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        add(&mut queue, "a", 0);
        next(&mut queue);
        queue.failed("a", now);
        assert_eq!(queue.release_due(now), Some(now + FAILED_BASE));
        assert_eq!(next(&mut queue), None);
        queue.release_due(now + FAILED_BASE);
        assert_eq!(next(&mut queue).as_deref(), Some("a"));
        queue.remove("a");
        assert!(queue.pods.is_empty() && queue.timers.is_empty() && queue.ready.is_empty());
    }
}
