//! How a pod's end is planned: who ends when, and with what grace.

use super::*;

/// Two sidecars and an app, all running.
fn with_sidecars() -> Driven {
    let mut driven = Driven::new(json!({
        "initContainers": [
            { "name": "one", "image": "i", "restartPolicy": "Always" },
            { "name": "two", "image": "i", "restartPolicy": "Always" },
        ],
        "containers": [{ "name": "app", "image": "i" }],
    }));
    driven.proceed();
    driven.sandbox_created();
    driven.apply(Outcome::VolumesMounted(Ok(())));
    driven.sandbox_made();
    for name in ["one", "two", "app"] {
        driven.image_got(name);
        driven.created(name, name);
        driven.running(name, name);
    }
    driven
}

#[test]
fn sidecars_end_in_reverse_order_within_the_one_grace_period() {
    let stop = |name: &str, grace| (name.to_owned(), grace);
    let mut driven = with_sidecars();
    driven.delete(30);
    assert_eq!(driven.graces(), [stop("app", 30)]);
    driven.pass(20);
    driven.state.apply(exit("app", 0, driven.now), driven.now);
    assert_eq!(driven.graces(), [stop("two", 10)]);
    driven.pass(10);
    driven.state.apply(exit("two", 137, driven.now), driven.now);
    assert_eq!(driven.graces(), [stop("one", 2)], "the least there is, when the grace is used up");
    driven.pass(2);
    assert_eq!(driven.exited("one", "one", 137), ["RemoveSandbox"]);
}

#[test]
fn a_clock_that_is_set_back_makes_no_grace_longer_than_it_is() {
    let mut driven = with_sidecars();
    driven.delete(30);
    driven.state.note_termination(&driven.pod, driven.now);
    driven.pass(-86_400);
    assert_eq!(driven.graces(), [("app".to_owned(), 30)]);
}

#[test]
fn a_shorter_grace_counts_from_when_it_was_given_and_none_is_none() {
    let stop = |name: &str, grace| (name.to_owned(), grace);
    let mut driven = with_sidecars();
    driven.delete(100);
    assert_eq!(driven.graces(), [stop("app", 100)]);
    driven.pass(50);
    driven.delete(10);
    assert_eq!(driven.graces(), [stop("app", 10)]);
    driven.pass(4);
    assert_eq!(driven.graces(), [], "nothing is shorter than before");
    driven.delete(0);
    assert_eq!(driven.graces(), [stop("app", 0)]);
    driven.state.apply(exit("app", 137, driven.now), driven.now);
    assert_eq!(driven.graces(), [stop("two", 0)]);
}

#[test]
fn no_number_of_a_pod_is_too_large_to_be_counted() {
    for seconds in [i64::MAX, i64::MAX - 1, i64::MIN, -1] {
        let probe = json!({ "tcpSocket": { "port": 1 }, "terminationGracePeriodSeconds": seconds });
        let mut driven = Driven::new(json!({
            "terminationGracePeriodSeconds": seconds, "activeDeadlineSeconds": seconds.max(1),
            "containers": [{ "name": "app", "image": "i", "livenessProbe": probe }],
        }));
        driven.run_app("c");
        let app = driven.pod.spec.as_ref().unwrap().containers[0].clone();
        driven.state.container_mut("app").health.record_verdict(&app, crate::pods::probe::ProbeKind::Liveness, false);
        assert_eq!(driven.proceed(), ["StopContainer"], "{seconds}");
        driven.delete(seconds);
        driven.proceed();
        driven.pass(1_000_000_000);
        driven.proceed();
        driven.status();
    }
}

fn exit(id: &str, code: i32, now: Timestamp) -> Outcome {
    let exit = Exit { code, started_at: Some(now), finished_at: now, oom_killed: false, error: String::new() };
    Outcome::Observed { id: id.into(), container: Some(Driven::seen(id, id, State::Exited(exit))), message: None }
}
