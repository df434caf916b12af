//! The controller over an API that refuses.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::Value;

use super::*;
use crate::{
    controllers::fixtures::{api, list},
    objects::informers::Informers,
};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("valid")
}

fn node() -> Node {
    read(json!({"metadata": {"name": "n", "uid": "n"}, "status": {"conditions": [
        {"type": "Ready", "status": "Unknown", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}}))
}

fn ready_pod(name: &str) -> Pod {
    read(json!({"metadata": {"namespace": "default", "name": name, "uid": name},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
}

/// A controller that knows one lost node with three ready pods, and whose nth request is answered so.
async fn controller(answer: impl Fn(usize) -> u16 + Clone + Send + Sync + 'static) -> Arc<Controller> {
    let informers = Informers::new();
    list(&informers.nodes, [node()]).await;
    list(&informers.pods, ["a", "b", "c"].map(ready_pod)).await;
    let grace = Duration::from_secs(40);
    Arc::new(Controller {
        client: api(answer),
        nodes: informers.nodes.clone(),
        pods: informers.pods.clone(),
        recorder: Recorder::silent(),
        grace,
        heartbeats: Arc::new(Mutex::new(Heartbeats::new(grace, Instant::now()))),
        disruption: Mutex::default(),
        ceased: Mutex::default(),
    })
}

#[tokio::test]
async fn a_pod_that_is_refused_does_not_keep_the_others_ready() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let controller = controller(move |nth| {
        counted.fetch_add(1, SeqCst);
        if nth == 0 { 500 } else { 200 }
    })
    .await;
    let failure = controller.mark_pods_not_ready(&Key::cluster("n")).await.expect_err("one was refused");
    assert!(matches!(failure, Failure::Request { .. }), "{failure}");
    assert_eq!(asked.load(SeqCst), 3);
}

#[tokio::test]
async fn the_timer_of_a_node_stands_though_its_taints_or_pods_are_refused() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let controller = controller(move |_| {
        counted.fetch_add(1, SeqCst);
        500
    })
    .await;
    match controller.reconcile(Key::cluster("n")).await {
        Err(Failure::BeforeTimer { timer, .. }) => assert!(timer <= Duration::from_secs(40), "{timer:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(asked.load(SeqCst), 4, "its taints, and all of its pods");
}
