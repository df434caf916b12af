//! Volumes on disk that grow beyond their limit.

use serde_json::json;

use super::*;
use crate::pods::{Pods, volume_limits::Measuring};

/// Measures all pods once.
async fn measure(pods: &Pods) {
    let mut measuring = Measuring::default();
    measuring.enqueue(pods.workers.all());
    measuring.begin(&pods.context);
    while !measuring.is_idle() {
        measuring.one_ends().await;
        measuring.begin(&pods.context);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_empty_dir_exceeds_its_limit_is_evicted_and_others_stay() {
    let (mut node, runtime) = Node::in_memory().await;
    for name in ["large", "small", "critical"] {
        node.api.put_pod(name, "", |pod| {
            pod["spec"]["terminationGracePeriodSeconds"] = 600.into();
            pod["spec"]["volumes"] = json!([{ "name": "cache", "emptyDir": { "sizeLimit": "1Mi" } }]);
            pod["spec"]["priority"] = if name == "critical" { json!(2_000_001_000) } else { json!(0) };
        });
        let pod = node.wait_ready(name).await;
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let volume = node.data.path().join("node/pods").join(uid).join("volumes/cache");
        std::fs::write(volume.join("file"), vec![1; if name == "small" { 1 << 10 } else { 2 << 20 }]).unwrap();
    }
    let pods = node.pods.as_ref().unwrap();
    measure(pods).await;
    let pod = node.wait("large", "Failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(pod["status"]["message"], "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ");
    assert_eq!(node.wait_event("Evicted").await, pod["status"]["message"].as_str().unwrap());
    assert!(runtime.calls("stop").iter().any(|call| call.ends_with(" 1")), "killed within a second");
    for name in ["small", "critical"] {
        assert!(is_ready(&node.api.get("pods", "default", name).unwrap()), "{name}");
    }
    measure(pods).await;
    node.stop_agent(Teardown::Remove).await;
}
