//! Pods that make room for others of a higher priority.

use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget, scheduling::v1::PriorityClass};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{Cluster, create, create_in_default};

fn pod(name: &str, class: &str, cpu: &str, finalizers: Value) -> Value {
    json!({ "metadata": { "name": name, "labels": { "app": name }, "finalizers": finalizers }, "spec": {
        "priorityClassName": class,
        "containers": [{ "name": "c", "image": "one", "resources": { "requests": { "cpu": cpu } } }] } })
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn nominated(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref()
}

fn is_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_told = conditions.iter().any(|condition| {
        condition.type_ == "DisruptionTarget"
            && condition.reason.as_deref() == Some("PreemptionByScheduler")
            && condition.message.as_deref()
                == Some("default-scheduler: preempting to accommodate a higher priority pod")
    });
    is_told && pod.metadata.deletion_timestamp.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_important_pod_without_a_budget_goes_and_its_room_is_kept() {
    let cluster = Cluster::start(1).await;
    for (name, value) in [("low", 1), ("high", 100)] {
        create::<PriorityClass>(&cluster.client, "", json!({ "metadata": { "name": name }, "value": value })).await;
    }
    let pods = cluster.api::<Pod>();
    create_in_default(&pods, pod("free", "low", "4", json!(["example.com/kept"]))).await;
    create_in_default(&pods, pod("guarded", "low", "4", json!([]))).await;
    cluster.wait::<Pod>("free", "bound", |pod| node(pod).is_some()).await;
    cluster.wait::<Pod>("guarded", "bound", |pod| node(pod).is_some()).await;
    let budgets = cluster.api::<PodDisruptionBudget>();
    let budget = json!({ "metadata": { "name": "guarded" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "guarded" } } } });
    create_in_default(&budgets, budget).await;
    let status = json!({ "status": { "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1,
        "expectedPods": 1 } });
    budgets.patch_status("guarded", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");

    create_in_default(&pods, pod("preemptor", "high", "4", json!([]))).await;
    cluster.wait::<Pod>("free", "preempted", is_preempted).await;
    let waiting = cluster.wait::<Pod>("preemptor", "nominated", |pod| nominated(pod) == Some("n1")).await;
    assert_eq!(node(&waiting), None, "its victim is not gone yet");
    create_in_default(&pods, pod("late", "low", "4", json!([]))).await;
    let refused = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|condition| condition.reason.as_deref() == Some("Unschedulable"))
    };
    cluster.wait::<Pod>("late", "refused", refused).await;

    let let_go = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    pods.patch("free", &PatchParams::default(), &let_go).await.expect("let go");
    let bound = cluster.wait::<Pod>("preemptor", "bound", |pod| node(pod) == Some("n1")).await;
    assert_eq!(nominated(&bound), None, "the binding ends the nomination");
    let guarded = pods.get("guarded").await.expect("still there");
    assert!(guarded.metadata.deletion_timestamp.is_none() && node(&pods.get("late").await.expect("there")).is_none());
    cluster.stop().await;
}
