//! Probes of running containers.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_its_probe_and_liveness_restarts() {
    let Some(mut node) = Node::start().await else { return };
    let exec = |path: &str, more: Value| {
        let mut probe =
            json!({ "exec": { "command": ["/bin/test", "-e", path] }, "periodSeconds": 1, "failureThreshold": 1 });
        probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        probe
    };
    let host = tempfile::tempdir().unwrap();
    let path = host.path().display().to_string();
    node.api.put_pod("probed", "exec sleep 1000", |pod| {
        pod["spec"]["volumes"] = json!([{ "name": "host", "hostPath": { "path": path, "type": "Directory" } }]);
        pod["spec"]["terminationGracePeriodSeconds"] = 0.into();
        let container = &mut pod["spec"]["containers"][0];
        container["volumeMounts"] = json!([{ "name": "host", "mountPath": "/host" }]);
        container["startupProbe"] = exec("/host/started", json!({ "failureThreshold": 60 }));
        container["readinessProbe"] = exec("/host/ready", json!({}));
        container["livenessProbe"] = exec("/host/started", json!({}));
    });
    let container = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
    let pod = node.wait("probed", "running", |pod| container(pod)["state"]["running"].is_object()).await;
    assert_eq!(container(&pod)["started"], false);
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    assert!(node.wait_event("Unhealthy").await.starts_with("Startup probe failed"));

    std::fs::write(host.path().join("started"), "").unwrap();
    node.wait("probed", "started", |pod| container(pod)["started"] == true).await;
    std::fs::write(host.path().join("ready"), "").unwrap();
    node.wait_ready("probed").await;
    std::fs::remove_file(host.path().join("ready")).unwrap();
    node.wait("probed", "not ready", |pod| condition(pod, "Ready") == Some("False")).await;

    std::fs::remove_file(host.path().join("started")).unwrap();
    node.wait("probed", "restarted", |pod| container(pod)["restartCount"] == 1).await;
    assert_eq!(node.wait_event("Killing").await, "Container app failed liveness probe, will be restarted");
    node.stop_agent(Teardown::Remove).await;
}
