//! A running pod whose allocated resources change.

use serde_json::{Value, json};

use super::{Action, Driven, Outcome, plan};
use crate::pods::{
    outcome::Failure,
    resize::{Amounts, Update, steps},
};

fn container(name: &str, cpu: &str, memory: &str, policy: Value) -> Value {
    json!({ "name": name, "image": "i", "resizePolicy": policy, "resources": {
        "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu, "memory": memory } } })
}

fn spec(containers: Value) -> Value {
    json!({ "restartPolicy": "OnFailure", "containers": containers })
}

/// Three containers that run with 20m and 20Mi each.
fn three(policy: Value) -> Driven {
    let containers: Vec<_> =
        ["a", "b", "c"].iter().map(|name| container(name, "20m", "20Mi", policy.clone())).collect();
    let mut driven = Driven::new(spec(json!(containers)));
    driven.proceed();
    driven.sandbox_created();
    driven.apply(Outcome::VolumesMounted(Ok(())));
    driven.sandbox_made();
    for name in ["a", "b", "c"] {
        driven.image_got(name);
        driven.created(name, name);
        driven.running(name, name);
    }
    driven
}

fn allocate(driven: &mut Driven, containers: Value) {
    driven.pod.spec = serde_json::from_value(spec(containers)).unwrap();
    driven.pod.metadata.generation = Some(2);
    driven.state.resize.generation = Some(2);
}

fn updates(driven: &Driven) -> Vec<Update> {
    steps(&driven.pod, &driven.state).updates
}

/// Performs the updates under way.
fn perform(driven: &mut Driven) {
    let updates = updates(driven);
    for update in updates {
        driven.apply(Outcome::ContainerResized { id: update.id, amounts: update.to });
    }
    driven.apply(Outcome::ResizeEnded { result: Ok(()) });
}

fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

#[test]
fn memory_comes_before_cpu_and_what_shrinks_before_what_grows() {
    let mut driven = three(json!([]));
    assert_eq!(driven.status()["containerStatuses"][0]["resources"]["limits"]["cpu"], "20m");
    allocate(
        &mut driven,
        json!([
            container("a", "25m", "25Mi", json!([])),
            container("b", "15m", "25Mi", json!([])),
            container("c", "25m", "15Mi", json!([])),
        ]),
    );
    let order: Vec<_> =
        updates(&driven).into_iter().map(|update| format!("{:?} {}", update.resource, update.container)).collect();
    assert_eq!(order, ["Memory c", "Memory a", "Memory b", "Cpu b", "Cpu a", "Cpu c"]);
    assert_eq!(driven.proceed(), ["Resize"]);
    let status = driven.status();
    assert_eq!(condition(&status, "PodResizeInProgress")["observedGeneration"], 2);
    assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["cpu"], "20m", "what it has");
    assert_eq!(status["containerStatuses"][0]["allocatedResources"]["cpu"], "25m");
    assert!(driven.proceed().is_empty(), "it is under way");
    perform(&mut driven);
    assert!(driven.proceed().is_empty());
    let status = driven.status();
    assert_eq!(condition(&status, "PodResizeInProgress"), Value::Null);
    let resources = &status["containerStatuses"][2]["resources"];
    assert_eq!((&resources["limits"]["cpu"], &resources["limits"]["memory"]), (&json!("25m"), &json!("15Mi")));
    assert_eq!(status["containerStatuses"][2]["restartCount"], 0);
}

#[test]
fn a_memory_update_keeps_the_cpu_of_before_and_the_cpu_update_follows_it() {
    let mut driven = three(json!([]));
    let rest = [container("b", "20m", "20Mi", json!([])), container("c", "20m", "20Mi", json!([]))];
    allocate(&mut driven, json!([container("a", "25m", "15Mi", json!([])), rest[0], rest[1]]));
    let [memory, cpu] = &updates(&driven)[..] else { panic!("two updates") };
    let amounts = |cpu: i64, memory: i64| Amounts {
        cpu_request: Some(cpu),
        cpu_limit: Some(cpu),
        memory_request: Some(memory << 20),
        memory_limit: Some(memory << 20),
    };
    assert_eq!((memory.from, memory.to), (amounts(20, 20), amounts(20, 15)));
    assert_eq!((cpu.from, cpu.to), (amounts(20, 15), amounts(25, 15)));
}

#[test]
fn a_container_whose_policy_says_so_is_restarted_even_where_it_ends_well() {
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": "NotRequired" },
        { "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let mut driven = three(policy.clone());
    let others = [container("b", "20m", "20Mi", policy.clone()), container("c", "20m", "20Mi", policy.clone())];
    allocate(&mut driven, json!([container("a", "20m", "25Mi", policy.clone()), others[0], others[1]]));
    assert_eq!(driven.proceed(), ["StopContainer"]);
    assert_eq!(condition(&driven.status(), "PodResizeInProgress")["status"], "True");
    assert_eq!(driven.exited("a", "a", 0), ["GetImage"], "it runs again although it ended with 0");
    assert_eq!(driven.status()["phase"], "Running");
    driven.image_got("a");
    driven.created("a", "a1");
    assert_eq!(driven.status()["phase"], "Running");
    assert!(driven.running("a", "a1").is_empty());
    let status = driven.status();
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["memory"], "25Mi");
    assert_eq!(condition(&status, "PodResizeInProgress"), Value::Null);
    // CPU alone needs no restart.
    allocate(&mut driven, json!([container("a", "30m", "25Mi", policy), others[0], others[1]]));
    assert_eq!(driven.proceed(), ["Resize"]);
    perform(&mut driven);
    assert_eq!(driven.status()["containerStatuses"][0]["restartCount"], 1);
    driven.exited("a", "a1", 0);
    assert!(driven.proceed().is_empty(), "an end of its own is one for good");
}

#[test]
fn updates_that_failed_are_tried_again_later_and_others_at_once() {
    let mut driven = three(json!([]));
    let others = [container("b", "20m", "20Mi", json!([])), container("c", "20m", "20Mi", json!([]))];
    allocate(&mut driven, json!([container("a", "20m", "1Ki", json!([])), others[0], others[1]]));
    assert_eq!(driven.proceed(), ["Resize"]);
    let failure = Failure::new("Error", "cannot decrease memory limits: below usage");
    assert!(driven.apply(Outcome::ResizeEnded { result: Err(failure) }).is_empty());
    let status = driven.status();
    let told = condition(&status, "PodResizeInProgress");
    assert_eq!(
        (&told["reason"], &told["message"]),
        (&json!("Error"), &json!("cannot decrease memory limits: below usage"))
    );
    assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["memory"], "20Mi");
    let wake = plan(&driven.pod, &driven.state, driven.now).wake.unwrap();
    assert_eq!(wake.duration_since(driven.now).as_secs(), 10);
    driven.pass(10);
    assert_eq!(driven.proceed(), ["Resize"]);
    assert_eq!(condition(&driven.status(), "PodResizeInProgress")["reason"], "Error", "until it succeeds");
    driven.apply(Outcome::ResizeEnded { result: Err(Failure::new("Error", "once more")) });
    allocate(&mut driven, json!([container("a", "20m", "25Mi", json!([])), others[0], others[1]]));
    assert_eq!(driven.proceed(), ["Resize"], "another resize is tried at once");
    perform(&mut driven);
    assert_eq!(condition(&driven.status(), "PodResizeInProgress"), Value::Null);
}

#[test]
fn a_sidecar_is_resized_and_an_init_container_is_not() {
    let mut driven = Driven::new(json!({
        "initContainers": [{ "name": "side", "image": "i", "restartPolicy": "Always",
            "resources": { "requests": { "cpu": "10m" } } }],
        "containers": [{ "name": "app", "image": "i" }],
    }));
    driven.proceed();
    driven.sandbox_created();
    driven.apply(Outcome::VolumesMounted(Ok(())));
    driven.sandbox_made();
    driven.image_got("side");
    driven.created("side", "s1");
    driven.running("side", "s1");
    let resources = json!({ "requests": { "cpu": "20m" } });
    driven.pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[0].resources =
        serde_json::from_value(resources).unwrap();
    let actions = plan(&driven.pod, &driven.state, driven.now).actions;
    assert!(actions.iter().any(|action| matches!(action, Action::Resize { .. })), "{actions:?}");
    driven.pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[0].restart_policy = None;
    assert!(updates(&driven).is_empty());
}

#[test]
fn a_resize_that_waits_is_told_as_a_condition_and_nothing_changes() {
    let mut driven = three(json!([]));
    driven.state.resize.pending = Some(crate::pods::resize::Pending {
        reason: "Deferred",
        message: "Node didn't have enough resource: cpu, requested: 2, used: 1, capacity: 2".to_owned(),
        generation: Some(5),
        since: driven.now,
    });
    assert!(driven.proceed().is_empty());
    let told = condition(&driven.status(), "PodResizePending");
    assert_eq!(
        (&told["reason"], &told["observedGeneration"], &told["status"]),
        (&json!("Deferred"), &json!(5), &json!("True"))
    );
    let since = told["lastTransitionTime"].clone();
    driven.pod.status = serde_json::from_value(driven.status()).unwrap();
    driven.pass(60);
    assert_eq!(condition(&driven.status(), "PodResizePending")["lastTransitionTime"], since);
    driven.state.resize.pending = None;
    assert_eq!(condition(&driven.status(), "PodResizePending"), Value::Null);
}

#[test]
fn a_container_that_was_stopped_for_a_resize_runs_again_under_the_next_agent() {
    let mut driven = three(json!([]));
    for name in ["a", "b"] {
        driven.exited(name, name, 0);
    }
    assert!(driven.proceed().is_empty(), "both have succeeded");
    driven.state.resume_restarts(|id| id == "a" || id == "c");
    assert_eq!(driven.status()["phase"], "Running");
    assert_eq!(driven.proceed(), ["GetImage"], "the one that was stopped, and not the one that runs");
}
