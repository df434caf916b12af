//! From a Pod in the API to containers, and back to nothing.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_becomes_ready_and_its_deletion_leaves_nothing() {
    let Some(mut node) = Node::start().await else { return };
    let began = Instant::now();
    node.api.put_pod("web", "echo hello; exec sleep 1000", |_| {});
    let pod = node.wait_ready("web").await;
    eprintln!("ready after {:?} and {} status writes", began.elapsed(), node.api.status_writes());
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    let container = &pod["status"]["containerStatuses"][0];
    assert!(container["containerID"].as_str().unwrap().starts_with("docker://"), "{container}");
    assert!(container["imageID"].as_str().unwrap().contains("sha256:"), "{container}");
    assert_eq!(container["restartCount"], 0);
    assert_eq!(node.logs("default/web/app").await, "hello\n");
    assert_eq!(node.wait_event("Started").await, "Started container app");

    let began = Instant::now();
    node.api.delete_gracefully("web", 1);
    node.wait_gone("web").await;
    eprintln!("gone after {:?}", began.elapsed());
    node.stop_agent(Teardown::Remove).await;
    assert_eq!(node.containers().await, 0);
    assert!(node.network.attached.lock().is_empty());
}
