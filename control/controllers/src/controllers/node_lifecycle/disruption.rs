//! How fast pods of lost nodes may be evicted, by zone. Pure: the clock is an argument.
//!
//! The rules are those of Kubernetes' node lifecycle controller. A zone evicts at a steady rate, more slowly or not at
//! all while most of it is lost; and when every zone is lost altogether, the fault is more likely on this side, and
//! nothing is evicted.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use super::health::{Readiness, readiness};
use crate::engine::{Deadline, Key};

/// Nodes per second whose pods are evicted. Source: `--node-eviction-rate`.
const RATE: f64 = 0.1;
/// The same in a large zone of which too much is lost. Source: `--secondary-node-eviction-rate`.
const SECONDARY_RATE: f64 = 0.01;
/// Share of lost nodes from which on too much is lost. Source: `--unhealthy-zone-threshold`.
const UNHEALTHY_SHARE: f64 = 0.55;
/// So few lost nodes are never too much. Source: `ComputeZoneState`.
const TOLERATED_LOST_NODES: usize = 2;
/// A zone with more nodes than this is large. Source: `--large-cluster-size-threshold`.
const LARGE_ZONE_NODES: usize = 50;
/// Label of nodes that are not counted.
const EXCLUDE: &str = "node.kubernetes.io/exclude-disruption";

/// A failure domain: region and zone, empty where the node names none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ZoneKey {
    /// Label `topology.kubernetes.io/region`.
    pub region: String,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: String,
}

impl ZoneKey {
    /// The zone that a node's labels name.
    pub fn of(node: &Node) -> Self {
        let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned().unwrap_or_default();
        Self { region: label("topology.kubernetes.io/region"), zone: label("topology.kubernetes.io/zone") }
    }
}

/// How much of a zone is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// Most of its nodes are well.
    Normal,
    /// Most of its nodes are lost.
    PartialDisruption,
    /// All of its nodes are lost.
    FullDisruption,
}

/// What may be done with the pods of a lost node now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// They may be evicted now; this uses the token, so the next node waits for another.
    Permitted,
    /// Not yet: ask again then. `Never` means when the zone has changed.
    Wait(Deadline),
    /// Every zone is lost: evictions that have begun are cancelled.
    Cancelled,
}

/// What a change of one node means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    None,
    /// What is permitted for lost nodes changed.
    PaceChanged,
    /// Until now every zone was lost. What was missed meanwhile must not count against the nodes.
    Recovered,
}

/// The nodes by zone, and the pace of each zone's evictions.
#[derive(Default)]
pub struct Disruption {
    nodes: HashMap<Key, (ZoneKey, bool)>,
    zones: HashMap<ZoneKey, Zone>,
}

struct Zone {
    ready: usize,
    lost: usize,
    /// Evictions that may begin now, at most one.
    tokens: f64,
    /// When `tokens` was right.
    at: Instant,
}

impl Zone {
    fn state(&self) -> ZoneState {
        let share = self.lost as f64 / (self.lost + self.ready).max(1) as f64;
        match (self.ready, self.lost) {
            (0, 1..) => ZoneState::FullDisruption,
            (_, lost) if lost > TOLERATED_LOST_NODES && share >= UNHEALTHY_SHARE => ZoneState::PartialDisruption,
            _ => ZoneState::Normal,
        }
    }

    /// Nodes per second.
    fn rate(&self) -> f64 {
        match self.state() {
            ZoneState::Normal | ZoneState::FullDisruption => RATE,
            ZoneState::PartialDisruption if self.ready + self.lost > LARGE_ZONE_NODES => SECONDARY_RATE,
            ZoneState::PartialDisruption => 0.0,
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate()).min(1.0);
        self.at = now;
    }
}

impl Disruption {
    /// Takes over a node's state.
    pub fn observe(&mut self, node: &Node, now: Instant) -> Transition {
        let counted = node.metadata.labels.as_ref().is_none_or(|labels| !labels.contains_key(EXCLUDE));
        let state = counted.then(|| (ZoneKey::of(node), readiness(node) == Readiness::Ready));
        self.replace(&Key::of(node), state, now)
    }

    /// Forgets a node that was deleted.
    pub fn forget(&mut self, node: &Key, now: Instant) -> Transition {
        self.replace(node, None, now)
    }

    /// Asks to evict the pods of a lost node. A permission is for this node and this time alone.
    pub fn request(&mut self, node: &Node, now: Instant) -> Eviction {
        if self.is_all_lost() {
            return Eviction::Cancelled;
        }
        let new = || Zone { ready: 0, lost: 0, tokens: 1.0, at: now };
        let zone = self.zones.entry(ZoneKey::of(node)).or_insert_with(new);
        zone.fill(now);
        if zone.rate() <= 0.0 {
            return Eviction::Wait(Deadline::Never);
        }
        if zone.tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - zone.tokens) / zone.rate());
            // Rounded up, so that the token is there when the caller asks again.
            return Eviction::Wait(Deadline::from(now, wait.saturating_add(Duration::from_millis(1))));
        }
        zone.tokens -= 1.0;
        Eviction::Permitted
    }

    /// Whether there are nodes, and none of them in any zone is ready.
    pub fn is_all_lost(&self) -> bool {
        let mut zones = self.zones.values().filter(|zone| zone.ready + zone.lost > 0).peekable();
        zones.peek().is_some() && zones.all(|zone| zone.state() == ZoneState::FullDisruption)
    }

    fn replace(&mut self, node: &Key, state: Option<(ZoneKey, bool)>, now: Instant) -> Transition {
        if self.nodes.get(node) == state.as_ref() {
            return Transition::None;
        }
        let was_all_lost = self.is_all_lost();
        let before = self.nodes.remove(node);
        let concerned: Vec<ZoneKey> = [&before, &state].into_iter().flatten().map(|(zone, _)| zone.clone()).collect();
        let rates: Vec<f64> = concerned.iter().map(|zone| self.zone(zone, now).rate()).collect();
        if let Some((zone, ready)) = before {
            let zone = self.zone(&zone, now);
            let count = if ready { &mut zone.ready } else { &mut zone.lost };
            *count = count.saturating_sub(1);
        }
        if let Some((zone, ready)) = state {
            let counts = self.zone(&zone, now);
            *(if ready { &mut counts.ready } else { &mut counts.lost }) += 1;
            self.nodes.insert(node.clone(), (zone, ready));
        }
        let same_pace = concerned.iter().zip(rates).all(|(zone, rate)| self.zone(zone, now).rate() == rate);
        self.zones.retain(|_, zone| zone.ready + zone.lost > 0);
        match (was_all_lost, self.is_all_lost()) {
            (true, false) => Transition::Recovered,
            (false, false) if same_pace => Transition::None,
            (true, true) => Transition::None,
            _ => Transition::PaceChanged,
        }
    }

    /// The zone, with the tokens added for the time since its last update.
    fn zone(&mut self, zone: &ZoneKey, now: Instant) -> &mut Zone {
        let zone = self.zones.entry(zone.clone()).or_insert(Zone { ready: 0, lost: 0, tokens: 1.0, at: now });
        zone.fill(now);
        zone
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str, ready: bool) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "Unknown" }}]}}))
        .expect("a valid node")
    }

    /// `count` nodes of a zone, of which the first `lost` are lost.
    fn fill(disruption: &mut Disruption, zone: &str, count: usize, lost: usize, now: Instant) {
        for n in 0..count {
            disruption.observe(&node(&format!("{zone}{n}"), zone, n >= lost), now);
        }
    }

    /// How many of the zone's `lost` nodes are evicted within `time`, asking at each time that was answered.
    fn evicted(disruption: &mut Disruption, zone: &str, lost: usize, time: Duration, start: Instant) -> usize {
        let (mut now, mut evicted) = (start, 0);
        while evicted < lost {
            match disruption.request(&node(&format!("{zone}{evicted}"), zone, false), now) {
                Eviction::Permitted => evicted += 1,
                Eviction::Wait(Deadline::At(at)) if at <= start + time => now = at,
                Eviction::Wait(_) | Eviction::Cancelled => break,
            }
        }
        evicted
    }

    #[test]
    fn half_a_cluster_is_evicted_one_node_in_ten_seconds() {
        let (mut disruption, now) = (Disruption::default(), Instant::now());
        fill(&mut disruption, "a", 20, 10, now);
        assert_eq!(evicted(&mut disruption, "a", 10, Duration::from_secs(35), now), 4);
    }

    #[test]
    fn a_small_zone_that_is_mostly_lost_is_not_evicted_at_all_and_a_large_one_slowly() {
        let (mut disruption, now) = (Disruption::default(), Instant::now());
        fill(&mut disruption, "small", 10, 6, now);
        fill(&mut disruption, "large", 100, 60, now);
        let hour = Duration::from_secs(3600);
        // One may have begun when less was lost.
        assert!(evicted(&mut disruption, "small", 6, hour, now) == 0);
        assert_eq!(evicted(&mut disruption, "large", 60, Duration::from_secs(350), now), 4);
        // Two of three are few.
        fill(&mut disruption, "tiny", 3, 2, now);
        assert_eq!(evicted(&mut disruption, "tiny", 2, hour, now), 2);
    }

    #[test]
    fn a_lost_zone_is_evicted_while_another_lives() {
        let (mut disruption, now) = (Disruption::default(), Instant::now());
        fill(&mut disruption, "a", 3, 3, now);
        fill(&mut disruption, "b", 3, 0, now);
        assert_eq!(evicted(&mut disruption, "a", 3, Duration::from_secs(60), now), 3);
    }

    #[test]
    fn nothing_is_evicted_while_every_zone_is_lost_and_the_end_of_that_is_noticed() {
        let (mut disruption, now) = (Disruption::default(), Instant::now());
        assert!(!disruption.is_all_lost(), "no nodes at all are not lost ones");
        fill(&mut disruption, "a", 2, 2, now);
        fill(&mut disruption, "b", 2, 1, now);
        assert_eq!(disruption.request(&node("a0", "a", false), now), Eviction::Permitted);
        assert_eq!(disruption.observe(&node("b1", "b", false), now), Transition::PaceChanged);
        assert_eq!(disruption.request(&node("a1", "a", false), now), Eviction::Cancelled);
        assert_eq!(disruption.observe(&node("b1", "b", true), now), Transition::Recovered);
        disruption.observe(&node("b1", "b", false), now);
        assert_eq!(disruption.observe(&node("new", "c", true), now), Transition::Recovered);
    }

    #[test]
    fn nodes_that_are_deleted_or_excluded_do_not_count() {
        let (mut disruption, now) = (Disruption::default(), Instant::now());
        fill(&mut disruption, "a", 10, 6, now);
        assert_eq!(disruption.request(&node("a0", "a", false), now), Eviction::Wait(Deadline::Never));
        assert_eq!(disruption.forget(&Key::cluster("a0"), now), Transition::None, "five of nine are still too many");
        let mut excluded = node("a1", "a", false);
        excluded.metadata.labels.get_or_insert_default().insert(EXCLUDE.into(), String::new());
        assert_eq!(disruption.observe(&excluded, now), Transition::PaceChanged);
        assert_eq!(disruption.zones[&ZoneKey::of(&excluded)].lost, 4);
    }
}
