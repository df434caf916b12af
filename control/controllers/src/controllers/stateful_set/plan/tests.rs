//! Passes over StatefulSets in every state.

use super::*;
use crate::controllers::stateful_set::fixtures::{healthy, member, now, revision, stateful_set, terminating, with};

/// What one pass does, in short: `+web-0(new)`, `-web-1`, `claims web-0`, `own data-web-0`, `correct web-0`, `await …`.
fn decide(set: &StatefulSet, pods: &[Arc<Pod>], claims: &[PersistentVolumeClaim]) -> Vec<String> {
    let (current, update) = (revision("old"), revision("new"));
    let find =
        |name: &str| claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(name)).cloned().map(Arc::new);
    let view =
        SetView { set, current: &current, update: &update, pods: SetView::by_ordinal(pods), claims: &find, now: now() };
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
    plan(&view)
        .steps
        .iter()
        .map(|step| match step {
            SetStep::Create { ordinal, revision, claims } => {
                let made = if claims.is_empty() { String::new() } else { format!(" {} claims", claims.len()) };
                format!("+web-{ordinal}({}){made}", revision.name)
            }
            SetStep::CreateClaims { ordinal, claims } => format!("{} claims web-{ordinal}", claims.len()),
            SetStep::AwaitDeletion { claim, .. } => format!("await {claim}"),
            SetStep::Own { claim, owners, .. } => {
                format!("own {} {}", claim.metadata.name.as_deref().unwrap_or_default(), owners.len())
            }
            SetStep::Correct { pod, .. } => format!("correct {}", name(pod)),
            SetStep::Delete(pod) => format!("-{}", name(pod)),
        })
        .collect()
}

fn parallel(replicas: i32) -> StatefulSet {
    stateful_set(replicas, json!({"spec": {"podManagementPolicy": "Parallel"}}))
}

fn with_claims(replicas: i32, patch: Value) -> StatefulSet {
    let mut set = stateful_set(replicas, patch);
    let template = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    set.spec.as_mut().expect("a spec").volume_claim_templates = serde_json::from_value(template).expect("claims");
    set
}

const NOTHING: [&str; 0] = [];

#[test]
fn pods_start_one_after_the_other_and_each_waits_for_those_before() {
    let set = stateful_set(3, json!({}));
    let pod = |ordinal| healthy(&set, "new", ordinal);
    assert_eq!(decide(&set, &[], &[]), ["+web-0(new)"]);
    assert_eq!(decide(&set, &[pod(0)], &[]), ["+web-1(new)"]);
    assert_eq!(decide(&set, &[pod(0), member(&set, "new", 1, "Running", "False")], &[]), NOTHING);
    assert_eq!(decide(&set, &[pod(0), member(&set, "new", 1, "Pending", "False")], &[]), NOTHING);
    assert_eq!(decide(&set, &[terminating(pod(0)), pod(1)], &[]), NOTHING);
    // A gap is filled before anything else.
    assert_eq!(decide(&set, &[pod(0), pod(2), pod(5)], &[]), ["+web-1(new)"]);
    assert_eq!(decide(&set, &[pod(0), pod(1), pod(2)], &[]), NOTHING);
}

#[test]
fn a_pod_must_be_ready_for_long_enough_before_the_next() {
    let set = stateful_set(2, json!({"spec": {"minReadySeconds": 30}}));
    let young = with(
        healthy(&set, "new", 0),
        json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:09:50Z"}]}}),
    );
    assert_eq!(decide(&set, &[young], &[]), NOTHING);
    assert_eq!(decide(&set, &[healthy(&set, "new", 0)], &[]), ["+web-1(new)"]);
}

#[test]
fn parallel_sets_wait_for_nothing() {
    let set = parallel(3);
    assert_eq!(decide(&set, &[], &[]), ["+web-0(new)", "+web-1(new)", "+web-2(new)"]);
    let pods =
        [terminating(healthy(&set, "new", 0)), member(&set, "new", 4, "Pending", "False"), healthy(&set, "new", 7)];
    assert_eq!(decide(&set, &pods, &[]), ["+web-1(new)", "+web-2(new)", "-web-7", "-web-4"]);
    assert_eq!(decide(&parallel(100_000), &[], &[]).len(), AT_ONCE);
}

#[test]
fn ended_pods_are_deleted_and_made_again_when_they_are_gone() {
    let set = stateful_set(2, json!({}));
    for phase in ["Failed", "Succeeded"] {
        let ended = member(&set, "new", 0, phase, "False");
        assert_eq!(decide(&set, &[ended.clone(), healthy(&set, "new", 1)], &[]), ["-web-0"]);
        assert_eq!(decide(&set, &[terminating(ended)], &[]), NOTHING);
    }
    let set = parallel(2);
    assert_eq!(decide(&set, &[member(&set, "new", 0, "Failed", "False")], &[]), ["-web-0", "+web-1(new)"]);
}

#[test]
fn scaling_down_goes_from_the_last_and_halts_on_unhealthy_pods() {
    let set = stateful_set(1, json!({}));
    let pod = |ordinal| healthy(&set, "new", ordinal);
    let sick = |ordinal| member(&set, "new", ordinal, "Running", "False");
    assert_eq!(decide(&set, &[pod(0), pod(1), pod(2)], &[]), ["-web-2"]);
    assert_eq!(decide(&set, &[pod(0), pod(1), terminating(pod(2))], &[]), NOTHING);
    assert_eq!(decide(&set, &[sick(0), pod(1)], &[]), NOTHING, "the first waits for its health");
    assert_eq!(decide(&set, &[pod(0), sick(1), pod(2)], &[]), ["-web-2"]);
    // One that is unhealthy itself goes only if it is the first of them.
    assert_eq!(decide(&set, &[pod(0), pod(1), sick(2)], &[]), ["-web-2"]);
    assert_eq!(decide(&set, &[pod(0), sick(1), sick(2)], &[]), NOTHING);
    let none = stateful_set(0, json!({}));
    assert_eq!(decide(&none, &[pod(0)], &[]), ["-web-0"]);
    let gone = stateful_set(0, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert_eq!(decide(&gone, &[pod(0)], &[]), NOTHING);
}

#[test]
fn ordinals_begin_where_the_set_says() {
    let set = stateful_set(2, json!({"spec": {"ordinals": {"start": 3}}}));
    assert_eq!(decide(&set, &[], &[]), ["+web-3(new)"]);
    let pods = [healthy(&set, "new", 2), healthy(&set, "new", 3), healthy(&set, "new", 4), healthy(&set, "new", 5)];
    assert_eq!(decide(&set, &pods, &[]), ["-web-5"]);
    assert_eq!(decide(&set, &pods[..3], &[]), ["-web-2"]);
}

#[test]
fn a_rollout_replaces_pods_from_the_last_to_the_first() {
    let set = stateful_set(3, json!({}));
    let (old, new) = (|ordinal| healthy(&set, "old", ordinal), |ordinal| healthy(&set, "new", ordinal));
    assert_eq!(decide(&set, &[old(0), old(1), old(2)], &[]), ["-web-2"]);
    assert_eq!(decide(&set, &[old(0), old(1), terminating(old(2))], &[]), NOTHING);
    assert_eq!(decide(&set, &[old(0), old(1)], &[]), ["+web-2(new)"]);
    assert_eq!(decide(&set, &[old(0), old(1), member(&set, "new", 2, "Running", "False")], &[]), NOTHING);
    assert_eq!(decide(&set, &[old(0), old(1), new(2)], &[]), ["-web-1"]);
    let strategy = |strategy: Value| stateful_set(3, json!({"spec": {"updateStrategy": strategy}}));
    let on_delete = strategy(json!({"type": "OnDelete", "rollingUpdate": null}));
    assert_eq!(decide(&on_delete, &[old(0), old(1), old(2)], &[]), NOTHING);
    assert_eq!(decide(&on_delete, &[old(0), old(1)], &[]), ["+web-2(new)"]);
    // In parallel sets a step waits all the same.
    let set = parallel(3);
    assert_eq!(decide(&set, &[old(0), old(1), old(2)], &[]), ["-web-2"]);
    assert_eq!(decide(&set, &[old(0), old(1), member(&set, "new", 2, "Pending", "False")], &[]), NOTHING);
}

#[test]
fn pods_below_the_partition_keep_the_old_revision() {
    let partition = |partition: i32, start: i32| {
        stateful_set(
            3,
            json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": partition}},
            "ordinals": {"start": start}}}),
        )
    };
    let set = partition(2, 0);
    let (old, new) = (|ordinal| healthy(&set, "old", ordinal), |ordinal| healthy(&set, "new", ordinal));
    assert_eq!(decide(&set, &[old(0), old(1), old(2)], &[]), ["-web-2"]);
    assert_eq!(decide(&set, &[old(0), old(1), new(2)], &[]), NOTHING);
    assert_eq!(decide(&set, &[old(0), new(2)], &[]), ["+web-1(old)"]);
    assert_eq!(decide(&set, &[old(0), old(1)], &[]), ["+web-2(new)"]);
    assert_eq!(decide(&partition(9, 0), &[old(0), old(1), old(2)], &[]), NOTHING);
    assert_eq!(decide(&partition(1, 5), &[old(5), old(6), old(7)], &[]), ["-web-7"]);
    assert_eq!(decide(&partition(1, 5), &[], &[]), ["+web-5(old)"]);
    // Without a partition the status tells how many are still of the old one.
    let mut none = stateful_set(3, json!({"status": {"replicas": 3, "currentReplicas": 1}}));
    let strategy = none.spec.as_mut().and_then(|spec| spec.update_strategy.as_mut()).expect("a strategy");
    strategy.rolling_update = None;
    assert_eq!(decide(&none, &[], &[]), ["+web-0(old)"]);
    assert_eq!(decide(&none, &[old(0)], &[]), ["+web-1(new)"]);
}

#[test]
fn with_max_unavailable_several_are_replaced_at_a_time() {
    let most = |most: Value, replicas: i32| {
        stateful_set(
            replicas,
            json!({"spec": {"podManagementPolicy": "Parallel",
            "updateStrategy": {"rollingUpdate": {"partition": 1, "maxUnavailable": most}}}}),
        )
    };
    let set = most(json!(2), 4);
    let pods: Vec<_> = (0..4).map(|ordinal| healthy(&set, "old", ordinal)).collect();
    assert_eq!(decide(&set, &pods, &[]), ["-web-3", "-web-2"]);
    assert_eq!(decide(&most(json!("50%"), 4), &pods, &[]), ["-web-3", "-web-2"]);
    assert_eq!(decide(&most(json!("10%"), 4), &pods, &[]), ["-web-3"], "at least one");
    assert_eq!(decide(&most(json!(9), 4), &pods, &[]), ["-web-3", "-web-2", "-web-1"], "not below the partition");
    let mut sick = pods.clone();
    sick[0] = member(&set, "old", 0, "Running", "False");
    assert_eq!(decide(&set, &sick, &[]), ["-web-3"], "one is unavailable already");
    sick[1] = terminating(sick[1].clone());
    assert_eq!(decide(&set, &sick, &[]), NOTHING);
}

#[test]
fn claims_come_before_their_pods_and_again_while_pods_are_pending() {
    let set = with_claims(1, json!({}));
    let claims = identity::claims(&set, 0);
    assert_eq!(decide(&set, &[], &[]), ["+web-0(new) 1 claims"]);
    assert_eq!(decide(&set, &[], &claims), ["+web-0(new)"]);
    let pending = member(&set, "new", 0, "Pending", "False");
    assert_eq!(decide(&set, std::slice::from_ref(&pending), &[]), ["1 claims web-0"]);
    assert_eq!(decide(&set, &[pending], &claims), NOTHING);
    assert_eq!(decide(&set, &[healthy(&set, "new", 0)], &[]), NOTHING, "a running pod has what it needs");
    let mut going = claims.clone();
    going[0].metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(decide(&set, &[], &going), ["await data-web-0"]);
}

#[test]
fn claims_get_their_owners_and_those_of_a_former_pod_are_awaited() {
    let policy = json!({"spec": {"persistentVolumeClaimRetentionPolicy":
        {"whenScaled": "Delete", "whenDeleted": "Delete"}}});
    let set = with_claims(1, policy);
    let mut claims = [identity::claims(&set, 0), identity::claims(&set, 1)].concat();
    let pods = [healthy(&set, "new", 0), healthy(&set, "new", 1)];
    assert_eq!(decide(&set, &pods, &claims), ["own data-web-0 1", "own data-web-1 1", "-web-1"]);
    let former = json!([{"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "former", "controller": true}]);
    claims[0].metadata.owner_references = serde_json::from_value(former).expect("owners");
    assert_eq!(decide(&set, &[], &claims), NOTHING);
}

#[test]
fn a_pod_without_its_labels_or_volumes_is_corrected() {
    let set = with_claims(1, json!({}));
    let claims = identity::claims(&set, 0);
    let bare = with(healthy(&set, "new", 0), json!({"metadata": {"labels": {identity::POD_NAME: null}}}));
    assert_eq!(decide(&set, &[bare], &claims), ["correct web-0"]);
    let adopted = with(healthy(&set, "new", 0), json!({"spec": {"volumes": null}}));
    assert_eq!(decide(&set, &[adopted], &[]), ["1 claims web-0", "correct web-0"]);
}
