//! What a Deployment reports: its counters, whether it is available, and whether its rollout progresses.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::limits::{Limits, asked, available, total};

/// Type of the condition that enough pods are available.
pub const AVAILABLE: &str = "Available";
/// Type of the condition that the rollout progresses.
pub const PROGRESSING: &str = "Progressing";
/// Type of the condition that pods cannot be created or deleted.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What the pass did with the new set, for the Progressing condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSet {
    /// It was there before.
    Standing,
    /// An older set has the template again.
    Found,
    /// It was made in this pass.
    Created { name: String },
    /// The API did not take it.
    Refused { message: String },
}

/// The status to report, and when its deadline is due. `rolling` is false while the Deployment is paused or being
/// scaled: then no progress is judged.
pub fn desired(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    event: &NewSet,
    rolling: bool,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let mut status = counters(deployment, new, all);
    set_available(deployment, &mut status, now);
    pause_condition(deployment, &mut status, now);
    match event {
        NewSet::Standing => {}
        NewSet::Found if find(&status, PROGRESSING).is_none() => {
            let message = format!("Found new replica set \"{}\"", name(new, deployment).1);
            progress(deployment, &mut status, "True", "FoundNewReplicaSet", message, now);
        }
        NewSet::Found => {}
        NewSet::Created { name } => {
            let message = format!("Created new replica set \"{name}\"");
            progress(deployment, &mut status, "True", "NewReplicaSetCreated", message, now);
        }
        NewSet::Refused { message } => {
            progress(deployment, &mut status, "False", "ReplicaSetCreateError", message.clone(), now);
        }
    }
    if rolling && !matches!(event, NewSet::Refused { .. }) {
        update_progressing_condition(deployment, new, &mut status, now);
    }
    copy_failure(new, all, &mut status);
    let timer = deadline(deployment, &status, now);
    (normalised(status, deployment.status.as_ref()), timer)
}

fn counters(deployment: &Deployment, new: Option<&ReplicaSet>, all: &[Arc<ReplicaSet>]) -> DeploymentStatus {
    let sum = |count: fn(&ReplicaSet) -> i32| total(all, count);
    let up = sum(available);
    let old = deployment.status.as_ref();
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(pods)),
        updated_replicas: Some(new.map_or(0, pods)),
        ready_replicas: Some(sum(|set| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: Some(up),
        unavailable_replicas: Some(sum(asked).saturating_sub(up).max(0)),
        terminating_replicas: Some(sum(|set| set.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0))),
        collision_count: old.and_then(|s| s.collision_count),
        conditions: old.and_then(|s| s.conditions.clone()),
    }
}

fn pods(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |s| s.replicas)
}

fn set_available(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let enough = status.available_replicas.unwrap_or(0) >= Limits::of(deployment).fewest_available();
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    put(status, AVAILABLE, value, reason, message.into(), now);
}

fn pause_condition(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if progress_deadline(deployment).is_none() {
        return;
    }
    let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    let reason = find(status, PROGRESSING).and_then(|c| c.reason.as_deref());
    // A rollout that has failed keeps its condition.
    if reason == Some("ProgressDeadlineExceeded") {
        return;
    }
    if paused && reason != Some("DeploymentPaused") {
        put(status, PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".into(), now);
    } else if !paused && reason == Some("DeploymentPaused") {
        put(status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), now);
    }
}

fn update_progressing_condition(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_none() {
        remove(status, PROGRESSING);
        return;
    }
    let reason = find(status, PROGRESSING).and_then(|c| c.reason.as_deref());
    if status.replicas == status.updated_replicas && reason == Some("NewReplicaSetAvailable") {
        return;
    }
    let (kind, name) = name(new, deployment);
    if is_complete(deployment, status) {
        let message = format!("{kind} \"{name}\" has successfully progressed.");
        put(status, PROGRESSING, "True", "NewReplicaSetAvailable", message, now);
    } else if has_progressed(deployment, status) {
        let message = format!("{kind} \"{name}\" is progressing.");
        let since =
            find(status, PROGRESSING).filter(|c| c.status == "True").and_then(|c| c.last_transition_time.clone());
        // Taken out first: the time of the last progress is what the deadline counts from.
        remove(status, PROGRESSING);
        put(status, PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let (Some(since), Some(condition)) = (since, find_mut(status, PROGRESSING)) {
            condition.last_transition_time = Some(since);
        }
    } else if has_timed_out(deployment, status, now) {
        let message = format!("{kind} \"{name}\" has timed out progressing.");
        put(status, PROGRESSING, "False", "ProgressDeadlineExceeded", message, now);
    }
}

fn name<'a>(new: Option<&'a ReplicaSet>, deployment: &'a Deployment) -> (&'static str, &'a str) {
    match new {
        Some(set) => ("ReplicaSet", set.metadata.name.as_deref().unwrap_or_default()),
        None => ("Deployment", deployment.metadata.name.as_deref().unwrap_or_default()),
    }
}

/// Every pod asked for is of the new set and available, and nothing else runs.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(Limits::of(deployment).replicas);
    let count = |count: Option<i32>| Some(count.unwrap_or(0));
    count(status.updated_replicas) == wanted
        && count(status.replicas) == wanted
        && count(status.available_replicas) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let old = deployment.status.clone().unwrap_or_default();
    let count = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| count(s.replicas).saturating_sub(count(s.updated_replicas));
    count(status.updated_replicas) > count(old.updated_replicas)
        || outdated(status) < outdated(&old)
        || count(status.ready_replicas) > count(old.ready_replicas)
        || count(status.available_replicas) > count(old.available_replicas)
}

fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(condition)) = (progress_deadline(deployment), find(status, PROGRESSING)) else {
        return false;
    };
    match condition.reason.as_deref() {
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => condition.last_update_time.as_ref().is_some_and(|at| now.duration_since(at.0) >= deadline),
    }
}

/// When a rollout without progress will have failed; `None` once it is complete or has failed.
fn deadline(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = progress_deadline(deployment)?;
    let condition = find(status, PROGRESSING)?;
    let over = matches!(condition.reason.as_deref(), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded"));
    if over || is_complete(deployment, status) || deployment.spec.as_ref().and_then(|s| s.paused) == Some(true) {
        return None;
    }
    let rest = deadline.saturating_sub(now.duration_since(condition.last_update_time.as_ref()?.0));
    // Conditions have whole seconds: a little later is surely after.
    Some(Duration::try_from(rest).unwrap_or_default().saturating_add(Duration::from_millis(100)))
}

fn progress_deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    // The largest number stands for "never".
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}

fn copy_failure(new: Option<&ReplicaSet>, all: &[Arc<ReplicaSet>], status: &mut DeploymentStatus) {
    let failure_of = |set: &ReplicaSet| {
        let conditions = set.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        conditions.iter().find(|c| c.type_ == REPLICA_FAILURE).cloned()
    };
    let failure = match new {
        Some(new) => failure_of(new),
        None => all.iter().find_map(|set| failure_of(set)),
    };
    match failure {
        Some(failure) => {
            let at = failure.last_transition_time.clone().unwrap_or(Time(Timestamp::UNIX_EPOCH)).0;
            let (reason, message) = (failure.reason.unwrap_or_default(), failure.message.unwrap_or_default());
            put(status, REPLICA_FAILURE, &failure.status, &reason, message, at);
        }
        None => remove(status, REPLICA_FAILURE),
    }
}

fn progress(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    value: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_some() {
        put(status, PROGRESSING, value, reason, message, now);
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn find_mut<'a>(status: &'a mut DeploymentStatus, kind: &str) -> Option<&'a mut DeploymentCondition> {
    status.conditions.iter_mut().flatten().find(|c| c.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
    }
}

/// Sets a condition; one with the same status and reason is left unchanged, times included.
fn put(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: String, now: Timestamp) {
    let standing = find(status, kind);
    if standing.is_some_and(|c| c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    let since = standing.filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
    let now = Time(now);
    let condition = DeploymentCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: since.or_else(|| Some(now.clone())),
        last_update_time: Some(now),
    };
    remove(status, kind);
    status.conditions.get_or_insert_default().push(condition);
}

/// The API leaves zero counters out of the stored JSON: absent and zero are the same report.
fn normalised(mut status: DeploymentStatus, old: Option<&DeploymentStatus>) -> DeploymentStatus {
    let keep = |new: &mut Option<i32>, old: Option<i32>| {
        if *new == Some(0) {
            *new = old.filter(|count| *count == 0);
        }
    };
    keep(&mut status.replicas, old.and_then(|s| s.replicas));
    keep(&mut status.updated_replicas, old.and_then(|s| s.updated_replicas));
    keep(&mut status.ready_replicas, old.and_then(|s| s.ready_replicas));
    keep(&mut status.available_replicas, old.and_then(|s| s.available_replicas));
    keep(&mut status.unavailable_replicas, old.and_then(|s| s.unavailable_replicas));
    keep(&mut status.terminating_replicas, old.and_then(|s| s.terminating_replicas));
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a valid time")
    }

    fn deployment(status: &DeploymentStatus) -> Deployment {
        let mut deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "web", "generation": 1},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {}}}))
        .expect("a valid deployment");
        deployment.status = Some(status.clone());
        deployment
    }

    fn set(pods: i32, available: i32) -> Arc<ReplicaSet> {
        let set = json!({"metadata": {"name": "web-1"}, "spec": {"replicas": pods, "selector": {}},
            "status": {"replicas": pods, "readyReplicas": available, "availableReplicas": available}});
        Arc::new(serde_json::from_value(set).expect("a valid set"))
    }

    fn report(before: &DeploymentStatus, set: &Arc<ReplicaSet>, now: &str) -> (DeploymentStatus, Option<Duration>) {
        desired(&deployment(before), Some(set), std::slice::from_ref(set), &NewSet::Found, true, at(now))
    }

    fn reason<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a str> {
        find(status, kind)?.reason.as_deref()
    }

    #[test]
    fn a_rollout_progresses_and_completes_and_then_stands() {
        let (began, timer) = report(&DeploymentStatus::default(), &set(2, 0), "2026-01-01T00:00:00Z");
        assert_eq!(reason(&began, PROGRESSING), Some("ReplicaSetUpdated"));
        assert_eq!(reason(&began, AVAILABLE), Some("MinimumReplicasUnavailable"));
        assert!(timer.is_some_and(|timer| timer >= Duration::from_secs(60)));
        let (done, timer) = report(&began, &set(2, 2), "2026-01-01T00:00:05Z");
        assert_eq!(reason(&done, PROGRESSING), Some("NewReplicaSetAvailable"));
        assert_eq!(reason(&done, AVAILABLE), Some("MinimumReplicasAvailable"));
        assert_eq!(timer, None);
        let (later, _) = report(&done, &set(2, 2), "2026-01-01T00:10:00Z");
        assert_eq!(later, done, "nothing is written for time alone");
    }

    #[test]
    fn a_rollout_without_progress_fails_at_its_deadline_and_not_before() {
        let (began, _) = report(&DeploymentStatus::default(), &set(2, 0), "2026-01-01T00:00:00Z");
        let (waiting, _) = report(&began, &set(2, 0), "2026-01-01T00:00:59Z");
        assert_eq!(waiting, began);
        let (failed, timer) = report(&began, &set(2, 0), "2026-01-01T00:01:00Z");
        assert_eq!(reason(&failed, PROGRESSING), Some("ProgressDeadlineExceeded"));
        assert_eq!(timer, None);
        let (recovered, _) = report(&failed, &set(2, 2), "2026-01-01T00:05:00Z");
        assert_eq!(reason(&recovered, PROGRESSING), Some("NewReplicaSetAvailable"));
    }
}
