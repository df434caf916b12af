//! What a StatefulSet reports of its pods. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSetStatus;

use super::{
    identity::{replicas, revision_of},
    plan::SetView,
};
use crate::objects::pod_state::{Availability, is_ready, is_terminating, phase};

/// The status to report, and when it changes by time alone. `replaced` pods of the current revision are going.
pub fn desired(view: &SetView<'_>, collisions: i32, replaced: i32) -> (StatefulSetStatus, Option<Duration>) {
    let (mut ready, mut available, mut current, mut updated) = (0_i32, 0_i32, 0_i32, 0_i32);
    let mut timer: Option<Duration> = None;
    for pod in view.pods.values() {
        if phase(pod) == "Running" && is_ready(pod) {
            ready = ready.saturating_add(1);
            match view.availability(pod) {
                Availability::Available => available = available.saturating_add(1),
                Availability::In(rest) => timer = Some(timer.map_or(rest, |soonest| soonest.min(rest))),
                Availability::NotReady => {}
            }
        }
        if !is_terminating(pod) {
            current = current.saturating_add(i32::from(revision_of(pod) == view.current.name));
            updated = updated.saturating_add(i32::from(revision_of(pod) == view.update.name));
        }
    }
    let old = view.set.status.clone().unwrap_or_default();
    let pods = i32::try_from(view.pods.len()).unwrap_or(i32::MAX);
    let mut status = StatefulSetStatus {
        replicas: pods,
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        current_replicas: Some(current.saturating_sub(replaced).max(0)),
        updated_replicas: Some(updated),
        current_revision: Some(view.current.name.clone()),
        update_revision: Some(view.update.name.clone()),
        observed_generation: view.set.metadata.generation,
        collision_count: Some(collisions),
        conditions: old.conditions,
    };
    let wanted = replicas(view.set);
    if rolls(view) && [updated, ready, pods] == [wanted; 3] {
        status.current_revision = status.update_revision.clone();
        status.current_replicas = status.updated_replicas;
    }
    (status, timer)
}

fn rolls(view: &SetView<'_>) -> bool {
    let strategy = view.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete")
}

/// Whether both say the same: a counter that is absent is zero.
pub fn says_the_same(a: &StatefulSetStatus, b: &StatefulSetStatus) -> bool {
    let zero = |count: Option<i32>| Some(count.unwrap_or(0));
    let normalised = |status: &StatefulSetStatus| StatefulSetStatus {
        ready_replicas: zero(status.ready_replicas),
        available_replicas: zero(status.available_replicas),
        current_replicas: zero(status.current_replicas),
        updated_replicas: zero(status.updated_replicas),
        collision_count: zero(status.collision_count),
        ..status.clone()
    };
    normalised(a) == normalised(b)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
    use serde_json::{Value, json};

    use super::*;
    use crate::controllers::stateful_set::fixtures::{healthy, member, now, revision, stateful_set, terminating};

    fn report(set: &StatefulSet, pods: &[Arc<Pod>], replaced: i32) -> (Value, Option<Duration>) {
        let (current, update) = (revision("old"), revision("new"));
        let pods = SetView::by_ordinal(pods);
        let view = SetView { set, current: &current, update: &update, pods, claims: &|_| None, now: now() };
        let (status, timer) = desired(&view, 0, replaced);
        (serde_json::to_value(status).expect("a status"), timer)
    }

    #[test]
    fn pods_are_counted_by_health_and_revision() {
        let set = stateful_set(4, json!({"spec": {"minReadySeconds": 605}}));
        let pods = [
            healthy(&set, "old", 0),
            member(&set, "old", 1, "Running", "False"),
            member(&set, "new", 2, "Pending", "False"),
            terminating(healthy(&set, "old", 3)),
        ];
        let (status, timer) = report(&set, &pods, 1);
        let expected = json!({"replicas": 4, "readyReplicas": 2, "availableReplicas": 0, "currentReplicas": 1,
            "updatedReplicas": 1, "currentRevision": "old", "updateRevision": "new", "observedGeneration": 2,
            "collisionCount": 0});
        assert_eq!(status, expected);
        assert_eq!(timer, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_rollout_is_complete_when_all_pods_run_the_new_revision_and_are_ready() {
        let set = stateful_set(2, json!({}));
        let complete = [healthy(&set, "new", 0), healthy(&set, "new", 1)];
        let (status, _) = report(&set, &complete, 0);
        assert_eq!((&status["currentRevision"], &status["currentReplicas"]), (&json!("new"), &json!(2)));
        let (status, _) = report(&set, &[healthy(&set, "new", 0), member(&set, "new", 1, "Running", "False")], 0);
        assert_eq!((&status["currentRevision"], &status["currentReplicas"]), (&json!("old"), &json!(0)));
        let mut on_delete = set.clone();
        let strategy = on_delete.spec.as_mut().and_then(|spec| spec.update_strategy.as_mut()).expect("a strategy");
        strategy.type_ = Some("OnDelete".into());
        assert_eq!(report(&on_delete, &complete, 0).0["currentRevision"], "old");
    }
}
