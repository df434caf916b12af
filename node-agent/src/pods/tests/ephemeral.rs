//! Ephemeral containers on a real engine.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debugger_joins_a_running_pod_sees_its_processes_and_ends_with_it() {
    let Some(mut node) = Node::start().await else { return };
    node.api.put_pod("web", "exec sleep 4321", |_| {});
    let pod = node.wait_ready("web").await;
    let restarts = pod["status"]["containerStatuses"][0].clone();
    let look = "cat /proc/1/cmdline; echo; echo looked; exec sleep 1000";
    node.api.change("pods", "web", |pod| {
        pod["spec"]["ephemeralContainers"] = json!([
            { "name": "debug", "image": "hello:v1", "command": ["/bin/sh", "-c", look], "targetContainerName": "app" },
            { "name": "once", "image": "hello:v1", "command": ["/bin/sh", "-c", "echo bye; exit 4"] },
        ]);
    });
    let pod = node
        .wait("web", "with its debuggers", |pod| {
            let statuses = &pod["status"]["ephemeralContainerStatuses"];
            statuses[0]["state"]["running"].is_object() && statuses[1]["state"]["terminated"]["exitCode"] == 4
        })
        .await;
    assert_eq!(pod["status"]["containerStatuses"][0], restarts, "the app container goes on as it was");
    assert_eq!(pod["status"]["ephemeralContainerStatuses"][0]["ready"], false);
    let log = node.wait_logs("default/web/debug", |log| log.ends_with("looked\n")).await;
    assert!(log.starts_with("sleep\0") && log.contains("4321"), "process 1 is the target's: {log:?}");
    node.wait_logs("default/web/once", |log| log == "bye\n").await;

    node.stop_agent(Teardown::Keep).await;
    node.start_agent().await;
    node.api.delete_gracefully("web", 1);
    node.wait_gone("web").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.containers().await > 0 {
        assert!(Instant::now() < deadline, "the debuggers do not go with the pod");
        tokio::task::yield_now().await;
    }
    node.stop_agent(Teardown::Remove).await;
}
