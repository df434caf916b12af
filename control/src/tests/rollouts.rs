//! Deployments from creation to history.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Pod, ReplicationController},
};
use kube::{
    api::{DeleteParams, PropagationPolicy},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::{Cluster, create_in_default, deployment, patch};

fn progressing(deployment: &Deployment) -> Option<&str> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Progressing")?.reason.as_deref()
}

/// What `kubectl rollout status` waits for.
fn rolled_out(deployment: &Deployment) -> bool {
    let (Some(spec), Some(status)) = (&deployment.spec, &deployment.status) else { return false };
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas == spec.replicas
        && status.replicas == spec.replicas
        && status.available_replicas == spec.replicas
        && progressing(deployment) == Some("NewReplicaSetAvailable")
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_bound_and_available_pods_and_goes_with_them() {
    let cluster = Cluster::start(3).await;
    create_in_default(&cluster.api::<Deployment>(), deployment("web", 6, "one")).await;
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    let pods = cluster
        .wait_list::<Pod>("app=web", "six bound pods", |pods| pods.len() == 6 && pods.iter().all(is_bound))
        .await;
    let mut nodes: Vec<_> = pods.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n1", "n2", "n2", "n3", "n3"], "spread evenly");
    cluster.api::<Deployment>().delete("web", &DeleteParams::background()).await.expect("deleted");
    cluster.wait_list::<Pod>("app=web", "gone", <[Pod]>::is_empty).await;
    cluster.wait_list::<ReplicaSet>("app=web", "gone", <[ReplicaSet]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_keeps_its_pods_and_its_status() {
    let cluster = Cluster::start(1).await;
    let api = cluster.api::<ReplicationController>();
    let controller = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"app": "web"},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    create_in_default(&api, controller).await;
    let available = |wanted: i32| {
        move |controller: &ReplicationController| {
            let status = controller.status.as_ref();
            status.is_some_and(|status| status.replicas == wanted && status.available_replicas == Some(wanted))
        }
    };
    cluster.wait::<ReplicationController>("web", "three available pods", available(3)).await;
    let pods = cluster.wait_list::<Pod>("app=web", "three pods", |pods| pods.len() == 3).await;
    let owner = &pods[0].metadata.owner_references.as_ref().expect("an owner")[0];
    assert_eq!((&*owner.kind, &*owner.api_version), ("ReplicationController", "v1"));
    patch(&api, "web", json!({"spec": {"replicas": 1}})).await;
    cluster.wait::<ReplicationController>("web", "one available pod", available(1)).await;
    api.delete("web", &DeleteParams::background()).await.expect("deleted");
    cluster.wait_list::<Pod>("app=web", "gone", <[Pod]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_template_rolls_out_and_an_old_one_can_be_brought_back() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<Deployment>();
    create_in_default(&api, deployment("web", 4, "one")).await;
    let first = cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    let revision = |d: &Deployment| {
        d.metadata.annotations.as_ref().and_then(|a| a.get("deployment.kubernetes.io/revision")).cloned()
    };
    assert_eq!(revision(&first).as_deref(), Some("1"));
    patch(&api, "web", json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}})).await;
    let second =
        cluster.wait::<Deployment>("web", "rolled out", |d| rolled_out(d) && d.metadata.generation == Some(2)).await;
    assert_eq!(revision(&second).as_deref(), Some("2"));
    cluster
        .wait_list::<Pod>("app=web", "all new", |pods| {
            pods.len() == 4
                && pods.iter().all(|p| p.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some("two")))
        })
        .await;
    patch(&api, "web", json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "one"}]}}}})).await;
    let third =
        cluster.wait::<Deployment>("web", "rolled out", |d| rolled_out(d) && d.metadata.generation == Some(3)).await;
    assert_eq!(revision(&third).as_deref(), Some("3"));
    let sets = cluster.wait_list::<ReplicaSet>("app=web", "two sets", |sets| sets.len() == 2).await;
    let mut revisions: Vec<_> =
        sets.iter().filter_map(|s| s.metadata.annotations.as_ref()?.get("deployment.kubernetes.io/revision")).collect();
    revisions.sort();
    assert_eq!(revisions, ["2", "3"], "the first set came back");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_that_cannot_get_on_keeps_the_old_pods_and_fails_after_its_deadline() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<Deployment>();
    let mut object = deployment("web", 4, "one");
    object["spec"]["progressDeadlineSeconds"] = json!(3);
    create_in_default(&api, object).await;
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    patch(&api, "web", json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "broken"}]}}}}))
        .await;
    let failed =
        cluster.wait::<Deployment>("web", "failed", |d| progressing(d) == Some("ProgressDeadlineExceeded")).await;
    let status = failed.status.expect("a status");
    assert_eq!(status.available_replicas, Some(3), "25 % of 4 may be missing");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_ends_the_old_pods_before_it_starts_new_ones() {
    let cluster = Cluster::start(1).await;
    let api = cluster.api::<Deployment>();
    let mut object = deployment("web", 3, "one");
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    create_in_default(&api, object).await;
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    patch(&api, "web", json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}})).await;
    cluster.wait::<Deployment>("web", "rolled out", |d| rolled_out(d) && d.metadata.generation == Some(2)).await;
    let pods = cluster.wait_list::<Pod>("app=web", "three", |pods| pods.len() == 3).await;
    assert!(pods.iter().all(|p| p.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some("two"))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<Deployment>();
    create_in_default(&api, deployment("web", 2, "one")).await;
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    let change = json!({"spec": {"paused": true, "replicas": 5,
        "template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    patch(&api, "web", change).await;
    let paused = cluster
        .wait::<Deployment>("web", "scaled", |d| {
            d.status.as_ref().is_some_and(|s| s.available_replicas == Some(5))
                && progressing(d) == Some("DeploymentPaused")
        })
        .await;
    assert_eq!(paused.status.and_then(|s| s.updated_replicas), None, "nothing runs the new template");
    patch(&api, "web", json!({"spec": {"paused": false}})).await;
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_is_replaced_and_a_deployment_deleted_with_orphans_leaves_its_set() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<Deployment>();
    create_in_default(&api, deployment("web", 3, "one")).await;
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    let pods = cluster.wait_list::<Pod>("app=web", "three", |pods| pods.len() == 3).await;
    let victim = pods[0].metadata.clone();
    cluster
        .api::<Pod>()
        .delete(victim.name.as_deref().expect("a name"), &DeleteParams::default())
        .await
        .expect("deleted");
    cluster
        .wait_list::<Pod>("app=web", "replaced", |pods| {
            pods.len() == 3 && pods.iter().all(|p| p.metadata.uid != victim.uid)
        })
        .await;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..Default::default() };
    api.delete("web", &orphan).await.expect("deleted");
    let sets = cluster
        .wait_list::<ReplicaSet>("app=web", "left alone", |sets| {
            sets.len() == 1 && sets[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
        })
        .await;
    cluster.wait_list::<Deployment>("", "gone", <[Deployment]>::is_empty).await;
    // Another Deployment of that selector and template adopts it.
    create_in_default(&api, deployment("web", 3, "one")).await;
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    let adopted = cluster.wait_list::<ReplicaSet>("app=web", "one", |sets| sets.len() == 1).await;
    assert_eq!(adopted[0].metadata.uid, sets[0].metadata.uid);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_takes_the_pods_first() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<Deployment>();
    create_in_default(&api, deployment("web", 3, "one")).await;
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    api.delete("web", &DeleteParams::foreground()).await.expect("deleted");
    cluster.wait_list::<Deployment>("", "gone", <[Deployment]>::is_empty).await;
    assert!(cluster.api::<Pod>().list(&Default::default()).await.expect("a list").items.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_set_creates_each_pod_once_and_deletes_no_more_than_asked() {
    let cluster = Cluster::start(4).await;
    let api = cluster.api::<Deployment>();
    let mut events = std::pin::pin!(watcher(cluster.api::<Pod>(), watcher::Config::default()).touched_objects());
    create_in_default(&api, deployment("web", 300, "one")).await;
    let (mut made, mut bound) = (BTreeSet::new(), BTreeSet::new());
    while bound.len() < 300 {
        let pod = events.try_next().await.expect("a watch").expect("an event");
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if is_bound(&pod) {
            bound.insert(uid.clone());
        }
        made.insert(uid);
    }
    cluster.wait::<Deployment>("web", "rolled out", rolled_out).await;
    patch(&api, "web", json!({"spec": {"replicas": 120}})).await;
    cluster.wait::<Deployment>("web", "scaled down", |d| rolled_out(d) && d.metadata.generation == Some(2)).await;
    let left = cluster.wait_list::<Pod>("app=web", "120 pods", |pods| pods.len() == 120).await;
    assert_eq!(made.len(), 300, "none was made twice");
    assert!(left.iter().all(|pod| made.contains(pod.metadata.uid.as_deref().unwrap_or_default())), "none was replaced");
    cluster.stop().await;
}
