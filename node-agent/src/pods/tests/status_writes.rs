//! Writes of statuses and last deletions beside other writers, and to an API that goes away.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_that_others_write_meanwhile_are_kept() {
    let (mut node, _runtime) = Node::in_memory().await;
    node.api.before_status_write(|pod| {
        let conditions = json!([
            { "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI" },
            { "type": "example.com/gate", "status": "True" }]);
        pod["status"]["conditions"] = conditions;
    });
    node.api.put_pod("web", "", |_| {});
    let pod = node.wait_ready("web").await;
    assert_eq!(condition(&pod, "DisruptionTarget"), Some("True"), "{}", pod["status"]);
    assert_eq!(condition(&pod, "example.com/gate"), Some("True"));
    node.stop_agent(Teardown::Remove).await;
}
