//! Pods that the node rejects, on a runtime in memory.

use serde_json::json;

use super::*;

const TAKEN: &str = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
const NOT_SELECTED: &str = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";

fn on_port(pod: &mut Value) {
    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 80, "hostPort": 21017 }]);
}

fn selecting(disk: &str) -> impl Fn(&mut Value) {
    move |pod| pod["spec"]["nodeSelector"] = json!({ "disk": disk })
}

/// Waits until the pod is rejected for this reason.
async fn wait_rejected(node: &Node, name: &str, reason: &str, message: &str) {
    let pod = node.wait(name, "Failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], reason);
    assert_eq!(pod["status"]["message"], format!("Pod was rejected: {message}"));
    assert_eq!(node.wait_event(reason).await, message);
}

#[tokio::test]
async fn a_pod_whose_host_port_another_has_fails_until_that_one_is_gone() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put_pod("test-pod", "", on_port);
    node.wait_ready("test-pod").await;
    node.api.put_pod("ss-0", "", on_port);
    wait_rejected(&node, "ss-0", "NodePorts", TAKEN).await;
    assert_eq!(runtime.calls("create_sandbox"), ["test-pod"]);
    node.api.remove("pods", "ss-0");
    // As a deletion without a grace period: the port is free at once.
    node.api.remove("pods", "test-pod");
    node.api.put_pod("ss-0", "", on_port);
    node.wait_ready("ss-0").await;
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test]
async fn pods_that_ran_before_their_agent_was_replaced_run_on() {
    let (mut node, _runtime) = Node::in_memory().await;
    node.api.put("nodes", "n1", json!({ "metadata": { "labels": { "disk": "fast" } } }));
    node.api.put_pod("a", "", selecting("fast"));
    node.wait_ready("a").await;
    node.stop_agent(Teardown::Keep).await;
    std::fs::remove_file(node.data.path().join("node/last-known/allocations.json")).unwrap();
    node.api.put("nodes", "n1", json!({ "metadata": { "labels": { "disk": "slow" } } }));
    node.start_agent().await;
    node.api.put_pod("b", "", selecting("fast"));
    wait_rejected(&node, "b", "NodeAffinity", NOT_SELECTED).await;
    node.api.change("pods", "a", |pod| pod["spec"]["containers"][0]["image"] = "other:v1".into());
    node.wait("a", "Ready again", |pod| is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1)
        .await;
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test]
async fn a_label_that_the_watch_of_nodes_has_not_brought_yet_is_asked_for() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.withhold_nodes(true);
    node.api.put_pod("a", "", selecting("fast"));
    node.api.put_pod("deleted", "", selecting("fast"));
    node.api.put_pod("anywhere", "", |_| {});
    node.wait_ready("anywhere").await;
    assert_eq!(runtime.calls("create_sandbox").len(), 1, "undecided pods begin nothing");
    node.api.delete_gracefully("deleted", 30);
    node.wait_gone("deleted").await;
    node.api.put("nodes", "n1", json!({ "metadata": { "labels": { "disk": "fast" } } }));
    node.api.withhold_nodes(false);
    node.wait_ready("a").await;
    node.api.put_pod("b", "", selecting("slow"));
    wait_rejected(&node, "b", "NodeAffinity", NOT_SELECTED).await;
    node.stop_agent(Teardown::Remove).await;
}
