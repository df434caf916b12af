//! The agent and the engine end and come back.

use super::*;

fn container_id(pod: &Value) -> String {
    pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_adopts_what_runs_and_removes_what_lost_its_pod() {
    let Some(mut node) = Node::start().await else { return };
    for name in ["stays", "goes", "ended"] {
        let command = if name == "ended" { "exit 0" } else { "exec sleep 1000" };
        node.api.put_pod(name, command, |pod| pod["spec"]["restartPolicy"] = "Never".into());
    }
    let before = node.wait_ready("stays").await;
    node.wait_ready("goes").await;
    node.wait("ended", "Succeeded", |pod| pod["status"]["phase"] == "Succeeded").await;
    node.stop_agent(Teardown::Keep).await;
    node.api.remove("pods", "goes");
    let writes = node.api.status_writes();
    node.start_agent().await;
    let gone = "uid-of-goes-".to_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.runtime.list().await.unwrap().iter().any(|container| container.owner.pod.uid.starts_with(&gone)) {
        assert!(Instant::now() < deadline, "the container of a pod that is gone still runs");
    }
    let after = node.wait_ready("stays").await;
    assert_eq!(container_id(&after), container_id(&before));
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(node.logs("default/stays/app").await, "");
    assert_eq!(node.api.get("pods", "default", "ended").unwrap()["status"]["phase"], "Succeeded");
    assert_eq!(node.api.status_writes(), writes, "nothing has changed, so nothing is written");

    // It is still the pod's own agent: an end is seen, a deletion done.
    node.api.delete_gracefully("stays", 0);
    node.wait_gone("stays").await;
    node.api.delete_gracefully("ended", 0);
    node.wait_gone("ended").await;
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_back_after_the_engine_was_restarted() {
    let Some(mut node) = Node::start().await else { return };
    node.api.put_pod("web", "exec sleep 1000", |_| {});
    let before = node.wait_ready("web").await;
    let engine = node.engine.clone().expect("the node runs on an engine");
    tokio::task::spawn_blocking(move || engine.restart()).await.unwrap();
    let restarted = |pod: &Value| is_ready(pod) && container_id(pod) != container_id(&before);
    let pod = node.wait("web", "Ready in a new container", restarted).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    node.api.delete_gracefully("web", 0);
    node.wait_gone("web").await;
    node.stop_agent(Teardown::Remove).await;
    assert_eq!(node.containers().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_is_killed_takes_its_pod_along_to_a_new_one() {
    let Some(mut node) = Node::start().await else { return };
    node.api.put_pod("web", "exec sleep 1000", |pod| pod["spec"]["terminationGracePeriodSeconds"] = 0.into());
    let before = node.wait_ready("web").await;
    let containers = node.runtime.list().await.unwrap();
    let sandbox = containers.iter().find(|container| container.owner.role == crate::runtime::Role::Sandbox).unwrap();
    node.runtime.remove(&sandbox.id).await.unwrap();
    node.wait("web", "Ready in a new container", |pod| is_ready(pod) && container_id(pod) != container_id(&before))
        .await;
    node.stop_agent(Teardown::Remove).await;
}
