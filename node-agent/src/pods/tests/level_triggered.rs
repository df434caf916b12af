//! Events that are lost, answers that do not come, workers that panic: on a runtime in memory that does so on demand.

use serde_json::json;

use super::*;
use crate::runtime::{ContainerOwner, PodRef, Role, fake::Fault};

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_whose_event_is_lost_is_found_in_the_next_list() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put_pod("web", "", |_| {});
    node.wait_ready("web").await;
    runtime.stop_events();
    runtime.exit(&runtime.id("app").unwrap(), 1);
    node.wait("web", "restarted", |pod| is_ready(pod) && restarts(pod) == 1).await;
    runtime.exit(&runtime.id("sandbox").unwrap(), 137);
    node.wait("web", "in a new sandbox", |pod| is_ready(pod) && restarts(pod) == 2).await;
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_during_the_start_is_not_lost() {
    let (mut node, runtime) = Node::in_memory().await;
    runtime.put(Fault::EndWhileInspected);
    node.api.put_pod("quick", "", |pod| pod["spec"]["restartPolicy"] = "Never".into());
    let pod = node.wait("quick", "Failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_does_not_wait_for_a_hanging_post_start_hook() {
    let (mut node, runtime) = Node::in_memory().await;
    let hook =
        |hook: Value| move |pod: &mut Value| pod["spec"]["containers"][0]["lifecycle"] = json!({ "postStart": hook });
    node.api.put_pod("command", "", hook(json!({ "exec": { "command": ["hang"] } })));
    node.api.put_pod("sleep", "", hook(json!({ "sleep": { "seconds": 86_400 } })));
    runtime.wait_call("exec", |call| call.ends_with("hang")).await;
    node.wait_event("Started").await;
    for name in ["command", "sleep"] {
        node.api.delete_gracefully(name, 1);
        node.wait_gone(name).await;
    }
    assert_eq!(runtime.ids(), [] as [String; 0]);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_is_made_anew_and_its_pod_goes_on() {
    let (mut node, runtime) = Node::in_memory().await;
    runtime.put(Fault::Panic("create_container"));
    node.api.put_pod("web", "", |_| {});
    node.wait_ready("web").await;
    assert_eq!(runtime.calls("create_sandbox").len(), 1, "the sandbox from before the panic is adopted");

    // A deletion during the back-off is not lost.
    runtime.put(Fault::Panic("inspect"));
    runtime.exit(&runtime.id("app").unwrap(), 1);
    runtime.wait_call("inspect", |id| id == runtime.id("app").unwrap_or_default()).await;
    node.api.delete_gracefully("web", 0);
    node.wait_gone("web").await;
    node.stop_agent(Teardown::Remove).await;
    assert_eq!(runtime.ids(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_network_an_agent_cannot_take_over_runs_on_and_is_taken_over_later() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put_pod("web", "", |_| {});
    node.wait_ready("web").await;
    node.stop_agent(Teardown::Keep).await;
    let ids = runtime.ids();
    let network = node.network.clone();
    let [attached, detached] = &network.calls;
    network.refuses.store(true, Ordering::Relaxed);
    let before = attached.load(Ordering::Relaxed);
    node.start_agent().await;
    node.wait_event("NetworkNotReady").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while attached.load(Ordering::Relaxed) < before + 3 {
        assert!(Instant::now() < deadline, "it is tried again");
        tokio::task::yield_now().await;
    }
    assert_eq!((runtime.ids(), detached.load(Ordering::Relaxed)), (ids.clone(), 0));
    assert!(is_ready(&node.api.get("pods", "default", "web").unwrap()));
    let told = || node.api.list("events").iter().filter(|event| event["reason"] == "NetworkNotReady").count();
    assert_eq!(told(), 1);

    network.refuses.store(false, Ordering::Relaxed);
    // Only a sandbox whose address is known is looked after.
    let tried = attached.load(Ordering::Relaxed);
    while attached.load(Ordering::Relaxed) == tried {
        assert!(Instant::now() < deadline + Duration::from_secs(30), "it is tried again");
        tokio::task::yield_now().await;
    }
    runtime.exit(&runtime.id("app").unwrap(), 1);
    node.wait("web", "restarted", |pod| is_ready(pod) && restarts(pod) == 1).await;
    assert_eq!(runtime.calls("create_sandbox").len(), 1);

    // A deletion does not wait for what fails.
    node.stop_agent(Teardown::Keep).await;
    network.refuses.store(true, Ordering::Relaxed);
    node.start_agent().await;
    node.api.delete_gracefully("web", 0);
    node.wait_gone("web").await;
    node.stop_agent(Teardown::Remove).await;
    assert_eq!(runtime.ids(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_went_while_it_could_not_be_taken_over_is_made_anew() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put_pod("web", "", |_| {});
    node.wait_ready("web").await;
    node.stop_agent(Teardown::Keep).await;
    node.network.refuses.store(true, Ordering::Relaxed);
    node.start_agent().await;
    node.wait_event("NetworkNotReady").await;
    runtime.exit(&runtime.id("sandbox").unwrap(), 137);
    node.wait_event("FailedCreatePodSandBox").await;
    node.network.refuses.store(false, Ordering::Relaxed);
    node.wait("web", "in a new sandbox", |pod| is_ready(pod) && restarts(pod) == 1).await;
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_that_panics_is_made_anew_and_takes_over_what_runs() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put_pod("web", "", |_| {});
    node.wait_ready("web").await;
    node.stop_agent(Teardown::Keep).await;
    node.network.panics.store(true, Ordering::Relaxed);
    node.start_agent().await;
    runtime.exit(&runtime.id("app").unwrap(), 1);
    node.wait("web", "restarted", |pod| is_ready(pod) && restarts(pod) == 1).await;
    assert_eq!(runtime.calls("create_sandbox").len(), 1, "the sandbox from before is adopted");
    let tasks = node.pods.as_ref().map(|pods| pods.supervisor().tasks()).unwrap_or_default();
    let restarted: Vec<_> = tasks.iter().filter(|task| task.restarts > 0).collect();
    assert_eq!(restarted.iter().map(|task| (task.name, task.restarts)).collect::<Vec<_>>(), [("pods", 1)]);
    node.stop_agent(Teardown::Remove).await;
    assert_eq!(runtime.ids(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_nobody_knows_are_removed() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put_pod("web", "", |_| {});
    let pod = node.wait_ready("web").await;
    let owner = |uid: &str| {
        let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: uid.into() };
        let role =
            Role::Container { name: "lost".into(), hash: String::new(), sandbox: "s".into(), resources: String::new() };
        ContainerOwner { pod, role, attempt: 7 }
    };
    for uid in [pod["metadata"]["uid"].as_str().unwrap(), "of-no-pod"] {
        let id = runtime.add(owner(uid));
        runtime.wait_call("remove", |removed| removed == id).await;
    }
    assert!(is_ready(&node.wait_ready("web").await));
    assert_eq!(runtime.calls("create_container").len(), 1);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_wait_for_one_object_share_one_wait_however_often_they_try() {
    let (mut node, _runtime) = Node::in_memory().await;
    let needs = |pod: &mut Value| {
        pod["spec"]["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "later" } }]);
    };
    let is_waiting = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    };
    for name in ["one", "two"] {
        node.api.put_pod(name, "", needs);
        node.wait(name, "waiting", is_waiting).await;
    }
    let waits = || node.pods.as_ref().unwrap().context.object_waits.counts();
    assert_eq!(waits(), [("configmap \"later\"".to_owned(), 2)]);
    // A change that does not help has each of them try again, and wait again.
    node.api.put("configmaps", "other", json!({ "data": {} }));
    node.api.delete_gracefully("two", 0);
    node.wait_gone("two").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while waits() != [("configmap \"later\"".to_owned(), 1)] {
        assert!(Instant::now() < deadline, "{:?}", waits());
        tokio::task::yield_now().await;
    }
    node.api.put("configmaps", "later", json!({ "data": { "a": "b" } }));
    node.wait_ready("one").await;
    assert_eq!(node.pods.as_ref().unwrap().context.object_waits.counts(), []);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_show_the_pods_labels_change_with_them() {
    let (mut node, _runtime) = Node::in_memory().await;
    let item = |path: &str, field: &str| json!({ "path": path, "fieldRef": { "fieldPath": field } });
    node.api.put_pod("web", "", |pod| {
        pod["metadata"]["labels"] = json!({ "app": "old" });
        pod["spec"]["volumes"] = json!([
            { "name": "me", "downwardAPI": { "items": [item("labels", "metadata.labels")] } },
            { "name": "all", "projected": { "sources": [
                { "downwardAPI": { "items": [item("note", "metadata.annotations['note']")] } },
            ] } },
        ]);
    });
    let pod = node.wait_ready("web").await;
    let volumes = node.data.path().join("node/pods").join(pod["metadata"]["uid"].as_str().unwrap()).join("volumes");
    let read = |file: &str| std::fs::read_to_string(volumes.join(file)).unwrap_or_default();
    assert_eq!(read("me/labels"), "app=\"old\"");
    let mut changed = node.api.get("pods", "default", "web").unwrap();
    changed["metadata"]["labels"] = json!({ "app": "new" });
    changed["metadata"]["annotations"] = json!({ "note": "read me" });
    node.api.put("pods", "web", changed);
    let deadline = Instant::now() + Duration::from_secs(60);
    while (read("me/labels").as_str(), read("all/note").as_str()) != ("app=\"new\"", "read me") {
        assert!(Instant::now() < deadline, "{:?} and {:?}", read("me/labels"), read("all/note"));
        tokio::task::yield_now().await;
    }
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_cannot_be_counted_harm_no_worker() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put_pod("huge", "", |pod| {
        pod["spec"]["terminationGracePeriodSeconds"] = i64::MAX.into();
        let probe = json!({
            "exec": { "command": ["true"] }, "initialDelaySeconds": i32::MAX, "periodSeconds": i32::MAX,
            "timeoutSeconds": i32::MAX, "failureThreshold": i32::MAX, "terminationGracePeriodSeconds": i64::MAX,
        });
        pod["spec"]["containers"][0]["livenessProbe"] = probe;
        pod["spec"]["containers"][0]["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": i64::MIN } } });
    });
    node.wait_ready("huge").await;
    node.api.delete_gracefully("huge", i64::MAX);
    node.wait_gone("huge").await;
    assert_eq!(runtime.calls("create_container").len(), 1);
    node.stop_agent(Teardown::Remove).await;
}
