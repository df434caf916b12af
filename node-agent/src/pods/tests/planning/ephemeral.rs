//! Containers that are added to a running pod.

use serde_json::json;

use super::Driven;
use crate::pods::spec;

fn with_debugger() -> Driven {
    let mut driven = Driven::app("Always");
    driven.run_app("c");
    let debugger =
        json!([{ "name": "debug", "image": "busybox", "stdin": true, "tty": true, "targetContainerName": "app" }]);
    driven.pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(debugger).unwrap();
    driven
}

#[test]
fn an_ephemeral_container_starts_in_the_running_pod_and_never_again() {
    let mut driven = with_debugger();
    assert_eq!(driven.status()["ephemeralContainerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(driven.proceed(), ["GetImage"]);
    assert_eq!(driven.image_got("debug"), ["CreateContainer"]);
    assert_eq!(driven.created("debug", "d"), ["StartContainer"]);
    assert!(driven.running("debug", "d").is_empty());
    let status = driven.status();
    let debugger = &status["ephemeralContainerStatuses"][0];
    assert!(debugger["state"]["running"].is_object(), "{debugger}");
    assert_eq!((&debugger["ready"], &debugger["containerID"]), (&json!(false), &json!("docker://d")));
    assert!(debugger["started"].is_null());
    assert_eq!(status["containerStatuses"].as_array().unwrap().len(), 1);
    assert!(driven.exited("debug", "d", 1).is_empty());
    driven.pass(3600);
    assert!(driven.proceed().is_empty(), "it is not started again");
    let status = driven.status();
    assert_eq!(status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
    assert_eq!(
        (&status["phase"], &status["ephemeralContainerStatuses"][0]["restartCount"]),
        (&json!("Running"), &json!(0))
    );
}

#[test]
fn an_ephemeral_container_ends_with_its_pod() {
    let mut driven = with_debugger();
    driven.proceed();
    driven.image_got("debug");
    driven.created("debug", "d");
    driven.running("debug", "d");
    driven.delete(30);
    assert_eq!(driven.proceed(), ["StopContainer", "StopContainer"]);
    driven.exited("debug", "d", 137);
    assert_eq!(driven.exited("app", "c", 137), ["RemoveSandbox"]);
}

#[test]
fn an_ephemeral_container_keeps_no_pod_alive_whose_containers_have_ended() {
    let mut driven = Driven::app("Never");
    driven.run_app("c");
    let debugger = json!([{ "name": "debug", "image": "busybox" }]);
    driven.pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(debugger).unwrap();
    driven.proceed();
    driven.image_got("debug");
    driven.created("debug", "d");
    driven.running("debug", "d");
    assert!(driven.exited("app", "c", 0).is_empty());
    assert_eq!(driven.status()["phase"], "Succeeded");
    driven.pod.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    assert_eq!(driven.proceed(), ["StopContainer"]);
}

#[test]
fn an_ephemeral_container_is_found_by_name_with_its_target() {
    let driven = with_debugger();
    let debugger = spec::any_container(&driven.pod, "debug").unwrap();
    assert_eq!((debugger.image.as_deref(), debugger.tty, debugger.stdin), (Some("busybox"), Some(true), Some(true)));
    assert_eq!(spec::target_of(&driven.pod, "debug"), Some("app"));
    assert_eq!(spec::target_of(&driven.pod, "app"), None);
    assert!(spec::container(&driven.pod, "debug").is_none());
}
