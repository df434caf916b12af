//! Nodes that fall silent, come back, or go.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;

use super::{Cluster, PATIENCE, create_in_default, deployment};

/// Renews the Lease of a node as an agent does, until it is dropped.
struct Heartbeat(tokio::task::JoinHandle<()>);

impl Heartbeat {
    fn start(cluster: &Cluster, node: &'static str) -> Self {
        let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
        Self(tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(300));
            loop {
                beat.tick().await;
                // A Lease tells microseconds.
                let now = format!("{:.6}", Timestamp::now());
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node},
                    "spec": {"holderIdentity": node, "renewTime": now}});
                let lease: Lease = serde_json::from_value(lease).expect("a lease");
                if leases.patch(node, &PatchParams::default(), &Patch::Merge(&lease)).await.is_err() {
                    leases.create(&Default::default(), &lease).await.expect("created");
                }
            }
        }))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn wait_node(cluster: &Cluster, name: &str, is: impl Fn(&Node) -> bool + Send) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let wanted = await_condition(nodes, name, move |node: Option<&Node>| node.is_some_and(&is));
    tokio::time::timeout(PATIENCE, wanted).await.expect("in time").expect("a watch");
}

fn ready(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    Some(conditions.iter().find(|c| c.type_ == "Ready")?.status.as_str())
}

fn tainted(node: &Node) -> Vec<(&str, &str)> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_loses_its_pods_to_the_others_and_is_welcome_when_it_comes_back() {
    let cluster = Cluster::with_grace(2, Duration::from_secs(2)).await;
    let (lost, _alive) = (Heartbeat::start(&cluster, "n1"), Heartbeat::start(&cluster, "n2"));
    let mut web = deployment("web", 4, "one");
    web["spec"]["template"]["spec"]["tolerations"] = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 1}]);
    create_in_default(&cluster.api::<Deployment>(), web).await;
    cluster
        .wait::<Deployment>("web", "available", |d| d.status.as_ref().is_some_and(|s| s.available_replicas == Some(4)))
        .await;
    wait_node(&cluster, "n1", |node| tainted(node).is_empty()).await;

    drop(lost);
    wait_node(&cluster, "n1", |node| ready(node) == Some("Unknown")).await;
    wait_node(&cluster, "n1", |node| {
        let taints = tainted(node);
        [("node.kubernetes.io/unreachable", "NoSchedule"), ("node.kubernetes.io/unreachable", "NoExecute")]
            .iter()
            .all(|taint| taints.contains(taint))
    })
    .await;
    let on = |pod: &Pod, node: &str| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node);
    cluster
        .wait_list::<Pod>("app=web", "all on n2", |pods| pods.len() == 4 && pods.iter().all(|pod| on(pod, "n2")))
        .await;

    let _back = Heartbeat::start(&cluster, "n1");
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let now = Timestamp::now();
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": now,
        "lastTransitionTime": now}]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(status)).await.expect("patched");
    wait_node(&cluster, "n1", |node| ready(node) == Some("True") && tainted(node).is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_most_of_its_nodes_at_once_is_not_emptied() {
    let cluster = Cluster::with_grace(6, Duration::from_secs(2)).await;
    let _alive = (Heartbeat::start(&cluster, "n1"), Heartbeat::start(&cluster, "n2"));
    for lost in ["n3", "n4", "n5", "n6"] {
        wait_node(&cluster, lost, |node| tainted(node).contains(&("node.kubernetes.io/unreachable", "NoSchedule")))
            .await;
    }
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let nodes = nodes.list(&Default::default()).await.expect("a list");
    let evicting = nodes.iter().filter(|node| tainted(node).iter().any(|(_, effect)| *effect == "NoExecute")).count();
    // The first one that is lost looks like a single dead node.
    assert!(evicting <= 1, "{evicting} nodes evict their pods");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminating_pods_of_a_node_that_is_out_of_service_are_removed() {
    let cluster = Cluster::with_grace(1, Duration::from_secs(2)).await;
    let pod = json!({"metadata": {"name": "stuck"}, "spec": {"nodeName": "gone",
        "containers": [{"name": "c", "image": "one"}]}});
    super::add_node(&cluster.client, "gone").await;
    create_in_default(&cluster.api::<Pod>(), pod).await;
    wait_node(&cluster, "gone", |node| ready(node) == Some("Unknown")).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let taint = json!([{"op": "add", "path": "/spec/taints/-",
        "value": {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}}]);
    let taint = Patch::<()>::Json(serde_json::from_value(taint).expect("a patch"));
    wait_node(&cluster, "gone", |node| !tainted(node).is_empty()).await;
    nodes.patch("gone", &PatchParams::default(), &taint).await.expect("tainted");
    let removed = await_condition(cluster.api::<Pod>(), "stuck", |pod: Option<&Pod>| pod.is_none());
    tokio::time::timeout(PATIENCE, removed).await.expect("in time").expect("a watch");
    cluster.stop().await;
}
