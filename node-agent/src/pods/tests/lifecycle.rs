//! From a Pod in the API to containers, and back to nothing.

use serde_json::json;

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
    node.wait_logs("default/web/app", |log| log == "hello\n").await;
    assert_eq!(node.wait_event("Started").await, "Started container app");

    let began = Instant::now();
    node.api.delete_gracefully("web", 1);
    node.wait_gone("web").await;
    eprintln!("gone after {:?}", began.elapsed());
    node.stop_agent(Teardown::Remove).await;
    assert_eq!(node.containers().await, 0);
    assert!(node.network.attached.lock().is_empty());
}

fn waiting(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_ends_is_restarted_with_back_off_and_its_last_log_is_kept() {
    let Some(mut node) = Node::start().await else { return };
    node.api.put_pod("crash", "echo again; echo why > /dev/termination-log; exit 3", |_| {});
    let pod = node.wait("crash", "in CrashLoopBackOff", |pod| waiting(pod) == "CrashLoopBackOff").await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(container["lastState"]["terminated"]["message"], "why\n");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    let message = container["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("back-off 10s restarting failed container=app pod=crash_default("), "{message}");
    node.wait_logs("default/crash/app", |log| log == "again\n").await;
    node.wait_logs("default/crash/app?previous=true", |log| log == "again\n").await;
    assert!(
        node.wait_event("BackOff").await.starts_with("Back-off restarting failed container app in pod crash_default(")
    );
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_do_not_restart_end_succeeded_or_failed_and_keep_their_logs() {
    let Some(mut node) = Node::start().await else { return };
    node.api.put_pod("good", "echo done", |pod| pod["spec"]["restartPolicy"] = "Never".into());
    node.api.put_pod("bad", "exit 1", |pod| pod["spec"]["restartPolicy"] = "Never".into());
    node.api.put_pod("late", "exec sleep 1000", |pod| {
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["spec"]["activeDeadlineSeconds"] = 1.into();
        pod["spec"]["terminationGracePeriodSeconds"] = 0.into();
    });
    let phase = |wanted: &'static str| move |pod: &Value| pod["status"]["phase"] == wanted;
    let pod = node.wait("good", "Succeeded", phase("Succeeded")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    node.wait("bad", "Failed", phase("Failed")).await;
    let pod = node.wait("late", "Failed", phase("Failed")).await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    node.wait_logs("default/good/app", |log| log == "done\n").await;
    node.api.delete_gracefully("good", 30);
    node.wait_gone("good").await;
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_containers_run_one_after_the_other_and_sidecars_beside_what_follows() {
    let Some(mut node) = Node::start().await else { return };
    let container = |name: &str, command: &str| {
        let mounts = serde_json::json!([{ "name": "shared", "mountPath": "/shared" }]);
        serde_json::json!({ "name": name, "image": "hello:v1", "command": ["/bin/sh", "-c", command], "volumeMounts": mounts })
    };
    node.api.put_pod("init", "", |pod| {
        let mut sidecar = container("side", "echo side >> /shared/log; exec sleep 1000");
        sidecar["restartPolicy"] = "Always".into();
        pod["spec"]["volumes"] = serde_json::json!([{ "name": "shared", "emptyDir": {} }]);
        pod["spec"]["initContainers"] = serde_json::json!([
            container("one", "echo one >> /shared/log"),
            sidecar,
            container("two", "while ! test -s /shared/log; do :; done; echo two >> /shared/log")
        ]);
        pod["spec"]["containers"] = serde_json::json!([container("app", "cat /shared/log; exec sleep 1000")]);
    });
    let pod = node.wait_ready("init").await;
    assert_eq!(condition(&pod, "Initialized"), Some("True"));
    let statuses = &pod["status"]["initContainerStatuses"];
    assert_eq!(statuses[0]["state"]["terminated"]["exitCode"], 0);
    assert!(statuses[1]["state"]["running"].is_object(), "{statuses}");
    node.wait_logs("default/init/app", |log| log.starts_with("one\n") && log.ends_with("two\n")).await;

    node.api.put_pod("stuck", "exec sleep 1000", |pod| {
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["spec"]["initContainers"] =
            serde_json::json!([{ "name": "no", "image": "hello:v1", "command": ["/bin/false"] }]);
    });
    let pod = node.wait("stuck", "Failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(condition(&pod, "Initialized"), Some("False"));
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_had_is_named_as_the_reason() {
    let Some(mut node) = Node::start().await else { return };
    let image = |policy: &'static str, image: &'static str| {
        move |pod: &mut Value| {
            pod["spec"]["containers"][0]["image"] = image.into();
            pod["spec"]["containers"][0]["imagePullPolicy"] = policy.into();
        }
    };
    node.api.put_pod("never", "", image("Never", "none:v1"));
    node.api.put_pod("pull", "", image("IfNotPresent", "localhost:1/none:v1"));
    node.api.put_pod("full", "exec sleep 1000", image("Never", "docker.io/library/hello:v1"));
    node.wait("never", "ErrImageNeverPull", |pod| waiting(pod) == "ErrImageNeverPull").await;
    node.wait("pull", "ErrImagePull", |pod| waiting(pod) == "ErrImagePull").await;
    node.wait("pull", "ImagePullBackOff", |pod| waiting(pod) == "ImagePullBackOff").await;
    node.wait_ready("full").await;
    assert!(node.logs("default/pull/app").await.contains("is waiting to start: "));
    for name in ["never", "pull", "full"] {
        node.api.delete_gracefully(name, 0);
        node.wait_gone(name).await;
    }
    node.stop_agent(Teardown::Remove).await;
    assert_eq!(node.containers().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_gets_its_hook_its_signal_and_its_grace() {
    let Some(mut node) = Node::start().await else { return };
    let host = tempfile::tempdir().unwrap();
    let path = host.path().display().to_string();
    node.api.put_pod("polite", "trap 'echo term >> /host/log; exit 0' TERM; while :; do sleep 1 & wait $!; done", |pod| {
        pod["spec"]["volumes"] = serde_json::json!([{ "name": "host", "hostPath": { "path": path } }]);
        pod["spec"]["containers"][0]["volumeMounts"] = serde_json::json!([{ "name": "host", "mountPath": "/host" }]);
        let hook = |text: &str| serde_json::json!({ "exec": { "command": ["/bin/sh", "-c", format!("echo {text} >> /host/log")] } });
        pod["spec"]["containers"][0]["lifecycle"] = serde_json::json!({ "postStart": hook("post"), "preStop": hook("pre") });
    });
    node.wait_ready("polite").await;
    let mut changes = node.api.changes();
    node.api.delete_gracefully("polite", 30);
    node.wait_gone("polite").await;
    let mut last_phase = Value::Null;
    while let Ok((resource, _, object)) = changes.try_recv() {
        if resource == "pods" {
            last_phase = object["status"]["phase"].clone();
        }
    }
    assert_eq!(last_phase, "Succeeded", "the last status is written before the pod goes");
    assert_eq!(std::fs::read_to_string(host.path().join("log")).unwrap(), "post\npre\nterm\n");

    node.api.put_pod("forced", "exec sleep 1000", |_| {});
    node.wait_ready("forced").await;
    node.api.remove("pods", "forced");
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.containers().await > 0 {
        assert!(Instant::now() < deadline, "what was removed by force still runs");
    }
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_limit_that_the_runtime_refuses_is_said_and_the_pod_waits() {
    let Some(mut node) = Node::start().await else { return };
    node.api.put_pod("small", "exec sleep 1000", |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "4Mi" } });
    });
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let pod = node.wait("small", "refused", |pod| waiting(pod)["reason"] == "CreateContainerError").await;
    let (message, least) = (waiting(&pod)["message"].to_string(), "Minimum memory limit allowed is 6MB");
    assert!(message.contains(least), "{message}");
    assert_eq!(pod["status"]["phase"], "Pending");
    let event = node.wait_event("Failed").await;
    assert!(event.starts_with("Error: ") && event.contains(least), "{event}");
    node.api.delete_gracefully("small", 0);
    node.wait_gone("small").await;
    node.stop_agent(Teardown::Remove).await;
}
