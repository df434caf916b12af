//! What is planned from what is known: no engine, no clock.

mod ephemeral;
mod resizes;
mod starts;
mod termination;

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    pods::{
        outcome::{Failure, Outcome},
        plan::{Action, plan},
        state::PodState,
        status::{ReportingNode, status},
    },
    runtime::{Container, ContainerOwner, Exit, Image, ImageUser, PodRef, Role, State, Summary},
};

/// A pod and its state, driven by hand.
struct Driven {
    pod: Pod,
    state: PodState,
    now: Timestamp,
}

impl Driven {
    fn new(spec: Value) -> Self {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let pod = json!({ "metadata": { "name": "p", "namespace": "a", "uid": "u" }, "spec": spec, "status": { "phase": "Pending" } });
        Self { pod: serde_json::from_value(pod).unwrap(), state: PodState::adopt(now, Vec::new()), now }
    }

    fn app(policy: &str) -> Self {
        Self::new(json!({ "restartPolicy": policy, "containers": [{ "name": "app", "image": "hello:v1" }] }))
    }

    /// Begins all that is planned; returns what that is, by name.
    fn proceed(&mut self) -> Vec<String> {
        let mut begun = Vec::new();
        loop {
            self.state.note_termination(&self.pod, self.now);
            let actions = plan(&self.pod, &self.state, self.now).actions;
            if actions.is_empty() {
                return begun;
            }
            for action in actions {
                self.state.begin(&self.pod, &action, self.now);
                let text = format!("{action:?}");
                begun.push(text.split([' ', '(']).next().unwrap().to_owned());
            }
        }
    }

    fn apply(&mut self, outcome: Outcome) -> Vec<String> {
        self.state.apply(outcome, self.now);
        self.proceed()
    }

    fn sandbox_created(&mut self) -> Vec<String> {
        self.apply(Outcome::SandboxCreated { id: "s".into() })
    }

    fn sandbox_made(&mut self) -> Vec<String> {
        self.apply(Outcome::SandboxMade { id: "s".into(), result: Ok(Ipv4Addr::new(10, 244, 0, 2)) })
    }

    fn image_got(&mut self, container: &str) -> Vec<String> {
        let image = Image { id: "docker://sha256:1".into(), user: ImageUser::Uid(0), local_id: "sha256:1".into() };
        self.apply(Outcome::ImageGot { container: container.into(), result: Ok(image) })
    }

    fn created(&mut self, container: &str, id: &str) -> Vec<String> {
        self.apply(Outcome::ContainerCreated {
            container: container.into(),
            sandbox: "s".into(),
            result: Ok(id.into()),
        })
    }

    fn observed(&mut self, container: &str, id: &str, state: State) -> Vec<String> {
        let seen = Self::seen(container, id, state);
        self.apply(Outcome::Observed { id: id.into(), container: Some(seen), message: None })
    }

    fn seen(container: &str, id: &str, state: State) -> Container {
        let role = Role::Container {
            name: container.into(),
            hash: String::new(),
            sandbox: "s".into(),
            resources: String::new(),
        };
        let pod = PodRef { namespace: "a".into(), name: "p".into(), uid: "u".into() };
        Container { id: id.into(), owner: ContainerOwner { pod, role, attempt: 0 }, image_id: String::new(), state }
    }

    fn started(&mut self, container: &str, id: &str, has_hook: bool) -> Vec<String> {
        let seen = Self::seen(container, id, State::Running { started_at: self.now, pid: 1 });
        self.apply(Outcome::Started { id: id.into(), container: Some(seen), message: None, has_hook })
    }

    fn running(&mut self, container: &str, id: &str) -> Vec<String> {
        self.started(container, id, false)
    }

    /// The graces of the stops that are planned now, in seconds.
    fn graces(&mut self) -> Vec<(String, u64)> {
        self.state.note_termination(&self.pod, self.now);
        let actions = plan(&self.pod, &self.state, self.now).actions;
        let stops = actions.into_iter().filter_map(|action| match &action {
            Action::StopContainer { container, grace, .. } => {
                let stop = (container.clone(), grace.as_secs());
                self.state.begin(&self.pod, &action, self.now);
                Some(stop)
            }
            _ => None,
        });
        stops.collect()
    }

    fn delete(&mut self, grace: i64) {
        self.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }

    fn exited(&mut self, container: &str, id: &str, code: i32) -> Vec<String> {
        let exit =
            Exit { code, started_at: Some(self.now), finished_at: self.now, oom_killed: false, error: String::new() };
        self.observed(container, id, State::Exited(exit))
    }

    /// Runs container `app` as `id`, from nothing.
    fn run_app(&mut self, id: &str) {
        self.proceed();
        self.sandbox_created();
        self.apply(Outcome::VolumesMounted(Ok(())));
        self.sandbox_made();
        self.image_got("app");
        self.created("app", id);
        self.running("app", id);
    }

    fn status(&self) -> Value {
        let node = ReportingNode { node_ip: Ipv4Addr::LOCALHOST, scheme: "docker" };
        serde_json::to_value(status(&self.pod, &self.state, node, self.now)).unwrap()
    }

    fn pass(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
    }
}

#[test]
fn all_that_can_begin_at_once_does_and_a_container_is_created_while_its_sandbox_starts() {
    let mut driven = Driven::app("Always");
    assert_eq!(driven.proceed(), ["MountVolumes", "MakeSandbox", "GetImage"]);
    assert!(driven.image_got("app").is_empty());
    assert!(driven.apply(Outcome::VolumesMounted(Ok(()))).is_empty());
    assert_eq!(driven.sandbox_created(), ["CreateContainer"]);
    assert!(driven.created("app", "c").is_empty(), "it starts in a network that is there");
    assert_eq!(driven.sandbox_made(), ["StartContainer"]);
    assert!(driven.running("app", "c").is_empty());
    let status = driven.status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.244.0.2");
}

#[test]
fn a_container_that_names_the_pods_address_waits_for_it() {
    let env = json!([{ "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }]);
    let mut driven = Driven::new(json!({ "containers": [{ "name": "app", "image": "hello:v1", "env": env }] }));
    driven.proceed();
    driven.image_got("app");
    driven.apply(Outcome::VolumesMounted(Ok(())));
    assert!(driven.sandbox_created().is_empty());
    assert_eq!(driven.sandbox_made(), ["CreateContainer"]);
}

#[test]
fn a_container_that_keeps_ending_waits_longer_each_time() {
    let mut driven = Driven::app("Always");
    driven.run_app("c0");
    assert_eq!(driven.exited("app", "c0", 1), ["GetImage"], "the first restart is at once");
    assert_eq!(driven.image_got("app"), ["CreateContainer"]);
    assert_eq!(driven.created("app", "c1"), ["StartContainer"]);
    driven.running("app", "c1");
    assert!(driven.exited("app", "c1", 1).is_empty());
    let wake = plan(&driven.pod, &driven.state, driven.now).wake.unwrap();
    assert_eq!(wake.duration_since(driven.now).as_secs(), 10);
    let waiting = &driven.status()["containerStatuses"][0];
    assert_eq!(waiting["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(waiting["restartCount"], 1);
    driven.pass(10);
    assert_eq!(driven.proceed(), ["GetImage"]);
    driven.image_got("app");
    driven.created("app", "c2");
    driven.running("app", "c2");
    assert_eq!(driven.exited("app", "c2", 1), ["RemoveContainers"], "two that ended are kept");
    let wake = plan(&driven.pod, &driven.state, driven.now).wake.unwrap();
    assert_eq!(wake.duration_since(driven.now).as_secs(), 20);
}

#[test]
fn the_restart_policy_says_who_runs_again_and_what_the_end_is_called() {
    for (policy, code, phase) in [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let mut driven = Driven::app(policy);
        driven.run_app("c");
        assert_eq!(driven.exited("app", "c", code), ["RemoveSandbox"], "{policy} {code}");
        assert_eq!(driven.status()["phase"], phase, "{policy} {code}");
    }
    let mut driven = Driven::app("OnFailure");
    driven.run_app("c");
    assert_eq!(driven.exited("app", "c", 1), ["GetImage"]);
}

#[test]
fn a_deletion_stops_the_containers_then_the_sandbox_then_ends() {
    let mut driven = Driven::app("Always");
    driven.run_app("c");
    driven.delete(30);
    assert_eq!(driven.proceed(), ["StopContainer"]);
    driven.pod.metadata.deletion_grace_period_seconds = Some(0);
    assert_eq!(driven.proceed(), ["StopContainer"], "a shorter grace hastens the stop");
    assert_eq!(driven.exited("app", "c", 137), ["RemoveSandbox"]);
    assert_eq!(driven.apply(Outcome::SandboxRemoved), ["Finish"]);
    assert!(driven.apply(Outcome::Finished).is_empty());
}

#[test]
fn containers_of_a_lost_sandbox_are_stopped_before_a_new_one_is_made() {
    let mut driven = Driven::app("Always");
    driven.run_app("c");
    let lost = Outcome::Observed { id: "s".into(), container: None, message: None };
    assert_eq!(driven.apply(lost), ["StopContainer"]);
    assert_eq!(driven.exited("app", "c", 137), ["RemoveSandbox", "GetImage"]);
    assert_eq!(driven.apply(Outcome::SandboxRemoved), ["MakeSandbox"]);
}

#[test]
fn a_failed_sandbox_discards_what_was_created_for_it_and_is_tried_again_later() {
    let mut driven = Driven::app("Always");
    driven.proceed();
    driven.image_got("app");
    driven.apply(Outcome::VolumesMounted(Ok(())));
    driven.sandbox_created();
    driven.created("app", "c");
    let failure = Failure::new("FailedCreatePodSandBox", "no address");
    assert_eq!(driven.apply(Outcome::SandboxMade { id: "s".into(), result: Err(failure) }), ["RemoveContainers"]);
    driven.pass(10);
    assert_eq!(driven.proceed(), ["MakeSandbox"]);
    assert_eq!(driven.status()["containerStatuses"][0]["restartCount"], 0);
}

#[test]
fn init_containers_come_one_by_one_and_sidecars_need_only_have_started() {
    let mut driven = Driven::new(json!({
        "initContainers": [
            { "name": "first", "image": "i" },
            { "name": "side", "image": "i", "restartPolicy": "Always" },
        ],
        "containers": [{ "name": "app", "image": "i" }],
    }));
    driven.proceed();
    driven.sandbox_created();
    driven.apply(Outcome::VolumesMounted(Ok(())));
    driven.sandbox_made();
    assert_eq!(driven.image_got("first"), ["CreateContainer"]);
    driven.created("first", "f");
    assert!(driven.running("first", "f").is_empty());
    assert_eq!(driven.status()["phase"], "Pending");
    assert_eq!(driven.exited("first", "f", 0), ["GetImage"], "the sidecar's");
    driven.image_got("side");
    driven.created("side", "s1");
    assert_eq!(driven.running("side", "s1"), ["GetImage"], "the app's");
    driven.image_got("app");
    driven.created("app", "c");
    driven.running("app", "c");
    assert_eq!(driven.status()["phase"], "Running");
    assert_eq!(driven.exited("side", "s1", 1), ["GetImage"], "a sidecar that ends is restarted");
}

#[test]
fn containers_of_a_pod_with_init_containers_wait_for_its_initialisation_from_the_first_moment_on() {
    let containers = json!([{ "name": "app", "image": "i" }]);
    let init = json!([{ "name": "first", "image": "i" }, { "name": "second", "image": "i" }]);
    let reasons = |status: &Value| -> Vec<Value> {
        let statuses = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].as_array().cloned());
        statuses.into_iter().flatten().flatten().map(|one| one["state"]["waiting"]["reason"].clone()).collect()
    };
    let initialised = Driven::new(json!({ "initContainers": init, "containers": containers })).status();
    assert_eq!(reasons(&initialised), ["PodInitializing"; 3]);
    assert_eq!(reasons(&Driven::new(json!({ "containers": containers })).status()), ["ContainerCreating"]);
}

#[test]
fn a_status_says_which_generation_of_the_pod_it_is_of() {
    let mut driven = Driven::app("Always");
    driven.pod.metadata.generation = Some(3);
    driven.pod.status.as_mut().unwrap().observed_generation = Some(i64::MAX);
    let status = driven.status();
    assert_eq!(status["observedGeneration"], 3);
    for condition in status["conditions"].as_array().unwrap() {
        assert_eq!(condition["observedGeneration"], 3, "{condition}");
    }
}

#[test]
fn a_deadline_ends_the_pod() {
    let mut driven =
        Driven::new(json!({ "activeDeadlineSeconds": 5, "containers": [{ "name": "app", "image": "i" }] }));
    driven.run_app("c");
    assert!(driven.proceed().is_empty());
    driven.pass(5);
    assert_eq!(driven.proceed(), ["End", "StopContainer"]);
    driven.exited("app", "c", 143);
    let status = driven.status();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
}
