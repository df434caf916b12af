//! Pods that wait for a node: those to be tried, those that nothing can take for now, and those that wait out a failed request.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::pod::Needs;
use crate::controllers::engine::Key;

/// First delay after a failed binding, and the longest. Source: kube-scheduler's `podInitialBackoffSeconds`.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A pod without a node.
#[derive(Clone, Debug)]
pub struct WaitingPod {
    pub key: Key,
    pub uid: String,
    pub needs: Arc<Needs>,
    /// What the pod was last told of why it waits.
    pub told: Option<String>,
    failures: u32,
}

/// Where a pod waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready(Rank),
    Unschedulable,
    Until(Instant),
    /// Its binding is under way.
    Binding,
}

/// Higher priority first, then first come.
type Rank = (Reverse<i32>, u64);

#[derive(Default)]
pub struct Waiting {
    pods: HashMap<String, (WaitingPod, Place)>,
    ready: BTreeMap<Rank, String>,
    timers: BTreeSet<(Instant, String)>,
    unschedulable: BTreeSet<String>,
    arrivals: u64,
}

impl Waiting {
    /// Takes over a pending pod. One that is known is tried again only if its needs changed.
    pub fn seen(&mut self, key: Key, uid: String, needs: Needs, told: Option<String>) {
        if let Some((pod, place)) = self.pods.get_mut(&uid) {
            pod.told = told;
            if *pod.needs == needs || *place == Place::Binding {
                return;
            }
            pod.needs = Arc::new(needs);
            self.retry(&uid);
            return;
        }
        let rank = self.rank(needs.priority);
        let pod = WaitingPod { key, uid: uid.clone(), needs: Arc::new(needs), told, failures: 0 };
        self.ready.insert(rank, uid.clone());
        self.pods.insert(uid, (pod, Place::Ready(rank)));
    }

    /// The next pod to be tried. It stays on record as binding until [`Self::gone`], [`Self::unschedulable`] or [`Self::failed`].
    pub fn next(&mut self) -> Option<WaitingPod> {
        let (_, uid) = self.ready.pop_first()?;
        let (pod, place) = self.pods.get_mut(&uid)?;
        *place = Place::Binding;
        Some(pod.clone())
    }

    pub fn has(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Nothing can take the pod now: it waits for a change. Returns whether it must be told, that is, whether the message is new.
    pub fn unschedulable(&mut self, uid: &str, message: &str) -> bool {
        self.put(uid, Place::Unschedulable);
        let Some((pod, _)) = self.pods.get_mut(uid) else { return false };
        if pod.told.as_deref() == Some(message) {
            return false;
        }
        pod.told = Some(message.to_owned());
        true
    }

    /// The request for the pod failed: it is tried again after its back-off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let Some((pod, _)) = self.pods.get_mut(uid) else { return };
        let delay = BACKOFF_BASE.saturating_mul(2u32.saturating_pow(pod.failures)).min(BACKOFF_MAX);
        pod.failures += 1;
        self.put(uid, Place::Until(now + delay));
    }

    /// The pod has a node, or is no more.
    pub fn gone(&mut self, uid: &str) {
        self.leave(uid);
        self.pods.remove(uid);
    }

    /// Tries again those unschedulable pods that `now_fits` picks.
    pub fn retry_where(&mut self, now_fits: impl Fn(&Needs) -> bool) {
        let fits = |uid: &&String| self.pods.get(*uid).is_some_and(|(pod, _)| now_fits(&pod.needs));
        let fitting: Vec<String> = self.unschedulable.iter().filter(fits).cloned().collect();
        fitting.iter().for_each(|uid| self.retry(uid));
    }

    pub fn has_unschedulable(&self) -> bool {
        !self.unschedulable.is_empty()
    }

    /// Moves those whose time has come; returns when the next one's comes.
    pub fn fire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                return Some(at);
            }
            self.retry(&uid);
        }
        None
    }

    pub fn retain(&mut self, listed: &BTreeSet<String>) {
        let gone: Vec<String> = self.pods.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.gone(uid));
    }

    fn retry(&mut self, uid: &str) {
        let Some((pod, _)) = self.pods.get(uid) else { return };
        let rank = self.rank(pod.needs.priority);
        self.put(uid, Place::Ready(rank));
    }

    fn put(&mut self, uid: &str, to: Place) {
        self.leave(uid);
        let Some((_, place)) = self.pods.get_mut(uid) else { return };
        *place = to;
        match to {
            Place::Ready(rank) => {
                self.ready.insert(rank, uid.to_owned());
            }
            Place::Until(at) => {
                self.timers.insert((at, uid.to_owned()));
            }
            Place::Unschedulable => {
                self.unschedulable.insert(uid.to_owned());
            }
            Place::Binding => {}
        }
    }

    fn leave(&mut self, uid: &str) {
        match self.pods.get(uid).map(|(_, place)| *place) {
            Some(Place::Ready(rank)) => {
                self.ready.remove(&rank);
            }
            Some(Place::Until(at)) => {
                self.timers.remove(&(at, uid.to_owned()));
            }
            Some(Place::Unschedulable) => {
                self.unschedulable.remove(uid);
            }
            Some(Place::Binding) | None => {}
        }
    }

    fn rank(&mut self, priority: i32) -> Rank {
        self.arrivals += 1;
        (Reverse(priority), self.arrivals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(waiting: &mut Waiting, uid: &str, priority: i32) {
        waiting.seen(Key::new("default", uid), uid.into(), Needs { priority, ..Default::default() }, None);
    }

    fn next(waiting: &mut Waiting) -> Option<String> {
        waiting.next().map(|pod| pod.uid)
    }

    #[test]
    fn the_most_important_goes_first_then_the_first_to_come() {
        let mut waiting = Waiting::default();
        add(&mut waiting, "a", 0);
        add(&mut waiting, "b", 0);
        add(&mut waiting, "urgent", 10);
        let order: Vec<_> = std::iter::from_fn(|| next(&mut waiting)).collect();
        assert_eq!(order, ["urgent", "a", "b"]);
    }

    #[test]
    fn an_unschedulable_pod_is_told_once_and_tried_again_only_when_it_may_fit() {
        let mut waiting = Waiting::default();
        add(&mut waiting, "a", 0);
        assert_eq!(next(&mut waiting).as_deref(), Some("a"));
        assert!(waiting.unschedulable("a", "no room"));
        add(&mut waiting, "a", 0);
        assert_eq!(next(&mut waiting), None, "its own status change is no reason");
        waiting.retry_where(|_| false);
        assert_eq!(next(&mut waiting), None);
        waiting.retry_where(|_| true);
        assert_eq!(next(&mut waiting).as_deref(), Some("a"));
        waiting.unschedulable("a", "no room");
        assert!(!waiting.unschedulable("a", "no room"));
        add(&mut waiting, "a", 5);
        assert_eq!(next(&mut waiting).as_deref(), Some("a"), "new needs are a reason");
    }

    #[test]
    fn a_failed_binding_waits_out_its_back_off() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        add(&mut waiting, "a", 0);
        next(&mut waiting);
        waiting.failed("a", now);
        assert_eq!(waiting.fire(now), Some(now + BACKOFF_BASE));
        assert_eq!(next(&mut waiting), None);
        waiting.fire(now + BACKOFF_BASE);
        assert_eq!(next(&mut waiting).as_deref(), Some("a"));
        waiting.gone("a");
        assert!(waiting.pods.is_empty() && waiting.timers.is_empty() && waiting.ready.is_empty());
    }
}
