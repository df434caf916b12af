//! For how long each node has been silent, as far as the nodes could have been heard. Pure: the clock is an argument.
//!
//! While the store refuses writes or stalls, no heartbeat arrives, from whatever node: that time says nothing about the
//! nodes. So silence counts only while heartbeats of some node arrive; where no node sends any, the controller writes
//! one of its own.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::engine::Key;

/// The controller writes no more often than this, however short the grace is.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// When the heartbeats of nodes arrived.
pub struct Heartbeats {
    /// When the last heartbeat of each node arrived, moved forward by the time that does not count.
    heard: HashMap<Key, Instant>,
    /// When the last heartbeat of any node, or of the controller, arrived.
    last: Instant,
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
        Self { heard: HashMap::new(), last: now, grace }
    }

    /// A heartbeat was written and seen: of `node`, or of the controller.
    pub fn arrived(&mut self, node: Option<&Key>, now: Instant) {
        let gap = now.saturating_duration_since(self.last);
        if gap > self.longest_gap() {
            for heard in self.heard.values_mut() {
                *heard = heard.checked_add(gap).map_or(now, |moved| moved.min(now));
            }
        }
        self.last = now;
        if let Some(node) = node {
            self.heard.insert(node.clone(), now);
        }
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

    /// A longer time without any heartbeat does not count: 25 s of 40 s. What counts at most, and what a node takes to
    /// send its next heartbeat, are within its grace.
    fn longest_gap(&self) -> Duration {
        self.grace.saturating_mul(5).checked_div(8).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
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
        heartbeats.arrived(Some(&key("a")), start);
        for second in (10..=40).step_by(10) {
            heartbeats.arrived(Some(&key("b")), after(start, second));
        }
        assert_eq!(heartbeats.silence(&key("a"), after(start, 39)), Silence::Left(Duration::from_secs(1)));
        assert_eq!(heartbeats.silence(&key("a"), after(start, 40)), Silence::Lost);
    }

    #[test]
    fn the_only_node_is_lost_in_the_same_time_by_the_heartbeats_of_the_controller() {
        let start = Instant::now();
        let mut heartbeats = Heartbeats::new(GRACE, start);
        heartbeats.arrived(Some(&key("a")), start);
        let mut now = start;
        while now < after(start, 40) {
            now += heartbeats.until_own(now).expect("a heartbeat has just arrived");
            assert_eq!(heartbeats.until_own(now), None);
            heartbeats.arrived(None, now);
        }
        assert_eq!(heartbeats.silence(&key("a"), now), Silence::Lost);
    }

    #[test]
    fn no_node_is_lost_because_nothing_could_be_written_for_a_while() {
        for outage in [30, 39, 41, 600] {
            let start = Instant::now();
            let mut heartbeats = Heartbeats::new(GRACE, start);
            heartbeats.arrived(Some(&key("a")), start);
            heartbeats.arrived(Some(&key("b")), after(start, 9));
            let end = after(start, 9 + outage);
            if outage >= 40 {
                let asked = heartbeats.silence(&key("a"), after(start, 40));
                assert_eq!(asked, Silence::NothingArrives(Duration::from_secs(15)));
            }
            heartbeats.arrived(Some(&key("b")), end);
            // It has what it had left when the outage began.
            let left = Duration::from_secs(31);
            assert_eq!(heartbeats.silence(&key("a"), end), Silence::Left(left), "{outage} s");
            for second in [10, 20, 30] {
                heartbeats.arrived(Some(&key("b")), end + Duration::from_secs(second));
            }
            assert_eq!(heartbeats.silence(&key("a"), end + left), Silence::Lost, "dead all the same");
        }
    }
}
