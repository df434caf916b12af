//! Nodes that fall silent, come back, or go.

use std::time::Duration;

use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        apps::v1::Deployment,
        coordination::v1::Lease,
        core::v1::{Event, Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use tokio::sync::watch;

use super::{Cluster, PATIENCE, create, create_in_default, deployment};

/// Renews the Lease of a node as an agent does, until it is dropped.
struct Heartbeat {
    task: tokio::task::JoinHandle<()>,
    /// How many were written, and how many the API refused.
    beats: watch::Receiver<(usize, usize)>,
}

impl Heartbeat {
    fn start(cluster: &Cluster, node: &'static str) -> Self {
        let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
        let (sender, beats) = watch::channel((0, 0));
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(300));
            loop {
                beat.tick().await;
                // A Lease tells microseconds.
                let now = format!("{:.6}", Timestamp::now());
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node},
                    "spec": {"holderIdentity": node, "renewTime": now}});
                let lease: Lease = serde_json::from_value(lease).expect("a lease");
                let written = match leases.patch(node, &PatchParams::default(), &Patch::Merge(&lease)).await {
                    Ok(_) => true,
                    Err(_) => leases.create(&Default::default(), &lease).await.is_ok(),
                };
                sender.send_modify(|(accepted, refused)| *(if written { accepted } else { refused }) += 1);
            }
        });
        Self { task, beats }
    }

    /// Waits until so many more were written and refused.
    async fn wait(&self, accepted: usize, refused: usize) {
        let mut beats = self.beats.clone();
        let begin = *beats.borrow();
        let enough = beats.wait_for(|now| now.0 >= begin.0 + accepted && now.1 >= begin.1 + refused);
        tokio::time::timeout(PATIENCE, enough).await.expect("in time").expect("it beats");
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
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
async fn nodes_are_not_lost_because_nobody_could_write_a_heartbeat_for_a_while() {
    let cluster = Cluster::with_grace(2, Duration::from_secs(2)).await;
    let nodes = [Heartbeat::start(&cluster, "n1"), Heartbeat::start(&cluster, "n2")];
    for node in &nodes {
        node.wait(1, 0).await;
    }
    let policy = json!({"metadata": {"name": "no-heartbeats"}, "spec": {"failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{"apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"], "resources": ["leases"]}]},
        "validations": [{"expression": "false"}]}});
    create::<ValidatingAdmissionPolicy>(&cluster.client, "", policy).await;
    let binding = json!({"metadata": {"name": "no-heartbeats"},
        "spec": {"policyName": "no-heartbeats", "validationActions": ["Deny"]}});
    create::<ValidatingAdmissionPolicyBinding>(&cluster.client, "", binding).await;
    // Three times as long as a node may be silent.
    for node in &nodes {
        node.wait(0, 20).await;
    }
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(cluster.client.clone());
    bindings.delete("no-heartbeats", &Default::default()).await.expect("deleted");
    for node in &nodes {
        node.wait(10, 0).await;
    }
    // Nobody would set them back to ready.
    let api: Api<Node> = Api::all(cluster.client.clone());
    for node in api.list(&Default::default()).await.expect("a list") {
        assert_eq!(ready(&node), Some("True"), "{:?}", node.metadata.name);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pods_of_a_node_that_says_it_is_not_ready_are_not_ready() {
    let cluster = Cluster::start(1).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "one"}]}});
    create_in_default(&cluster.api::<Pod>(), pod).await;
    let is_ready = |pod: &Pod, wanted: &str| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == wanted)
    };
    cluster.wait::<Pod>("p", "ready", |pod| is_ready(pod, "True")).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let now = Timestamp::now();
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady",
        "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(status)).await.expect("patched");
    cluster.wait::<Pod>("p", "not ready", |pod| is_ready(pod, "False")).await;
    cluster
        .wait_list::<Event>("", "about the node", |events| {
            let about = |event: &Event| event.involved_object.kind.as_deref() == Some("Node");
            events.iter().any(|event| about(event) && event.reason.as_deref() == Some("NodeNotReady"))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_a_taint_evicts_tells_that_it_was_disrupted() {
    let cluster = Cluster::start(1).await;
    let pod = json!({"metadata": {"name": "p", "finalizers": ["example.com/keep"]},
        "spec": {"containers": [{"name": "c", "image": "one"}]}});
    create_in_default(&cluster.api::<Pod>(), pod).await;
    let bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    cluster.wait::<Pod>("p", "bound", bound).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let taint = json!({"spec": {"taints": [{"key": "maintenance", "effect": "NoExecute"}]}});
    nodes.patch("n1", &PatchParams::default(), &Patch::Strategic(taint)).await.expect("tainted");
    let evicted = cluster.wait::<Pod>("p", "terminating", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let conditions = evicted.status.and_then(|status| status.conditions).unwrap_or_default();
    let target = conditions.iter().find(|condition| condition.type_ == "DisruptionTarget").expect("it tells");
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("DeletionByTaintManager")));
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
