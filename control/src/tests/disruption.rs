//! PodDisruptionBudgets: what they report, and the evictions that they allow.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::Pod,
    policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
};
use kube::{
    api::{ApiResource, DynamicObject, EvictParams},
    core::GroupVersionKind,
};

use super::*;
use crate::kinds::{BuiltIn, Kind};

fn budget(name: &str, app: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": app}});
    json!({"metadata": {"name": name}, "spec": spec})
}

fn status(budget: &PodDisruptionBudget) -> PodDisruptionBudgetStatus {
    let status = budget.status.clone().unwrap_or_default();
    let current = status.observed_generation == budget.metadata.generation;
    if current { status } else { PodDisruptionBudgetStatus::default() }
}

fn counts(budget: &PodDisruptionBudget) -> [i32; 4] {
    let status = status(budget);
    [status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed]
}

fn reason(budget: &PodDisruptionBudget) -> Option<(String, String)> {
    let condition = budget.status.as_ref()?.conditions.as_ref()?.first()?;
    Some((condition.reason.clone(), condition.message.clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_follows_its_pods_and_evictions_keep_to_it() {
    let cluster = Cluster::start(2).await;
    let (pods, budgets) = (cluster.api::<Pod>(), cluster.api::<PodDisruptionBudget>());
    create_in_default(&budgets, budget("web", "web", json!({"minAvailable": "100%"}))).await;
    let empty = cluster.wait::<PodDisruptionBudget>("web", "empty", |b| reason(b).is_some()).await;
    assert_eq!((counts(&empty), reason(&empty).map(|(reason, _)| reason)), ([0; 4], Some("InsufficientPods".into())));
    create_in_default(&cluster.api::<Deployment>(), deployment("web", 3, "one")).await;
    cluster.wait::<PodDisruptionBudget>("web", "full", |b| counts(b) == [3, 3, 3, 0]).await;

    let listed = cluster.wait_list::<Pod>("app=web", "three", |pods| pods.len() == 3).await;
    let victim = listed[0].metadata.clone();
    let name = victim.name.as_deref().expect("a name");
    let refused = pods.evict(name, &EvictParams::default()).await.expect_err("no disruption is allowed");
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 429));
    patch(&budgets, "web", json!({"spec": {"minAvailable": 2}})).await;
    let one = cluster.wait::<PodDisruptionBudget>("web", "one to spare", |b| counts(b) == [3, 2, 3, 1]).await;
    assert_eq!(reason(&one).map(|(reason, _)| reason).as_deref(), Some("SufficientPods"));
    pods.evict(name, &EvictParams::default()).await.expect("one disruption is allowed");
    cluster
        .wait_list::<Pod>("app=web", "replaced", |pods| {
            pods.len() == 3 && pods.iter().all(|pod| pod.metadata.uid != victim.uid)
        })
        .await;
    cluster
        .wait::<PodDisruptionBudget>("web", "whole again", |b| {
            counts(b) == [3, 2, 3, 1] && status(b).disrupted_pods.is_none_or(|pods| pods.is_empty())
        })
        .await;

    // The scale of the Deployment is what percentages are of.
    budgets.delete("web", &Default::default()).await.expect("deleted");
    create_in_default(&budgets, budget("half", "web", json!({"maxUnavailable": "50%"}))).await;
    cluster.wait::<PodDisruptionBudget>("half", "half of three", |b| counts(b) == [3, 1, 3, 2]).await;
    patch(&cluster.api::<Deployment>(), "web", json!({"spec": {"replicas": 4}})).await;
    cluster.wait::<PodDisruptionBudget>("half", "half of four", |b| counts(b) == [4, 2, 4, 2]).await;
    cluster.stop().await;
}

fn widgets(plural: &'static str, kind: &'static str, subresources: &[&'static str]) -> Kind {
    Kind {
        group: "example.com".into(),
        kind: kind.into(),
        plural: plural.into(),
        subresources: subresources.iter().map(|name| (*name).into()).collect(),
        ..Kind::from(&BuiltIn::PLAIN)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scale_of_other_kinds_is_asked_for_and_a_kind_without_one_fails_the_budget() {
    let cluster = Cluster::start(1).await;
    cluster.kinds.add(widgets("widgets", "Widget", &["scale"])).expect("added");
    cluster.kinds.add(widgets("gadgets", "Gadget", &[])).expect("added");
    let owner = async |kind: &str, plural: &str| -> Value {
        let gvk = GroupVersionKind::gvk("example.com", "v1", kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), "default", &resource);
        let object = json!({"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "w"},
            "spec": {"replicas": 5}});
        let object = serde_json::from_value(object).expect("an object");
        let created = api.create(&PostParams::default(), &object).await.expect("created");
        json!([{"apiVersion": "example.com/v1", "kind": kind, "name": "w", "uid": created.metadata.uid,
            "controller": true}])
    };
    for (name, owners) in [("scaled", owner("Widget", "widgets").await), ("fixed", owner("Gadget", "gadgets").await)] {
        create_in_default(&cluster.api::<PodDisruptionBudget>(), budget(name, name, json!({"maxUnavailable": 1})))
            .await;
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}, "ownerReferences": owners},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        create_in_default(&cluster.api::<Pod>(), pod).await;
    }
    cluster.wait::<PodDisruptionBudget>("scaled", "of five", |b| counts(b) == [5, 4, 1, 0]).await;
    let message = "gadgets.example.com does not implement the scale subresource";
    let failed = Some(("SyncFailed".to_owned(), message.to_owned()));
    cluster.wait::<PodDisruptionBudget>("fixed", "failed", |b| reason(b) == failed).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_was_not_disrupted_loses_its_condition() {
    let cluster = Cluster::start(1).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    create_in_default(&cluster.api::<Pod>(), pod).await;
    let condition = |pod: &Pod| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "DisruptionTarget").map(|c| c.status.clone())
    };
    let target = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True",
        "reason": "PreemptionByScheduler", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    cluster.api::<Pod>().patch_status("p", &PatchParams::default(), &Patch::Strategic(target)).await.expect("patched");
    cluster.wait::<Pod>("p", "no target", |pod| condition(pod).as_deref() == Some("False")).await;
    cluster.stop().await;
}
