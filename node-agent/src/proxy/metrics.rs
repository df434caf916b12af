//! How long the datapath's work takes, under kube-proxy's names.

use std::time::Duration;

use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use prometheus_client::{
    metrics::{
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::world::{EndpointSlice, World};

/// Durations of syncs and of whole changes. Cloning shares them.
#[derive(Clone, Debug)]
pub struct ProxyMetrics {
    sync_duration: Histogram,
    programming_duration: Histogram,
    last_sync: Gauge,
}

impl Default for ProxyMetrics {
    fn default() -> Self {
        Self {
            sync_duration: Histogram::new(exponential_buckets(0.0001, 2.0, 18)),
            programming_duration: Histogram::new(exponential_buckets(0.001, 2.0, 20)),
            last_sync: Gauge::default(),
        }
    }
}

impl ProxyMetrics {
    /// Adds the metrics to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Time to bring the datapath to a new table",
            self.sync_duration.clone(),
        );
        registry.register(
            "kubeproxy_network_programming_duration_seconds",
            "Time from the change of a pod or Service until the datapath serves it",
            self.programming_duration.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When the datapath was last brought to a table, in seconds since 1970",
            self.last_sync.clone(),
        );
    }

    /// A sync has taken `duration`.
    pub(super) fn synced(&self, duration: Duration) {
        self.sync_duration.observe(duration.as_secs_f64());
        self.last_sync.set(Timestamp::now().as_second());
    }

    /// All of `new` is served at `now`, where `old` was before. The first World is no change.
    pub(super) fn programmed(&self, old: &World, new: &World, now: Timestamp) {
        for duration in programming_durations(old, new, now) {
            self.programming_duration.observe(duration);
        }
    }
}

/// Seconds from each change that a slice's controller dated until `now`.
fn programming_durations(old: &World, new: &World, now: Timestamp) -> Vec<f64> {
    if !old.synced {
        return Vec::new();
    }
    let mut durations = Vec::new();
    for change in old.slices.diff(&new.slices) {
        let (before, after) = match change {
            DiffItem::Add(_, slices) => (None, slices),
            DiffItem::Update { old: (_, before), new: (_, after) } => (Some(before), after),
            DiffItem::Remove(..) => continue,
        };
        for (name, slice) in after {
            let earlier: Option<&EndpointSlice> = before.and_then(|slices| slices.get(name)).map(|slice| &**slice);
            let triggered_at =
                slice.triggered_at.filter(|at| earlier.is_none_or(|earlier| earlier.triggered_at != Some(*at)));
            durations.extend(triggered_at.map(|at| now.duration_since(at).as_secs_f64().max(0.0)));
        }
    }
    durations
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::ObjectName;

    fn world(triggered_at: &str) -> World {
        let service = ObjectName::new("default", "web");
        let slice = EndpointSlice {
            name: "web-1".into(),
            service: service.clone(),
            ports: Vec::new(),
            endpoints: Vec::new(),
            triggered_at: Some(triggered_at.parse().unwrap()),
            revision: 1,
        };
        let slices = imbl::OrdMap::unit("web-1".into(), Arc::new(slice));
        World { slices: imbl::OrdMap::unit(service, slices), synced: true, ..World::default() }
    }

    #[test]
    fn a_change_is_timed_once_from_its_trigger_and_the_first_world_is_none() {
        let (first, second) = (world("2026-01-01T00:00:00Z"), world("2026-01-01T00:00:10Z"));
        let now = "2026-01-01T00:00:12Z".parse().unwrap();
        assert!(programming_durations(&World::default(), &first, now).is_empty());
        assert_eq!(programming_durations(&first, &second, now), [2.0]);
        assert!(programming_durations(&second, &second.clone(), now).is_empty());
    }
}
