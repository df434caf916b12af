//! For how long each node has been silent, as far as the nodes could have been heard. Pure: the clock is an argument.
//!
//! While the store refuses writes or stalls, no heartbeat arrives, from whatever node: that time says nothing about the
//! nodes. So silence counts only while Leases of some node are renewed; where no node renews one, the controller renews
//! one of its own.
//!
//! The signer of nodes' certificates asks here, too, before it gives a silent node's name to another host: see
//! [`Heartbeats::until_certain`].

use std::{collections::HashMap, time::Duration};

use fairlead_client::node_silence::RENEW_EVERY;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use tokio::time::Instant;

use super::health::condition;
use crate::engine::Key;

/// The controller writes no more often than this, however short the grace is.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// A node has missed so many heartbeats before it is certain that it is silent.
const MISSED_AT_LEAST: u32 = 3;

/// When the heartbeats of nodes arrived.
pub struct Heartbeats {
    /// When the last heartbeat of each node arrived, moved forward by the time that does not count.
    heard: HashMap<Key, Instant>,
    /// When the last Lease of any node, or of the controller, was renewed.
    last: Instant,
    /// Since when they came without a gap.
    unbroken_since: Instant,
    /// How long a node may be silent.
    grace: Duration,
}

/// What the silence of a node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The node has this long to send its next heartbeat.
    Left(Duration),
    /// It has been silent for too long.
    Lost,
    /// It would be lost, but no heartbeat arrives at all: ask again after this long.
    NothingArrives(Duration),
}

impl Heartbeats {
    /// Nodes are lost that are silent for `grace`.
    pub fn new(grace: Duration, now: Instant) -> Self {
        Self { heard: HashMap::new(), last: now, unbroken_since: now, grace }
    }

    /// A Lease was renewed: that of `node`, or of the controller.
    pub fn renewed(&mut self, node: Option<&Key>, now: Instant) {
        let gap = now.saturating_duration_since(self.last);
        if gap > self.longest_gap() {
            for heard in self.heard.values_mut() {
                *heard = heard.checked_add(gap).map_or(now, |moved| moved.min(now));
            }
        }
        if gap > self.longest_certain_gap() {
            self.unbroken_since = now;
        }
        self.last = now;
        if let Some(node) = node {
            self.heard.insert(node.clone(), now);
        }
    }

    /// The status of `node` shows that it lives. That says nothing about the Leases of others, which may be refused all
    /// the same.
    pub fn reported(&mut self, node: &Key, now: Instant) {
        self.heard.insert(node.clone(), now);
    }

    /// Every node has the whole time again.
    pub fn restart(&mut self, now: Instant) {
        self.heard.values_mut().for_each(|heard| *heard = now);
    }

    /// Forgets a node that was deleted.
    pub fn forget(&mut self, node: &Key) {
        self.heard.remove(node);
    }

    /// What the silence of `node` says now. One that was never heard is heard now.
    pub fn silence(&mut self, node: &Key, now: Instant) -> Silence {
        let silent = now.saturating_duration_since(*self.heard.entry(node.clone()).or_insert(now));
        match self.grace.checked_sub(silent).filter(|left| !left.is_zero()) {
            Some(left) => Silence::Left(left),
            None if now.saturating_duration_since(self.last) > self.longest_gap() => {
                Silence::NothingArrives(self.own_interval())
            }
            None => Silence::Lost,
        }
    }

    /// How long until it is certain that the agent of `node` is silent, should nothing come from it; `None` once it is.
    ///
    /// More than [`Silence::Lost`] wants: other heartbeats must have come without a gap for the node's whole time, and
    /// when it was over, so that no pause of this process or of the store proves anything. However short the grace is,
    /// the node has missed some. The time begins with this process, or when the node was heard last.
    pub fn until_certain(&mut self, node: &Key, now: Instant) -> Option<Duration> {
        let heard = *self.heard.entry(node.clone()).or_insert(now);
        let since = heard.max(self.unbroken_since);
        let needed = self.grace.max(RENEW_EVERY.saturating_mul(MISSED_AT_LEAST));
        if self.last.saturating_duration_since(since) >= needed {
            return None;
        }
        let left = needed.saturating_sub(now.saturating_duration_since(since));
        // Over, but for the evidence, which comes with the controller's own heartbeat at the latest.
        Some(if left.is_zero() { self.until_own(now).unwrap_or(SHORTEST_INTERVAL) } else { left })
    }

    /// When the controller has to write a heartbeat of its own, should none arrive before; `None` is now.
    pub fn until_own(&self, now: Instant) -> Option<Duration> {
        let quiet = now.saturating_duration_since(self.last);
        self.own_interval().checked_sub(quiet).filter(|left| !left.is_zero())
    }

    /// After this long without any heartbeat the controller writes one: 15 s of 40 s, more than the 10 s between those
    /// of an only node.
    pub fn own_interval(&self) -> Duration {
        self.grace.saturating_mul(3).checked_div(8).unwrap_or_default().max(SHORTEST_INTERVAL)
    }

    /// After a longer time without any heartbeat nothing is certain: 20 s of 40 s, where the controller's own comes
    /// after 15 s.
    fn longest_certain_gap(&self) -> Duration {
        self.own_interval().saturating_mul(4).checked_div(3).unwrap_or_default()
    }

    /// A longer time without any heartbeat does not count: 25 s of 40 s. What counts at most, and what a node takes to
    /// send its next heartbeat, are within its grace.
    fn longest_gap(&self) -> Duration {
        self.grace.saturating_mul(5).checked_div(8).unwrap_or_default()
    }
}

/// Whether the change of a Node shows that the node lives: it is new, or its Ready condition comes, goes, or has
/// another heartbeat. Source: Kubernetes' `tryUpdateNodeHealth`.
pub fn shows_life(old: Option<&Node>, new: &Node) -> bool {
    let Some(old) = old else { return true };
    match (condition(old, "Ready"), condition(new, "Ready")) {
        (None, None) => false,
        // Unknown is what this controller writes of a node that never reported.
        (None, Some(ready)) => ready.status != "Unknown",
        (Some(_), None) => true,
        (Some(old), Some(new)) => old.last_heartbeat_time != new.last_heartbeat_time,
    }
}

/// Whether the change of a Lease is its renewal: other changes say nothing of its holder.
///
/// Kubernetes takes only a later time for one. Here any other time is: the clock of a node may be set back, and the
/// node renews its Lease all the same.
pub fn is_renewal(old: Option<&Lease>, new: &Lease) -> bool {
    let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
    old.is_none_or(|old| renewed(old) != renewed(new))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    fn key(name: &str) -> Key {
        Key::cluster(name)
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_lost_after_its_grace_while_others_are_heard() {
        let start = Instant::now();
        let mut heartbeats = Heartbeats::new(GRACE, start);
        heartbeats.renewed(Some(&key("a")), start);
        for second in (10..=40).step_by(10) {
            heartbeats.renewed(Some(&key("b")), after(start, second));
        }
        assert_eq!(heartbeats.silence(&key("a"), after(start, 39)), Silence::Left(Duration::from_secs(1)));
        assert_eq!(heartbeats.silence(&key("a"), after(start, 40)), Silence::Lost);
    }

    #[test]
    fn the_only_node_is_lost_in_the_same_time_by_the_heartbeats_of_the_controller() {
        let start = Instant::now();
        let mut heartbeats = Heartbeats::new(GRACE, start);
        heartbeats.renewed(Some(&key("a")), start);
        let mut now = start;
        while now < after(start, 40) {
            now += heartbeats.until_own(now).expect("a heartbeat has just arrived");
            assert_eq!(heartbeats.until_own(now), None);
            heartbeats.renewed(None, now);
        }
        assert_eq!(heartbeats.silence(&key("a"), now), Silence::Lost);
    }

    #[test]
    fn no_node_is_lost_because_nothing_could_be_written_for_a_while() {
        for outage in [30, 39, 41, 600] {
            let start = Instant::now();
            let mut heartbeats = Heartbeats::new(GRACE, start);
            heartbeats.renewed(Some(&key("a")), start);
            heartbeats.renewed(Some(&key("b")), after(start, 9));
            let end = after(start, 9 + outage);
            if outage >= 40 {
                let asked = heartbeats.silence(&key("a"), after(start, 40));
                assert_eq!(asked, Silence::NothingArrives(Duration::from_secs(15)));
            }
            heartbeats.renewed(Some(&key("b")), end);
            // It has what it had left when the outage began.
            let left = Duration::from_secs(31);
            assert_eq!(heartbeats.silence(&key("a"), end), Silence::Left(left), "{outage} s");
            for second in [10, 20, 30] {
                heartbeats.renewed(Some(&key("b")), end + Duration::from_secs(second));
            }
            assert_eq!(heartbeats.silence(&key("a"), end + left), Silence::Lost, "dead all the same");
        }
    }

    #[test]
    fn the_status_of_one_node_does_not_show_that_leases_can_be_written() {
        let start = Instant::now();
        let mut heartbeats = Heartbeats::new(GRACE, start);
        heartbeats.renewed(Some(&key("a")), start);
        for second in (10..=40).step_by(10) {
            heartbeats.reported(&key("b"), after(start, second));
        }
        let now = after(start, 40);
        assert_eq!(heartbeats.silence(&key("a"), now), Silence::NothingArrives(Duration::from_secs(15)));
        assert_eq!(heartbeats.silence(&key("b"), now), Silence::Left(GRACE));
        assert_eq!(heartbeats.until_own(now), None, "the controller tries with a Lease of its own");
    }

    /// How long until "a" is certainly silent, which was heard at the start, when heartbeats of "b" came at `seconds`.
    fn until_certain(grace: Duration, seconds: &[u64], now: u64) -> Option<u64> {
        let start = Instant::now();
        let mut heartbeats = Heartbeats::new(grace, start);
        heartbeats.renewed(Some(&key("a")), start);
        for second in seconds {
            heartbeats.renewed(Some(&key("b")), after(start, *second));
        }
        heartbeats.until_certain(&key("a"), after(start, now)).map(|left| left.as_secs())
    }

    #[test]
    fn a_node_is_certainly_silent_once_others_were_heard_after_its_whole_time() {
        assert_eq!(until_certain(GRACE, &[10, 20, 30], 35), Some(5));
        assert_eq!(until_certain(GRACE, &[10, 20, 30, 39], 41), Some(13), "nothing was heard since");
        assert_eq!(until_certain(GRACE, &[10, 20, 30, 40], 40), None);
        assert_eq!(until_certain(GRACE, &[10, 30], 1000), Some(0), "this process was paused: ask again soon");
        assert_eq!(until_certain(GRACE, &[10, 1000], 1000), Some(40), "and the time begins anew");
        assert_eq!(until_certain(GRACE, &[9, 33, 41], 41), Some(32), "nobody was heard for 24 s");
    }

    #[test]
    fn a_node_is_certainly_silent_after_missed_heartbeats_however_short_the_grace_is() {
        let grace = Duration::from_secs(4);
        let beats: Vec<u64> = (1..=30).collect();
        assert_eq!(until_certain(grace, &beats[..5], 5), Some(25));
        assert_eq!(until_certain(grace, &beats, 30), None);
    }

    #[test]
    fn the_only_node_is_certainly_silent_by_the_heartbeats_of_the_controller() {
        let start = Instant::now();
        let mut heartbeats = Heartbeats::new(GRACE, start);
        heartbeats.renewed(Some(&key("a")), start);
        let mut now = start;
        while let Some(left) = heartbeats.until_certain(&key("a"), now) {
            assert!(left <= GRACE && now < after(start, 60), "{left:?}");
            now += heartbeats.until_own(now).expect("a heartbeat has just arrived");
            heartbeats.renewed(None, now);
        }
        assert_eq!(now, after(start, 45));
    }

    #[test]
    fn a_node_shows_that_it_lives_by_the_heartbeat_of_its_ready_condition_alone() {
        let node = |labels: Value, conditions: Value| -> Node {
            let node = json!({"metadata": {"name": "n", "labels": labels}, "status": {"conditions": conditions}});
            serde_json::from_value(node).expect("a valid node")
        };
        let ready = |status: &str, second: u8| json!([{"type": "Ready", "status": status, "lastHeartbeatTime": format!("2026-01-01T00:00:{second:02}Z")}]);
        let (new, reported) = (node(json!({}), json!([])), node(json!({}), ready("True", 1)));
        assert!(shows_life(None, &new) && shows_life(None, &reported) && shows_life(Some(&new), &reported));
        assert!(shows_life(Some(&reported), &node(json!({}), ready("True", 2))));
        assert!(shows_life(Some(&reported), &new));
        assert!(!shows_life(Some(&reported), &node(json!({"zone": "a"}), ready("True", 1))), "it was labelled");
        assert!(!shows_life(Some(&reported), &node(json!({}), ready("Unknown", 1))), "the controller wrote it");
        assert!(!shows_life(Some(&new), &node(json!({}), ready("Unknown", 0))), "and so it did here");
    }

    #[test]
    fn a_lease_shows_that_its_holder_lives_when_it_is_renewed() {
        let lease = |label: &str, second: u8| -> Lease {
            let lease = json!({"metadata": {"name": "n", "labels": {"l": label}},
                "spec": {"renewTime": format!("2026-01-01T00:00:{second:02}.000000Z")}});
            serde_json::from_value(lease).expect("a valid lease")
        };
        let one = lease("a", 5);
        assert!(is_renewal(None, &one) && is_renewal(Some(&one), &lease("a", 6)));
        assert!(is_renewal(Some(&one), &lease("a", 4)), "its clock was set back");
        assert!(!is_renewal(Some(&one), &lease("b", 5)), "somebody labelled it");
    }
}
