//! An agent that starts while the API is away runs the pods that the node last knew.

use serde_json::json;

use super::*;

/// A node whose agent has run `web`, which names a ConfigMap, a Secret and an absent ConfigMap, and was stopped; the
/// API is away.
async fn node_without_api() -> (Node, Arc<FakeRuntime>) {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put("configmaps", "settings", json!({ "data": { "colour": "red" } }));
    node.api.put("secrets", "keys", json!({ "data": { "pass": "d29yZA==" }, "type": "Opaque" }));
    node.api.put_pod("web", "", |pod| {
        pod["spec"]["volumes"] = json!([{ "name": "settings", "configMap": { "name": "settings" } }]);
        pod["spec"]["containers"][0]["envFrom"] =
            json!([{ "secretRef": { "name": "keys" } }, { "configMapRef": { "name": "none", "optional": true } }]);
    });
    node.wait_ready("web").await;
    node.stop_agent(Teardown::Keep).await;
    node.api.set(Presence::Fails);
    (node, runtime)
}

/// The machine starts again: what ran has ended.
fn reboot(runtime: &FakeRuntime) {
    for id in runtime.ids() {
        runtime.exit(&id, 137);
    }
}

/// Waits until `condition` holds.
async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "never {what}");
        tokio::task::yield_now().await;
    }
}

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

fn colour(node: &Node, pod: &Value) -> String {
    let directory = node.data.path().join("node/pods").join(pod["metadata"]["uid"].as_str().unwrap());
    std::fs::read_to_string(directory.join("volumes/settings/colour")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_the_pods_come_up_from_what_the_node_last_knew() {
    for presence in [Presence::Fails, Presence::Hangs] {
        let (mut node, runtime) = node_without_api().await;
        node.api.set(presence);
        reboot(&runtime);
        let writes = node.api.status_writes();
        let pod = node.api.get("pods", "default", "web").unwrap();
        // The reboot emptied what was in memory.
        std::fs::remove_dir_all(node.data.path().join("node/pods")).unwrap();
        node.start_agent().await;
        wait_until("started", || runtime.calls("create_container").len() == 2).await;
        let app = runtime.id("app").unwrap();
        runtime.wait_call("start", |id| id == app).await;
        assert_eq!(colour(&node, &pod), "red");
        assert_eq!(node.api.status_writes(), writes, "the API is away");
        node.api.set(Presence::Serves);
        node.wait("web", "restarted", |pod| is_ready(pod) && restarts(pod) == 1).await;
        assert_eq!(runtime.calls("create_container").len(), 2);
        node.stop_agent(Teardown::Remove).await;
        assert!(
            !node.data.path().join("node/last-known/pods.json").exists(),
            "a node that is taken down knows nothing"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_takes_over_what_runs_and_removes_nothing_of_others() {
    use crate::runtime::{ContainerOwner, PodRef, Role};
    let (mut node, runtime) = node_without_api().await;
    // A pod that the node does not know: bound to it while no agent ran, or forgotten on disk.
    let pod = PodRef { namespace: "default".into(), name: "other".into(), uid: "other".into() };
    let other = runtime.add(ContainerOwner { pod, role: Role::Sandbox, attempt: 0 });
    node.start_agent().await;
    let pod = node.api.get("pods", "default", "web").unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let workers = node.pods.as_ref().unwrap().workers.clone();
    wait_until("taken over", || {
        workers.all().iter().any(|worker| {
            let status = serde_json::to_value(&worker.view().status).unwrap();
            worker.pod().uid == uid && is_ready(&json!({ "status": status }))
        })
    })
    .await;
    // Two lists of the runtime that show containers without a pod have them removed, where the pods are known.
    let lists = runtime.calls("summaries").len();
    wait_until("listed", || runtime.calls("summaries").len() > lists + 3).await;
    assert!(runtime.ids().contains(&other));
    assert_eq!(runtime.calls("remove"), [] as [String; 0]);
    assert_eq!(runtime.calls("create_sandbox").len(), 1, "nothing is started again");
    node.api.set(Presence::Serves);
    runtime.wait_call("remove", |id| id == other).await;
    node.wait_ready("web").await;
    assert_eq!(runtime.calls("create_container").len(), 1);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_was_deleted_meanwhile_goes_away_when_the_api_answers() {
    let (mut node, runtime) = node_without_api().await;
    reboot(&runtime);
    node.api.remove("pods", "web");
    node.start_agent().await;
    wait_until("started", || runtime.calls("create_container").len() == 2).await;
    node.api.set(Presence::Serves);
    wait_until("removed", || runtime.ids().is_empty()).await;
    node.stop_agent(Teardown::Keep).await;
    // It is not known any more either.
    node.api.set(Presence::Fails);
    node.start_agent().await;
    assert_eq!(node.pods.as_ref().unwrap().context.kept.pods(), []);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_was_deleted_meanwhile_is_not_started_where_the_api_answers() {
    let (mut node, runtime) = node_without_api().await;
    reboot(&runtime);
    node.api.remove("pods", "web");
    node.api.set(Presence::Serves);
    node.start_agent().await;
    wait_until("removed", || runtime.ids().is_empty()).await;
    assert_eq!(runtime.calls("create_container").len(), 1);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_starts_no_pod() {
    let (mut node, runtime) = node_without_api().await;
    reboot(&runtime);
    let file = node.data.path().join("node/last-known/pods.json");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    node.start_agent().await;
    let lists = runtime.calls("summaries").len();
    wait_until("listed", || runtime.calls("summaries").len() > lists + 3).await;
    assert_eq!(node.pods.as_ref().unwrap().workers.all().len(), 0);
    assert_eq!((runtime.calls("create_container").len(), runtime.calls("remove").len()), (1, 0));
    node.api.set(Presence::Serves);
    node.wait("web", "restarted", |pod| is_ready(pod) && restarts(pod) == 1).await;
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_updated_config_map_replaces_the_kept_one() {
    let (mut node, runtime) = node_without_api().await;
    reboot(&runtime);
    let pod = node.api.get("pods", "default", "web").unwrap();
    node.api.put("configmaps", "settings", json!({ "data": { "colour": "blue" } }));
    std::fs::remove_dir_all(node.data.path().join("node/pods")).unwrap();
    node.start_agent().await;
    wait_until("red", || colour(&node, &pod) == "red").await;
    node.api.set(Presence::Serves);
    wait_until("blue", || colour(&node, &pod) == "blue").await;
    node.stop_agent(Teardown::Keep).await;
    // And is what is known the next time.
    node.api.set(Presence::Fails);
    std::fs::remove_dir_all(node.data.path().join("node/pods")).unwrap();
    reboot(&runtime);
    node.start_agent().await;
    wait_until("blue", || colour(&node, &pod) == "blue").await;
    node.api.set(Presence::Serves);
    node.wait_ready("web").await;
    node.stop_agent(Teardown::Remove).await;
}
