//! Resizes of running containers: on a real engine, and on a runtime in memory where the node is full.

use std::process::Command;

use serde_json::json;

use super::*;

impl Node {
    /// Memory, quota and weight that the engine gives the running container `app` of the pod.
    fn limits(&self, pod: &str) -> String {
        let engine = self.engine.as_ref().expect("an engine");
        let format = "{{.HostConfig.Memory}} {{.HostConfig.CpuQuota}} {{.HostConfig.CpuShares}}";
        let pod = self.api.get("pods", "default", pod).expect("the pod is there");
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned();
        let id = id.strip_prefix("docker://").unwrap();
        let inspect = Command::new("docker").args(["-H", &engine.host(), "inspect", "--format", format, id]).output();
        String::from_utf8(inspect.unwrap().stdout).unwrap().trim().to_owned()
    }

    async fn wait_resized(&self, name: &str, cpu: &str, memory: &str) -> Value {
        self.wait(name, "resized", |pod| {
            let container = &pod["status"]["containerStatuses"][0];
            let limits = &container["resources"]["limits"];
            limits["cpu"] == cpu
                && limits["memory"] == memory
                && condition(pod, "PodResizeInProgress").is_none()
                && condition(pod, "PodResizePending").is_none()
                && is_ready(pod)
        })
        .await
    }

    fn resize(&self, name: &str, generation: i64, cpu: &str, memory: &str) {
        self.api.change("pods", name, |pod| {
            pod["metadata"]["generation"] = generation.into();
            pod["spec"]["containers"][0]["resources"] = resources(cpu, memory);
        });
    }
}

fn resources(cpu: &str, memory: &str) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": memory });
    json!({ "requests": amounts, "limits": amounts })
}

fn put(node: &Node, name: &str, policy: Value) {
    node.api.put_pod(name, "trap 'exit 0' TERM; while :; do sleep 0.1; done", |pod| {
        pod["metadata"]["generation"] = 1.into();
        pod["spec"]["restartPolicy"] = "OnFailure".into();
        pod["spec"]["containers"][0]["resources"] = resources("100m", "32Mi");
        pod["spec"]["containers"][0]["resizePolicy"] = policy;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_container_gets_what_its_pod_asks_for_without_a_restart() {
    let Some(mut node) = Node::start().await else { return };
    put(&node, "web", json!([]));
    node.wait_ready("web").await;
    assert_eq!(node.limits("web"), format!("{} 10000 102", 32 << 20));

    node.resize("web", 2, "200m", "48Mi");
    let pod = node.wait_resized("web", "200m", "48Mi").await;
    assert_eq!(node.limits("web"), format!("{} 20000 204", 48 << 20));
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!((&container["restartCount"], &container["allocatedResources"]["cpu"]), (&json!(0), &json!("200m")));
    assert!(node.wait_event("ResizeStarted").await.starts_with("Pod resize started: {"));
    assert!(node.wait_event("ResizeCompleted").await.contains("\"generation\":2"));

    // Less than it uses: refused before anything is changed, and taken back.
    node.resize("web", 3, "100m", "16Ki");
    let refused = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().find(|condition| condition["type"] == "PodResizeInProgress").cloned();
        told.is_some_and(|told| {
            told["reason"] == "Error"
                && told["message"].as_str().is_some_and(|text| text.contains("below current usage ("))
        })
    };
    let pod = node.wait("web", "refused", refused).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["resources"]["limits"]["memory"], "48Mi");
    assert!(node.wait_event("ResizeError").await.contains("memory limit (16384) below current usage"));
    assert_eq!(node.limits("web"), format!("{} 20000 204", 48 << 20));

    // What was allocated while no agent ran is made so by the next.
    node.stop_agent(Teardown::Keep).await;
    node.resize("web", 4, "50m", "32Mi");
    node.start_agent().await;
    let pod = node.wait_resized("web", "50m", "32Mi").await;
    assert_eq!(node.limits("web"), format!("{} 5000 51", 32 << 20));
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_policy_asks_for_it_is_restarted_with_the_new_resources() {
    let Some(mut node) = Node::start().await else { return };
    put(&node, "web", json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]));
    let before = node.wait_ready("web").await["status"]["containerStatuses"][0]["containerID"].clone();
    node.resize("web", 2, "100m", "48Mi");
    let pod = node.wait_resized("web", "100m", "48Mi").await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_ne!(container["containerID"], before);
    assert_eq!(pod["status"]["phase"], "Running", "it ended with 0, and the pod does not restart what succeeds");
    assert_eq!(node.limits("web"), format!("{} 10000 102", 48 << 20));
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test]
async fn a_resize_that_does_not_fit_waits_for_room_and_one_that_never_fits_says_so() {
    let (mut node, runtime) = Node::in_memory().await;
    let cores = i64::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    let most = format!("{}m", cores * 1000 - 50);
    put(&node, "a", json!([]));
    put(&node, "b", json!([]));
    node.wait_ready("a").await;
    node.wait_ready("b").await;
    node.resize("a", 2, &most, "32Mi");
    let pending = |reason: &'static str| {
        move |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "PodResizePending" && one["reason"] == reason)
        }
    };
    let pod = node.wait("a", "deferred", pending("Deferred")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "100m");
    assert!(node.wait_event("ResizeDeferred").await.contains("Node didn't have enough resource: cpu"));
    // An agent that is started meanwhile grants it no sooner.
    node.stop_agent(Teardown::Keep).await;
    node.start_agent().await;
    node.wait("a", "deferred still", pending("Deferred")).await;
    assert_eq!(runtime.calls("update"), Vec::<String>::new());

    node.resize("b", 2, &format!("{}m", cores * 1000 + 1), "32Mi");
    node.wait("b", "infeasible", pending("Infeasible")).await;
    node.api.delete_gracefully("b", 0);
    node.wait_gone("b").await;
    node.wait_resized("a", &most, "32Mi").await;
    let id = runtime.id("app").unwrap();
    runtime.wait_call("update", |call| call.starts_with(&id) && call.contains("quota=")).await;
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test]
async fn a_pod_that_does_not_fit_the_node_fails_and_one_that_runs_already_does_not() {
    let (mut node, runtime) = Node::in_memory().await;
    let cores = std::thread::available_parallelism().unwrap().get();
    put(&node, "a", json!([]));
    node.wait_ready("a").await;
    let asking_all = |pod: &mut Value| {
        pod["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": cores.to_string() } });
    };
    node.api.put_pod("b", "true", asking_all);
    let pod = node.wait("b", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    let words = format!(
        "Pod was rejected: Node didn't have enough resource: cpu, requested: {0}, used: 100, capacity: {0}",
        cores * 1000
    );
    assert_eq!((&pod["status"]["reason"], &pod["status"]["message"]), (&json!("OutOfcpu"), &json!(words)));
    assert_eq!(node.wait_event("OutOfcpu").await, words.strip_prefix("Pod was rejected: ").unwrap());
    assert_eq!(runtime.calls("create_sandbox"), ["a"]);
    node.api.delete_gracefully("b", 0);
    node.wait_gone("b").await;
    // Room is there as soon as the pod that had it has left.
    node.api.delete_gracefully("a", 0);
    node.wait_gone("a").await;
    node.api.put_pod("c", "while :; do sleep 0.1; done", asking_all);
    node.wait_ready("c").await;
    // An agent that knows of no allocation fails none that runs.
    node.stop_agent(Teardown::Keep).await;
    std::fs::remove_file(node.data.path().join("node/last-known/allocations.json")).unwrap();
    node.start_agent().await;
    node.api.change("pods", "c", |pod| pod["metadata"]["labels"] = json!({ "seen": "again" }));
    node.resize("c", 2, "100m", "32Mi");
    let pod = node.wait_resized("c", "100m", "32Mi").await;
    assert_eq!(pod["status"]["phase"], "Running");
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test]
async fn what_is_allocated_is_on_disk_before_the_runtime_is_asked() {
    let (mut node, runtime) = Node::in_memory().await;
    put(&node, "a", json!([]));
    node.wait_ready("a").await;
    node.resize("a", 2, "200m", "32Mi");
    let id = runtime.id("app").unwrap();
    runtime.wait_call("update", |call| call.starts_with(&id)).await;
    let kept = std::fs::read_to_string(node.data.path().join("node/last-known/allocations.json")).unwrap();
    assert!(kept.contains("\"200m\""), "{kept}");
    node.stop_agent(Teardown::Remove).await;
}
