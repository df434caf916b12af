//! Whether a node still reports, by its Node and its Lease as they are stored: once it does not, another host may take
//! its place. Pure: the clock is an argument.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    jiff::Timestamp,
};

/// The heartbeats of all nodes at one moment.
pub struct StoredHeartbeats<'a> {
    /// The Lease of a node, by the node's name.
    pub lease: &'a dyn Fn(&str) -> Option<Arc<Lease>>,
    /// A node may be silent for so long.
    pub grace: Duration,
    /// Since when this service listens: while it was away, nobody could renew a Lease.
    pub listening_since: Timestamp,
    /// The present.
    pub now: Timestamp,
}

impl StoredHeartbeats<'_> {
    /// Whether the agent of `node` reports.
    ///
    /// The condition alone does not do: the node lifecycle controller gives every node its whole grace at each start of
    /// the control service, and `fairlead up` ends with its node before that is over.
    pub fn is_heard_of(&self, node: &Node) -> bool {
        let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_known = conditions.any(|condition| condition.type_ == "Ready" && condition.status != "Unknown");
        is_known && !self.is_lease_old(node.metadata.name.as_deref().unwrap_or_default())
    }

    /// Not so of a node without a Lease, of which the condition says all that there is.
    fn is_lease_old(&self, node: &str) -> bool {
        let Some(renewed) = (self.lease)(node).and_then(|lease| last_renewal(&lease)) else { return false };
        let could_renew = self.age(self.listening_since) >= self.grace.checked_div(2).unwrap_or_default();
        could_renew && self.age(renewed) > self.grace
    }

    /// Zero of what is yet to come.
    fn age(&self, moment: Timestamp) -> Duration {
        Duration::try_from(self.now.duration_since(moment)).unwrap_or_default()
    }
}

/// When the Lease was written last: by its node's clock, or by that of the control service, whichever is later. A node
/// whose clock is behind is not silent for that.
fn last_renewal(lease: &Lease) -> Option<Timestamp> {
    let told = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
    let written = lease.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
    told.into_iter().chain(written.map(|time| time.0)).max()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn is_heard_of(ready: &str, lease: Option<Value>, listening_since: &str) -> bool {
        let node = json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let node: Node = serde_json::from_value(node).unwrap();
        let lease = lease.map(|lease| Arc::new(serde_json::from_value::<Lease>(lease).unwrap()));
        let heartbeats = StoredHeartbeats {
            lease: &|name| lease.clone().filter(|_| name == "n1"),
            grace: Duration::from_secs(40),
            listening_since: listening_since.parse().unwrap(),
            now: "2030-01-01T01:00:00Z".parse().unwrap(),
        };
        heartbeats.is_heard_of(&node)
    }

    fn renewed(at: &str) -> Option<Value> {
        Some(json!({"spec": {"renewTime": at}}))
    }

    const LONG: &str = "2030-01-01T00:00:00Z";

    #[test]
    fn a_node_whose_lease_is_old_is_silent_though_its_condition_still_says_ready() {
        assert!(is_heard_of("True", renewed("2030-01-01T00:59:30.000000Z"), LONG));
        assert!(!is_heard_of("True", renewed("2030-01-01T00:59:00.000000Z"), LONG));
        assert!(!is_heard_of("False", renewed("2030-01-01T00:59:00.000000Z"), LONG));
        assert!(!is_heard_of("Unknown", renewed("2030-01-01T00:59:59.000000Z"), LONG));
        assert!(is_heard_of("True", None, LONG) && !is_heard_of("Unknown", None, LONG));
    }

    #[test]
    fn nodes_have_time_to_renew_their_leases_after_the_service_was_away() {
        let old = || renewed("2030-01-01T00:10:00.000000Z");
        assert!(is_heard_of("True", old(), "2030-01-01T00:59:50Z"));
        assert!(!is_heard_of("True", old(), "2030-01-01T00:59:40Z"));
    }

    #[test]
    fn a_node_whose_clock_is_behind_is_not_silent() {
        let written = json!([{"manager": "fairlead", "operation": "Update", "time": "2030-01-01T00:59:55Z"}]);
        let lease =
            json!({"metadata": {"managedFields": written}, "spec": {"renewTime": "2030-01-01T00:10:00.000000Z"}});
        assert!(is_heard_of("True", Some(lease), LONG));
        assert!(is_heard_of("True", renewed("2030-01-01T05:00:00.000000Z"), LONG), "and one whose clock is ahead");
    }
}
