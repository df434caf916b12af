//! What a ReplicaSet reports of its pods.

use std::time::Duration;

use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{super::pod_requests::refusal, plan::ReplicaSetPlan};
use crate::{
    engine::Failure,
    objects::pod_state::{Availability, availability, is_ready},
};

/// The status to report, and when it changes by time alone.
pub fn desired(
    set: &ReplicaSet,
    plan: &ReplicaSetPlan,
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let template_labels =
        spec.and_then(|s| s.template.as_ref()).and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
    let (mut labelled, mut ready, mut available) = (0, 0, 0);
    let mut timer: Option<Duration> = None;
    for pod in &plan.active {
        let labels = pod.metadata.labels.as_ref();
        if template_labels.is_none_or(|t| t.iter().all(|(k, v)| labels.is_some_and(|l| l.get(k) == Some(v)))) {
            labelled += 1;
        }
        if is_ready(pod) {
            ready += 1;
        }
        match availability(pod, min_ready, now) {
            Availability::Available => available += 1,
            Availability::In(rest) => timer = Some(timer.map_or(rest, |t| t.min(rest))),
            Availability::NotReady => {}
        }
    }
    let status = ReplicaSetStatus {
        replicas: count(plan.active.len()),
        fully_labeled_replicas: Some(labelled),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, plan, failure, now),
        terminating_replicas: Some(count(plan.terminating)),
    };
    (normalised(status, set.status.as_ref()), timer)
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// The API leaves zero counters out of the stored JSON: absent and zero are the same report.
fn normalised(mut status: ReplicaSetStatus, old: Option<&ReplicaSetStatus>) -> ReplicaSetStatus {
    let keep = |new: &mut Option<i32>, old: Option<i32>| {
        if *new == Some(0) {
            *new = old.filter(|count| *count == 0);
        }
    };
    keep(&mut status.fully_labeled_replicas, old.and_then(|s| s.fully_labeled_replicas));
    keep(&mut status.ready_replicas, old.and_then(|s| s.ready_replicas));
    keep(&mut status.available_replicas, old.and_then(|s| s.available_replicas));
    keep(&mut status.terminating_replicas, old.and_then(|s| s.terminating_replicas));
    status
}

fn conditions(
    set: &ReplicaSet,
    plan: &ReplicaSetPlan,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let old = set.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let (standing, mut conditions): (Vec<_>, Vec<_>) =
        old.iter().cloned().partition(|condition| condition.type_ == "ReplicaFailure");
    if let Some(failure) = failure {
        let reason = if plan.create > 0 { "FailedCreate" } else { "FailedDelete" };
        let since = standing.first().filter(|c| c.status == "True").and_then(|c| c.last_transition_time.clone());
        conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(cause(failure)),
            last_transition_time: since.or(Some(Time(now))),
        });
    }
    (!conditions.is_empty()).then_some(conditions)
}

fn cause(failure: &Failure) -> String {
    match failure {
        Failure::Request { source, .. } => refusal(source),
        Failure::Several(_, first) => cause(first),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(ready: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"labels": {"app": "web"}}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        Arc::new(serde_json::from_value(pod).expect("a valid pod"))
    }

    fn set(min_ready: i32) -> ReplicaSet {
        let set = json!({"metadata": {"generation": 4}, "spec": {"minReadySeconds": min_ready, "selector": {},
            "template": {"metadata": {"labels": {"app": "web"}}}}});
        serde_json::from_value(set).expect("a valid set")
    }

    #[test]
    fn ready_pods_become_available_after_min_ready_seconds_and_a_timer_says_when() {
        let plan = ReplicaSetPlan { active: vec![pod("True"), pod("False")], ..Default::default() };
        let now: Timestamp = "2026-01-01T00:00:04Z".parse().expect("a valid time");
        let (status, timer) = desired(&set(10), &plan, None, now);
        assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, Some(1), None));
        assert_eq!((status.observed_generation, timer), (Some(4), Some(Duration::from_secs(6))));
        let (status, timer) = desired(&set(4), &plan, None, now);
        assert_eq!((status.available_replicas, timer), (Some(1), None));
    }

    #[test]
    fn a_failure_is_a_condition_until_it_is_over() {
        let plan = ReplicaSetPlan { create: 1, ..Default::default() };
        let failure = Failure::Malformed { what: "x", message: "y".into() };
        let (status, _) = desired(&set(0), &plan, Some(&failure), Timestamp::now());
        assert_eq!(status.conditions.as_deref().map(|c| c[0].reason.clone()), Some(Some("FailedCreate".into())));
        let failed = ReplicaSet { status: Some(status), ..set(0) };
        assert_eq!(desired(&failed, &plan, None, Timestamp::now()).0.conditions, None);
    }
}
