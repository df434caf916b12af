//! What a PodDisruptionBudget reports: how many healthy pods it needs, has, and can spare. Pure.
//!
//! Source: `pkg/controller/disruption` of Kubernetes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};

use crate::objects::{
    int_or_percent::{Rounding, resolve},
    pod_state::{is_ready, is_terminating},
};

/// How long an evicted pod may stay without being deleted before it counts again. Source: `DeletionTimeout`.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
/// The one condition of a budget.
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// How many pods there should be, and how many of them healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Pods that the controllers of the selected pods ask for, or the selected pods themselves.
    pub pods: i32,
    /// Of which so many must be healthy.
    pub healthy: i32,
}

/// The status to write, and what else came out of it.
#[derive(Debug)]
pub struct Report {
    /// The status to write, where it differs.
    pub status: PodDisruptionBudgetStatus,
    /// When an evicted pod that was not deleted counts again.
    pub recheck: Option<Duration>,
    /// Evicted pods that were not deleted in time.
    pub not_deleted: Vec<Arc<Pod>>,
}

/// Whether the amounts of the budget depend on how many pods the controllers ask for.
pub fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What the budget expects: `selected` is how many pods it selects, `scale` how many their controllers ask for.
pub fn expectation(spec: &PodDisruptionBudgetSpec, selected: usize, scale: i32) -> Expectation {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let healthy = scale.saturating_sub(resolve(most, scale, Rounding::Up)).max(0);
            Expectation { pods: scale, healthy }
        }
        (None, Some(IntOrString::Int(least))) => {
            Expectation { pods: i32::try_from(selected).unwrap_or(i32::MAX), healthy: *least }
        }
        (None, Some(least)) => Expectation { pods: scale, healthy: resolve(least, scale, Rounding::Up) },
        (None, None) => Expectation { pods: 0, healthy: 0 },
    }
}

/// What the budget reports of the `pods` that it selects.
pub fn report(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], expected: Expectation, now: Timestamp) -> Report {
    let old = budget.status.clone().unwrap_or_default();
    let mut kept: BTreeMap<String, Time> = BTreeMap::new();
    let (mut healthy, mut recheck, mut not_deleted) = (0_i32, None::<Duration>, Vec::new());
    for pod in pods.iter().filter(|pod| !is_terminating(pod)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let evicted = old.disrupted_pods.as_ref().and_then(|pods| pods.get(&name));
        match evicted.map(|at| (at, rest_of_timeout(at, now))) {
            Some((at, Some(rest))) => {
                kept.insert(name, at.clone());
                recheck = Some(recheck.map_or(rest, |soonest: Duration| soonest.min(rest)));
                continue;
            }
            Some((_, None)) => not_deleted.push(pod.clone()),
            None => {}
        }
        if is_ready(pod) {
            healthy = healthy.saturating_add(1);
        }
    }
    // A budget that expects nothing allows nothing: its first pods may appear before their report.
    let allowed = if expected.pods <= 0 { 0 } else { healthy.saturating_sub(expected.healthy).max(0) };
    let reason = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let generation = budget.metadata.generation;
    let status = PodDisruptionBudgetStatus {
        current_healthy: healthy,
        desired_healthy: expected.healthy,
        expected_pods: expected.pods,
        disruptions_allowed: allowed,
        disrupted_pods: (!kept.is_empty()).then_some(kept),
        observed_generation: generation,
        conditions: Some(with_condition(old.conditions, reason, String::new(), generation, now)),
    };
    Report { status, recheck, not_deleted }
}

/// The report of a budget that could not be computed: it allows no disruption.
pub fn failed(budget: &PodDisruptionBudget, message: String, now: Timestamp) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let generation = old.observed_generation;
    let conditions = with_condition(old.conditions.clone(), ("False", "SyncFailed"), message, generation, now);
    PodDisruptionBudgetStatus { disruptions_allowed: 0, conditions: Some(conditions), ..old }
}

/// Whether the two say the same: an empty map of disrupted pods is none.
pub fn says_the_same(a: &PodDisruptionBudgetStatus, b: &PodDisruptionBudgetStatus) -> bool {
    let normalised = |status: &PodDisruptionBudgetStatus| {
        let mut status = status.clone();
        status.disrupted_pods = status.disrupted_pods.filter(|pods| !pods.is_empty());
        status
    };
    normalised(a) == normalised(b)
}

/// What is left of the time in which a pod that was evicted at `at` must be deleted; `None` when it is over.
fn rest_of_timeout(at: &Time, now: Timestamp) -> Option<Duration> {
    // An eviction that is yet to come was one by another clock: it has all of its time.
    let elapsed = Duration::try_from(now.duration_since(at.0)).unwrap_or_default();
    DELETION_TIMEOUT.checked_sub(elapsed)
}

fn with_condition(
    conditions: Option<Vec<Condition>>,
    (status, reason): (&str, &str),
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = conditions.unwrap_or_default();
    let new = Condition {
        type_: DISRUPTION_ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == DISRUPTION_ALLOWED) {
        Some(known) if known.status == new.status => {
            *known = Condition { last_transition_time: known.last_transition_time.clone(), ..new };
        }
        Some(known) => *known = new,
        None => conditions.push(new),
    }
    conditions
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T00:10:00Z";

    fn now() -> Timestamp {
        NOW.parse().expect("a valid time")
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({"metadata": {"name": "b", "generation": 3}, "spec": spec, "status": status}))
            .expect("a valid budget")
    }

    fn status(disrupted: Value) -> Value {
        json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
            "disruptedPods": disrupted})
    }

    fn pod(name: &str, ready: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": name},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(pod).expect("a valid pod"))
    }

    fn terminating(name: &str) -> Arc<Pod> {
        let mut pod = Pod::clone(&pod(name, "True"));
        pod.metadata.deletion_timestamp = Some(Time(now()));
        Arc::new(pod)
    }

    #[test]
    fn the_amounts_of_a_budget_are_those_of_kubernetes() {
        // Spec, selected pods, what their controllers ask for; pods and healthy ones that are expected.
        let cases = [
            (json!({"minAvailable": 3}), 5, 0, (5, 3)),
            (json!({"minAvailable": "28%"}), 1, 10, (10, 3)),
            (json!({"minAvailable": "0%"}), 1, 10, (10, 0)),
            (json!({"minAvailable": "100%"}), 2, 10, (10, 10)),
            (json!({"maxUnavailable": 3}), 1, 10, (10, 7)),
            (json!({"maxUnavailable": 0}), 1, 10, (10, 10)),
            (json!({"maxUnavailable": 20}), 1, 10, (10, 0)),
            (json!({"maxUnavailable": "30%"}), 1, 10, (10, 7)),
            // Of a share the part of a pod counts as one that may be missing.
            (json!({"maxUnavailable": "25%"}), 1, 7, (7, 5)),
            (json!({"maxUnavailable": "1%"}), 1, 1, (1, 0)),
            (json!({}), 4, 4, (0, 0)),
        ];
        for (spec, selected, scale, (pods, healthy)) in cases {
            let read: PodDisruptionBudgetSpec = serde_json::from_value(spec.clone()).expect("a valid spec");
            assert_eq!(expectation(&read, selected, scale), Expectation { pods, healthy }, "{spec}");
        }
        let needs = |spec: Value| needs_scale(&serde_json::from_value(spec).expect("a valid spec"));
        assert!(!needs(json!({"minAvailable": 3})) && !needs(json!({})));
        assert!(needs(json!({"minAvailable": "3%"})) && needs(json!({"maxUnavailable": 3})));
    }

    #[test]
    fn only_healthy_pods_that_stay_count_and_what_is_beyond_the_need_is_allowed() {
        let pods = [pod("a", "True"), pod("b", "True"), pod("c", "False"), terminating("d")];
        let of = |pods: &[Arc<Pod>], expected, healthy| {
            let expected = Expectation { pods: expected, healthy };
            report(&budget(json!({}), Value::Null), pods, expected, now()).status
        };
        let one = of(&pods, 4, 1);
        assert_eq!((one.current_healthy, one.disruptions_allowed, one.observed_generation), (2, 1, Some(3)));
        let condition = &one.conditions.expect("a condition")[0];
        assert_eq!((&*condition.status, &*condition.reason), ("True", "SufficientPods"));
        assert_eq!(of(&pods, 4, 3).disruptions_allowed, 0);
        let none = of(&[], 0, 0);
        let condition = &none.conditions.expect("a condition")[0];
        assert_eq!((&*condition.status, &*condition.reason), ("False", "InsufficientPods"));
        assert_eq!(of(&pods, 0, 0).disruptions_allowed, 0, "no pods are expected yet");
        assert_eq!(of(&pods, 4, i32::MIN).disruptions_allowed, i32::MAX, "saturates");
    }

    #[test]
    fn evicted_pods_do_not_count_until_they_are_deleted_or_two_minutes_have_passed() {
        let disrupted = json!({"recent": "2026-01-01T00:09:00Z", "late": "2026-01-01T00:07:59Z",
            "going": "2026-01-01T00:09:00Z", "unknown": "2026-01-01T00:09:00Z", "edge": "2026-01-01T00:08:00Z"});
        let pods = [pod("recent", "True"), pod("late", "True"), terminating("going"), pod("edge", "True")];
        let report = report(&budget(json!({}), status(disrupted)), &pods, Expectation { pods: 4, healthy: 0 }, now());
        let kept: Vec<_> = report.status.disrupted_pods.iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert_eq!(kept, ["edge", "recent"]);
        assert_eq!(report.status.current_healthy, 1);
        assert_eq!(report.recheck, Some(Duration::ZERO));
        let late: Vec<_> = report.not_deleted.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(late, ["late"]);
    }

    #[test]
    fn a_budget_that_cannot_be_computed_allows_nothing_and_says_why() {
        let old = json!({"currentHealthy": 3, "desiredHealthy": 1, "disruptionsAllowed": 2, "expectedPods": 3,
            "observedGeneration": 2, "conditions": [{"type": "DisruptionAllowed", "status": "True",
                "reason": "SufficientPods", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let budget = budget(json!({}), old);
        let failed = failed(&budget, "why".into(), now());
        assert_eq!((failed.disruptions_allowed, failed.current_healthy, failed.observed_generation), (0, 3, Some(2)));
        let condition = &failed.conditions.as_ref().expect("a condition")[0];
        assert_eq!((&*condition.reason, &*condition.message), ("SyncFailed", "why"));
        assert_eq!(condition.last_transition_time.0, now());
        // Its transition is told once.
        let again = PodDisruptionBudget { status: Some(failed.clone()), ..budget };
        let later = "2026-01-01T01:00:00Z".parse().expect("a valid time");
        assert!(says_the_same(&super::failed(&again, "why".into(), later), &failed));
    }

    #[test]
    fn no_disrupted_pods_and_an_empty_map_of_them_are_the_same() {
        let (none, empty) = (budget(json!({}), status(Value::Null)), budget(json!({}), status(json!({}))));
        assert!(says_the_same(none.status.as_ref().expect("a status"), empty.status.as_ref().expect("a status")));
    }
}
