//! What is seen while a container starts, and in lists of the runtime.

use super::*;
use crate::pods::probe::CheckError;

#[test]
fn an_end_that_is_seen_during_the_start_stays_an_end() {
    let mut driven = Driven::app("Always");
    driven.proceed();
    driven.sandbox_created();
    driven.apply(Outcome::VolumesMounted(Ok(())));
    driven.sandbox_made();
    driven.image_got("app");
    assert_eq!(driven.created("app", "c"), ["StartContainer"]);
    assert!(driven.state.may_run("c"), "its end is to be looked at");
    assert_eq!(driven.exited("app", "c", 3), ["GetImage"], "it is restarted");
    assert!(driven.running("app", "c").is_empty(), "what the start saw is out of date");
    assert_eq!(driven.state.container("app").last.as_ref().unwrap().exit.code, 3);
    assert!(driven.state.container("app").instance.running_since().is_none());
}

#[test]
fn a_container_runs_once_its_hook_has_succeeded_and_is_stopped_when_it_failed() {
    let mut driven = Driven::app("Always");
    let begin = |driven: &mut Driven| {
        driven.proceed();
        driven.sandbox_created();
        driven.apply(Outcome::VolumesMounted(Ok(())));
        driven.sandbox_made();
        driven.image_got("app");
        driven.created("app", "c");
        assert!(driven.started("app", "c", true).is_empty());
        assert_eq!(driven.status()["phase"], "Pending");
    };
    begin(&mut driven);
    driven.apply(Outcome::PostStartEnded { id: "c".into(), result: Ok(()) });
    assert_eq!(driven.status()["phase"], "Running");

    let mut driven = Driven::app("Always");
    begin(&mut driven);
    let failed = Outcome::PostStartEnded { id: "c".into(), result: Err(CheckError::NoContainer) };
    assert_eq!(driven.apply(failed), ["StopContainer"]);
    assert_eq!(driven.status()["containerStatuses"][0]["ready"], false);

    let mut driven = Driven::app("Always");
    begin(&mut driven);
    driven.delete(5);
    assert_eq!(driven.proceed(), ["StopContainer"], "a hook holds no deletion up");
    assert!(!driven.state.is_starting("c"), "which cancels the hook");
}

#[test]
fn a_clock_that_is_set_back_does_not_hold_a_restart_up() {
    let mut driven = Driven::app("Always");
    driven.run_app("c");
    assert_eq!(driven.exited("app", "c", 1), ["GetImage"], "the first restart is immediate");
    driven.image_got("app");
    driven.created("app", "d");
    driven.running("app", "d");
    assert_eq!(driven.exited("app", "d", 1), [] as [&str; 0], "the second waits");
    driven.pass(-86_400);
    assert_eq!(driven.proceed(), ["GetImage"], "and not for a day");
}

#[test]
fn a_list_shows_what_ended_and_what_nobody_knows() {
    let mut driven = Driven::app("Always");
    driven.run_app("c");
    let summary = |id: &str, is_running| {
        let owner = Driven::seen("app", id, State::Created).owner;
        Summary { id: id.into(), owner, is_running }
    };
    assert_eq!(driven.state.unlisted(&[summary("s", true), summary("c", true)]), [] as [String; 0]);
    assert_eq!(driven.state.unlisted(&[summary("s", true), summary("c", false)]), ["c"]);
    assert_eq!(driven.state.unlisted(&[]), ["s", "c"]);
    driven.state.discard_unknown(&[summary("s", true), summary("c", true), summary("lost", false)]);
    assert_eq!(driven.state.garbage, ["lost"]);
    driven.exited("app", "c", 1);
    driven.image_got("app");
    driven.state.garbage.clear();
    driven.state.discard_unknown(&[summary("new", false)]);
    assert!(driven.state.garbage.is_empty(), "it may be what is just being created");
}
