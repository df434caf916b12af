//! DaemonSets: a pod on each node, rollouts, rollbacks, and nodes that come, change and go.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet},
    core::v1::{Node, Pod},
};

use super::*;

fn daemon_set(name: &str, patch: Value) -> Value {
    let mut set = json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    for (key, value) in patch.as_object().expect("an object") {
        set["spec"][key] = value.clone();
    }
    set
}

/// What `kubectl rollout status` waits for.
fn rolled_out(nodes: i32) -> impl Fn(&DaemonSet) -> bool {
    move |set| {
        let Some(status) = &set.status else { return false };
        status.observed_generation == set.metadata.generation
            && status.desired_number_scheduled == nodes
            && status.updated_number_scheduled.unwrap_or(0) == nodes
            && status.number_available.unwrap_or(0) == nodes
    }
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

fn image_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default()
}

fn numbers(revisions: &[ControllerRevision]) -> Vec<i64> {
    let mut numbers: Vec<i64> = revisions.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_runs_one_pod_through_rollout_and_rollback() {
    let cluster = Cluster::start(3).await;
    let api = cluster.api::<DaemonSet>();
    create_in_default(&api, daemon_set("d", json!({}))).await;
    cluster.wait::<DaemonSet>("d", "rolled out", rolled_out(3)).await;
    let pods = cluster.wait_list::<Pod>("app=d", "three", |pods| pods.len() == 3).await;
    assert_eq!(pods.iter().map(node_of).collect::<BTreeSet<_>>().len(), 3, "one on each node");
    let first = cluster.wait_list::<ControllerRevision>("app=d", "one", |list| list.len() == 1).await;
    let hash = first[0].metadata.labels.as_ref().expect("labels")["controller-revision-hash"].clone();
    let labels = pods[0].metadata.labels.as_ref().expect("labels");
    assert_eq!((&labels["controller-revision-hash"], &*labels["pod-template-generation"]), (&hash, "1"));

    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    patch(&api, "d", template).await;
    cluster.wait::<DaemonSet>("d", "rolled out", |d| d.metadata.generation == Some(2) && rolled_out(3)(d)).await;
    let all_run =
        |image: &'static str| move |pods: &[Pod]| pods.len() == 3 && pods.iter().all(|pod| image_of(pod) == image);
    cluster.wait_list::<Pod>("app=d", "all new", all_run("two")).await;
    cluster.wait_list::<ControllerRevision>("app=d", "two", |list| numbers(list) == [1, 2]).await;

    // As `kubectl rollout undo` does.
    patch(&api, "d", first[0].data.as_ref().expect("data").0.clone()).await;
    cluster.wait::<DaemonSet>("d", "rolled back", |d| d.metadata.generation == Some(3) && rolled_out(3)(d)).await;
    cluster.wait_list::<Pod>("app=d", "all old", all_run("one")).await;
    cluster.wait_list::<ControllerRevision>("app=d", "renumbered", |list| numbers(list) == [2, 3]).await;

    add_node(&cluster.client, "n4").await;
    cluster.wait::<DaemonSet>("d", "on the fourth node", rolled_out(4)).await;
    api.delete("d", &kube::api::DeleteParams::foreground()).await.expect("deleted");
    cluster.wait_list::<Pod>("app=d", "gone", <[Pod]>::is_empty).await;
    cluster.wait_list::<ControllerRevision>("app=d", "gone", <[ControllerRevision]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_surge_no_node_is_without_a_pod_and_failed_pods_are_replaced() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<DaemonSet>();
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    create_in_default(&api, daemon_set("d", json!({"updateStrategy": strategy, "revisionHistoryLimit": 0}))).await;
    cluster.wait::<DaemonSet>("d", "rolled out", rolled_out(2)).await;
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    patch(&api, "d", template).await;
    cluster.wait::<DaemonSet>("d", "rolled out", |d| d.metadata.generation == Some(2) && rolled_out(2)(d)).await;
    cluster.wait_list::<Pod>("app=d", "two pods", |pods| pods.len() == 2).await;
    cluster.wait_list::<ControllerRevision>("app=d", "no history", |list| numbers(list) == [2]).await;

    // Its kubelet does nothing for pods of this name.
    create_in_default(&api, daemon_set("stuck", json!({}))).await;
    let bound = |pods: &[Pod]| pods.len() == 2 && pods.iter().all(|pod| !node_of(pod).is_empty());
    let pods = cluster.wait_list::<Pod>("app=stuck", "bound", bound).await;
    let victim = pods[0].metadata.clone();
    let failed = json!({"status": {"phase": "Failed"}});
    let name = victim.name.as_deref().expect("a name");
    cluster.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Merge(failed)).await.expect("patched");
    cluster
        .wait_list::<Pod>("app=stuck", "replaced", |pods| {
            pods.len() == 2 && pods.iter().all(|pod| pod.metadata.uid != victim.uid)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_labels_of_nodes_decide_where_pods_run() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<DaemonSet>();
    let mut set = daemon_set("d", json!({}));
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"gpu": "yes"});
    create_in_default(&api, set).await;
    cluster.wait::<DaemonSet>("d", "nowhere", rolled_out(0)).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    patch(&nodes, "n2", json!({"metadata": {"labels": {"gpu": "yes"}}})).await;
    cluster.wait::<DaemonSet>("d", "on one node", rolled_out(1)).await;
    let pods = cluster.wait_list::<Pod>("app=d", "one", |pods| pods.len() == 1).await;
    assert_eq!(node_of(&pods[0]), "n2");
    // Cordoned nodes run daemons all the same.
    patch(&nodes, "n1", json!({"metadata": {"labels": {"gpu": "yes"}}, "spec": {"unschedulable": true}})).await;
    cluster.wait::<DaemonSet>("d", "on both", rolled_out(2)).await;
    patch(&nodes, "n2", json!({"metadata": {"labels": {"gpu": "no"}}})).await;
    cluster.wait_list::<Pod>("app=d", "one", |pods| pods.len() == 1 && node_of(&pods[0]) == "n1").await;
    cluster.stop().await;
}
