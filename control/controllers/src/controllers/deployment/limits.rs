//! How far a rollout may go beyond and below the replicas asked for.

use std::sync::Arc;

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::objects::int_or_percent::{Rounding, resolve};

/// A Deployment's figures with defaults filled in and percentages resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pods that are wanted.
    pub replicas: i32,
    /// Pods beyond `replicas` that may exist during a rollout.
    pub surge: i32,
    /// Pods below `replicas` that may be missing during a rollout.
    pub unavailable: i32,
}

impl Limits {
    /// Reads a Deployment's limits.
    pub fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|s| s.replicas).unwrap_or(1).max(0);
        let strategy = spec.and_then(|s| s.strategy.as_ref());
        if is_recreate(deployment) || replicas == 0 {
            return Self { replicas, surge: 0, unavailable: 0 };
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter), replicas, Rounding::Up);
        let unavailable =
            resolve(rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter), replicas, Rounding::Down);
        // Both may round to nothing, and a rollout could not take a step. Source: `ResolveFenceposts`.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { replicas, surge, unavailable: unavailable.min(replicas) }
    }

    /// Most pods there may be.
    pub fn most(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// Fewest pods that must be available.
    pub fn fewest_available(&self) -> i32 {
        self.replicas.saturating_sub(self.unavailable)
    }
}

/// Whether the Deployment ends all old pods before it starts new ones.
pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// Sum of replicas over sets, each of which may ask for the largest number there is.
pub fn total(sets: &[Arc<ReplicaSet>], count: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().fold(0, |total, set| total.saturating_add(count(set)))
}

/// Replicas that a set asks for.
pub fn asked(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1).max(0)
}

/// Pods of a set that are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0).max(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits(replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value) -> (i32, i32) {
        let deployment = serde_json::from_value(json!({"spec": {"replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
        .expect("a valid deployment");
        let limits = Limits::of(&deployment);
        (limits.surge, limits.unavailable)
    }

    #[test]
    fn surge_rounds_up_and_unavailable_down_and_never_both_to_zero() {
        assert_eq!(limits(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(limits(3, json!("25%"), json!("25%")), (1, 0));
        assert_eq!(limits(3, json!(0), json!("10%")), (0, 1));
        assert_eq!(limits(2, json!(1), json!(5)), (1, 2));
    }

    #[test]
    fn the_largest_figures_saturate() {
        assert_eq!(limits(i32::MAX, json!("9223372036854775807%"), json!("25%")), (i32::MAX, 536_870_911));
        let limits = Limits { replicas: i32::MAX, surge: i32::MAX, unavailable: 0 };
        assert_eq!(limits.most(), i32::MAX);
    }
}
