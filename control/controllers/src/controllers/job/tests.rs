//! Passes over Jobs: what is done about the pods, and what is reported. The cases are those of Kubernetes' own tests of
//! its Job controller.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{backoff::FailureStreak, plan::Action, tracking::JobCount, *};
use crate::{
    controllers::job::pods::{FAILURES, INDEX, TRACKING, uid},
    objects::pod_state::is_terminating,
};

const NOW: &str = "2026-01-01T01:00:00Z";
const STARTED: &str = "2026-01-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a valid time")
}

fn job(spec: Value, status: Value) -> Job {
    let mut whole = json!({"parallelism": 2, "completions": 5, "backoffLimit": 6, "completionMode": "NonIndexed",
        "podReplacementPolicy": "TerminatingOrFailed",
        "template": {"spec": {"containers": [], "restartPolicy": "Never"}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    let mut reported = json!({"startTime": STARTED, "uncountedTerminatedPods": {}});
    for (key, value) in status.as_object().into_iter().flatten() {
        reported[key] = value.clone();
    }
    let job = json!({"metadata": {"name": "j", "uid": "job"}, "spec": whole, "status": reported});
    serde_json::from_value(job).expect("a valid Job")
}

fn indexed(spec: Value, status: Value) -> Job {
    let mut job = job(spec, status);
    if let Some(spec) = &mut job.spec {
        spec.completion_mode = Some("Indexed".into());
    }
    job
}

/// A pod called by its phase and a number; `Deleted` is one that runs and is being deleted.
fn pod(name: &str, phase: &str, more: Value) -> Arc<Pod> {
    let deleted = phase == "Deleted";
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "finalizers": [TRACKING], "creationTimestamp": STARTED},
        "status": {"phase": if deleted { "Running" } else { phase }}});
    if deleted {
        pod["metadata"]["deletionTimestamp"] = STARTED.into();
    }
    for (key, value) in more.as_object().into_iter().flatten() {
        match key.as_str() {
            "index" => pod["metadata"]["annotations"][INDEX] = value.to_string().into(),
            "failures" => pod["metadata"]["annotations"][FAILURES] = value.to_string().into(),
            "finalizers" => pod["metadata"]["finalizers"] = value.clone(),
            _ => pod["status"][key] = value.clone(),
        }
    }
    Arc::new(serde_json::from_value(pod).expect("a valid pod"))
}

fn pods(phases: &[(&str, usize)]) -> Vec<Arc<Pod>> {
    let named = |(phase, count): &(&str, usize)| {
        let phase = (*phase).to_owned();
        (0..*count).map(move |i| pod(&format!("{phase}-{i}"), &phase, json!({}))).collect::<Vec<_>>()
    };
    phases.iter().flat_map(named).collect()
}

struct Pass {
    plan: JobPlan,
    done: Done,
    count: JobCount,
}

/// One pass whose requests all succeed.
fn pass_with(job: &Job, pods: &[Arc<Pod>], caught_up: bool, streak: FailureStreak) -> Pass {
    let (terms, released) = (Terms::of(job).expect("known terms"), HashSet::new());
    let view = JobView { job, terms, pods, released: &released, caught_up, streak, now: at(NOW) };
    let plan = plan(&view);
    let deleted = |pods: &[Arc<Pod>]| Done {
        deleted: pods.len(),
        deleted_ready: pods.iter().filter(|pod| crate::objects::pod_state::is_ready(pod)).count(),
        created: 0,
    };
    let done = match &plan.action {
        Action::Wait => Done::default(),
        Action::End => deleted(&plan.active),
        Action::Delete(pods) => deleted(pods),
        Action::Create(count) => Done { created: *count, ..Done::default() },
        Action::CreateIndexes(indexes) => Done { created: indexes.len(), ..Done::default() },
    };
    let count = count(&view, &plan, done);
    Pass { plan, done, count }
}

fn pass(job: &Job, pods: &[Arc<Pod>]) -> Pass {
    pass_with(job, pods, true, FailureStreak::default())
}

impl Pass {
    /// Counts in the status before finalizers are removed: active, succeeded and failed, uncounted ones.
    fn counts(&self) -> [usize; 5] {
        let (status, uncounted) = (&self.count.status, self.count.status.uncounted_terminated_pods.as_ref());
        let [active, succeeded, failed] =
            [status.active, status.succeeded, status.failed].map(|counter| counter.map_or(0, number));
        let waiting = |uids: Option<&Vec<String>>| uids.map_or(0, Vec::len);
        [
            active,
            succeeded,
            failed,
            waiting(uncounted.and_then(|u| u.succeeded.as_ref())),
            waiting(uncounted.and_then(|u| u.failed.as_ref())),
        ]
    }

    fn conditions(&self) -> Vec<String> {
        conditions(&self.count.status)
    }

    /// The status once all pods to be released are.
    fn settled(self) -> k8s_openapi::api::batch::v1::JobStatus {
        let released = self.count.release.iter().map(|pod| uid(pod).to_owned()).collect();
        self.count.settle(&released).0
    }
}

fn conditions(status: &k8s_openapi::api::batch::v1::JobStatus) -> Vec<String> {
    let conditions = status.conditions.iter().flatten();
    conditions.map(|c| format!("{}={} {}", c.type_, c.status, c.reason.as_deref().unwrap_or_default())).collect()
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

#[test]
fn as_many_pods_run_as_the_job_asks_for() {
    for (spec, status, phases, created, deleted, counts) in [
        (json!({}), json!({}), &[][..], 2, 0, [2, 0, 0, 0, 0]),
        (json!({"completions": null}), json!({}), &[], 2, 0, [2, 0, 0, 0, 0]),
        (json!({}), json!({}), &[("Pending", 2)], 0, 0, [2, 0, 0, 0, 0]),
        (json!({}), json!({}), &[("Running", 1)], 1, 0, [2, 0, 0, 0, 0]),
        (json!({"completions": null}), json!({}), &[("Running", 1), ("Succeeded", 1)], 0, 0, [1, 0, 0, 1, 0]),
        (json!({}), json!({}), &[("Running", 1), ("Succeeded", 1)], 1, 0, [2, 0, 0, 1, 0]),
        (json!({}), json!({"succeeded": 4}), &[("Running", 1)], 0, 0, [1, 4, 0, 0, 0]),
        (json!({}), json!({"succeeded": 4}), &[("Running", 2)], 0, 1, [1, 4, 0, 0, 0]),
        (json!({"parallelism": 10, "completions": 5}), json!({}), &[("Running", 2)], 3, 0, [5, 0, 0, 0, 0]),
        (json!({"parallelism": 0}), json!({}), &[("Running", 2)], 0, 2, [0, 0, 0, 0, 0]),
        (json!({"parallelism": 1000, "completions": 1000}), json!({}), &[("Running", 10)], 500, 0, [510, 0, 0, 0, 0]),
        (json!({}), json!({}), &[("Deleted", 1), ("Running", 1)], 1, 0, [2, 0, 0, 0, 1]),
        (
            json!({"podReplacementPolicy": "Failed"}),
            json!({}),
            &[("Deleted", 1), ("Running", 1)],
            0,
            0,
            [1, 0, 0, 0, 0],
        ),
    ] {
        let pass = pass(&job(spec.clone(), status), &pods(phases));
        assert_eq!((pass.done.created, pass.done.deleted), (created, deleted), "{spec} {phases:?}");
        assert_eq!(pass.counts(), counts, "{spec} {phases:?}");
    }
}

#[test]
fn nothing_is_created_or_deleted_before_the_view_has_caught_up_or_once_the_job_is_deleted() {
    let running = job(json!({}), json!({}));
    assert_eq!(pass_with(&running, &[], false, FailureStreak::default()).plan.action, Action::Wait);
    let mut deleted = running;
    deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW)));
    let pass = pass(&deleted, &pods(&[("Running", 1)]));
    assert_eq!((&pass.plan.action, pass.count.release.len()), (&Action::Wait, 1), "its pods are let go");
}

#[test]
fn an_ended_pod_is_counted_once_its_finalizer_is_removed() {
    let job = job(json!({}), json!({"succeeded": 1}));
    let pods = pods(&[("Succeeded", 1), ("Failed", 1), ("Running", 1)]);
    let first = pass(&job, &pods);
    assert_eq!(first.counts(), [2, 1, 0, 1, 1]);
    assert_eq!(names(&first.count.release), ["Succeeded-0", "Failed-0"]);
    let status = first.count.settle(&HashSet::from(["Failed-0".to_owned()])).0;
    let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
    assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)));
    assert_eq!((uncounted.succeeded, uncounted.failed), (Some(vec!["Succeeded-0".into()]), None));
    let status = pass(&job, &pods).settled();
    assert_eq!((status.succeeded, status.failed), (Some(2), Some(1)));
}

#[test]
fn a_pod_whose_finalizer_is_gone_is_not_counted_again() {
    let counted = |name: &str| pod(name, "Succeeded", json!({"finalizers": []}));
    let waiting = json!({"uncountedTerminatedPods": {"succeeded": ["a", "b"], "failed": ["gone"]}});
    let pods = [counted("a"), pod("b", "Succeeded", json!({})), counted("c")];
    let pass = pass(&job(json!({}), waiting), &pods);
    assert_eq!(pass.counts(), [2, 1, 1, 1, 0]);
    assert_eq!(pass.settled().succeeded, Some(2));
}

#[test]
fn uids_of_so_many_pods_are_in_the_status_and_no_more() {
    let spec = json!({"completions": 600, "parallelism": 600});
    let pass = pass(&job(spec, json!({})), &pods(&[("Succeeded", 600)]));
    assert_eq!(pass.counts(), [0, 0, 0, 500, 0]);
    assert_eq!(pass.conditions(), ["SuccessCriteriaMet=True CompletionsReached"]);
    let status = pass.settled();
    assert_eq!((status.succeeded, conditions(&status).len()), (Some(500), 1), "the end waits for the rest");
}

#[test]
fn a_job_is_complete_once_its_pods_are_counted_and_gone() {
    for (spec, status, phases, completed) in [
        (json!({}), json!({"succeeded": 4}), &[("Succeeded", 1)][..], true),
        (json!({"completions": null}), json!({}), &[("Succeeded", 1)], true),
        (json!({"completions": null}), json!({}), &[("Succeeded", 1), ("Failed", 1)], true),
        (json!({"completions": 0}), json!({}), &[], true),
        (json!({}), json!({"succeeded": 4}), &[("Succeeded", 1), ("Deleted", 1)], false),
        (json!({}), json!({"succeeded": 3}), &[("Succeeded", 1)], false),
    ] {
        let status = pass(&job(spec.clone(), status), &pods(phases)).settled();
        let expected = ["SuccessCriteriaMet=True CompletionsReached", "Complete=True CompletionsReached"];
        assert_eq!(conditions(&status).ends_with(&expected.map(str::to_owned)), completed, "{spec} {phases:?}");
        assert_eq!(status.completion_time.is_some(), completed, "{spec} {phases:?}");
    }
}

#[test]
fn a_job_fails_by_its_limits_with_all_its_pods() {
    let restarted = |restarts: i32| {
        let status = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts}]);
        vec![pod("restarted", "Running", json!({"containerStatuses": status}))]
    };
    let on_failure = |limit: i32| {
        let template = json!({"spec": {"containers": [], "restartPolicy": "OnFailure"}});
        json!({"backoffLimit": limit, "template": template})
    };
    for (spec, status, pods, reason) in [
        (json!({"backoffLimit": 0}), json!({}), pods(&[("Failed", 1), ("Running", 1)]), "BackoffLimitExceeded"),
        (json!({"backoffLimit": 1}), json!({}), pods(&[("Failed", 1)]), ""),
        (json!({"backoffLimit": 1}), json!({"failed": 1}), pods(&[("Failed", 1)]), "BackoffLimitExceeded"),
        (json!({"backoffLimit": 0}), json!({}), pods(&[("Deleted", 1)]), "BackoffLimitExceeded"),
        (json!({"activeDeadlineSeconds": 3600}), json!({}), pods(&[("Running", 1)]), "DeadlineExceeded"),
        (json!({"activeDeadlineSeconds": 3601}), json!({}), pods(&[("Running", 1)]), ""),
        (json!({"activeDeadlineSeconds": 10, "suspend": true}), json!({}), pods(&[]), ""),
        (on_failure(0), json!({}), restarted(0), ""),
        (on_failure(0), json!({}), restarted(1), "BackoffLimitExceeded"),
        (on_failure(3), json!({}), restarted(2), ""),
        (on_failure(3), json!({}), restarted(3), "BackoffLimitExceeded"),
        (json!({"backoffLimit": 2}), json!({}), restarted(3), ""),
    ] {
        let pass = pass(&job(spec.clone(), status.clone()), &pods);
        let target = pass.conditions().into_iter().find(|c| c.starts_with("FailureTarget"));
        let expected = (!reason.is_empty()).then(|| format!("FailureTarget=True {reason}"));
        assert_eq!(target, expected, "{spec} {status}");
        if !reason.is_empty() {
            let all = pods.iter().filter(|pod| !is_terminating(pod)).count();
            assert_eq!(pass.count.release.len(), pods.len(), "every pod is let go");
            let status = pass.settled();
            assert!(status.failed.map_or(0, number) >= all, "and counted as failed");
        }
    }
}

#[test]
fn a_job_that_fails_is_failed_once_its_pods_are_gone() {
    let failing = job(json!({"backoffLimit": 0}), json!({}));
    let first = pass(&failing, &pods(&[("Failed", 1), ("Running", 2)]));
    assert_eq!((&first.plan.action, first.done.deleted), (&Action::End, 2));
    let status = first.settled();
    assert_eq!((status.active, status.failed, status.terminating), (None, Some(3), Some(2)));
    assert_eq!(conditions(&status), ["FailureTarget=True BackoffLimitExceeded"]);
    let second = pass(&Job { status: Some(status), ..failing }, &[]).settled();
    assert_eq!(conditions(&second), ["FailureTarget=True BackoffLimitExceeded", "Failed=True BackoffLimitExceeded"]);
    assert_eq!((second.failed, second.completion_time), (Some(3), None));
}

#[test]
fn a_job_does_not_end_before_all_its_pods_are_known() {
    let failing = job(json!({"backoffLimit": 0}), json!({}));
    let pass = pass_with(&failing, &pods(&[("Failed", 1), ("Running", 1)]), false, FailureStreak::default());
    assert_eq!((&pass.plan.action, pass.conditions()), (&Action::End, vec![]));
}

#[test]
fn a_suspended_job_has_no_pods_and_begins_anew_when_it_is_resumed() {
    let suspended = job(json!({"suspend": true}), json!({}));
    let first = pass(&suspended, &pods(&[("Running", 2)]));
    assert_eq!((first.done.deleted, first.counts()), (2, [0, 0, 0, 0, 0]), "its pods do not count as failed");
    assert_eq!(
        (first.conditions(), first.count.suspension),
        (vec!["Suspended=True JobSuspended".to_owned()], Some(true))
    );
    let status = first.settled();
    let again = pass(&Job { status: Some(status.clone()), ..suspended }, &[]);
    assert_eq!(again.count.suspension, None, "nothing new");
    let resumed = job(json!({"activeDeadlineSeconds": 10}), serde_json::to_value(&status).expect("a value"));
    let resumed = Job {
        status: Some(k8s_openapi::api::batch::v1::JobStatus { start_time: None, ..resumed.status.unwrap_or_default() }),
        ..resumed
    };
    let pass = pass(&resumed, &[]);
    assert_eq!((pass.done.created, pass.count.suspension), (2, Some(false)));
    assert_eq!(pass.conditions(), ["Suspended=False JobResumed"]);
    assert_eq!(pass.count.status.start_time.map(|time| time.0), Some(at(NOW)));
    let new = job(json!({"suspend": true}), json!({"startTime": null}));
    assert_eq!(self::pass(&new, &[]).count.status.start_time, None, "a Job that is suspended has not begun");
}

#[test]
fn failed_pods_are_replaced_after_a_back_off() {
    let failed_at =
        |time: &str| json!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": time}]});
    let pods = [pod("a", "Failed", failed_at("2026-01-01T00:59:55Z")), pod("b", "Running", json!({}))];
    let waits = pass(&job(json!({}), json!({})), &pods);
    assert_eq!((&waits.plan.action, waits.plan.wake.map(|wake| wake.as_secs())), (&Action::Wait, Some(5)));
    assert_eq!((waits.plan.streak.failures, waits.counts()), (1, [1, 0, 0, 0, 1]));
    let before = FailureStreak { failures: 1, last: Some(at("2026-01-01T00:59:49Z")) };
    let next = pass_with(&job(json!({}), json!({"failed": 1})), &pods[1..], true, before);
    assert_eq!(next.plan.action, Action::Create(1));
}

#[test]
fn the_failure_policy_says_what_counts() {
    let policy = |action: &str| {
        json!({"podFailurePolicy": {"rules": [{"action": action,
        "onExitCodes": {"operator": "In", "values": [5]}}]}})
    };
    let exited = json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": 5, "finishedAt": STARTED}}}]});
    let pods = [pod("a", "Failed", exited)];
    let ignored = pass(&job(policy("Ignore"), json!({})), &pods);
    assert_eq!((ignored.counts(), names(&ignored.count.release)), ([2, 0, 0, 0, 0], vec!["a"]));
    assert_eq!(pass(&job(policy("Count"), json!({})), &pods).counts(), [2, 0, 0, 0, 1]);
    let failed = pass(&job(policy("FailJob"), json!({})), &pods);
    assert_eq!(failed.conditions(), ["FailureTarget=True PodFailurePolicy"]);
    assert_eq!(conditions(&failed.settled()).last().map(String::as_str), Some("Failed=True PodFailurePolicy"));
}

#[test]
fn each_index_succeeds_once() {
    let spec = json!({"completions": 5, "parallelism": 3});
    let at_index = |name: &str, phase: &str, index: usize| pod(name, phase, json!({"index": index}));
    let pods = [at_index("a", "Succeeded", 1), at_index("b", "Running", 3), at_index("c", "Succeeded", 7)];
    let pass = pass(&indexed(spec, json!({"completedIndexes": "0", "succeeded": 1})), &pods);
    assert_eq!(pass.plan.action, Action::CreateIndexes(vec![2, 4]));
    assert_eq!(pass.count.status.completed_indexes.as_deref(), Some("0,1"));
    assert_eq!(pass.counts(), [3, 2, 0, 0, 0], "an index is counted by itself, without a uid");
    assert_eq!(names(&pass.count.release), ["a", "c"]);
}

#[test]
fn pods_of_no_index_or_of_one_that_another_has_are_deleted_first() {
    let spec = json!({"completions": 3, "parallelism": 3});
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": STARTED}]);
    let pods = [
        pod("beyond", "Running", json!({"index": 3})),
        pod("none", "Running", json!({})),
        pod("first", "Running", json!({"index": 0, "conditions": ready})),
        pod("twin", "Running", json!({"index": 0})),
        pod("second", "Running", json!({"index": 1})),
    ];
    let Action::Delete(deleted) = pass(&indexed(spec, json!({})), &pods).plan.action else { panic!("a deletion") };
    let deleted: HashSet<&str> = names(&deleted).into_iter().collect();
    assert_eq!(deleted, HashSet::from(["beyond", "none", "twin"]));
}

#[test]
fn an_index_fails_by_its_own_limit_and_its_replacement_knows_of_the_failures() {
    let spec = json!({"completions": 3, "parallelism": 3, "backoffLimit": 100, "backoffLimitPerIndex": 1});
    let failed =
        |name: &str, index: usize, failures: usize| pod(name, "Failed", json!({"index": index, "failures": failures}));
    let pods = [failed("a", 0, 0), failed("b", 1, 1), pod("c", "Running", json!({"index": 2, "failures": 0}))];
    let first = pass(&indexed(spec.clone(), json!({})), &pods);
    assert_eq!(first.plan.action, Action::CreateIndexes(vec![0]));
    assert_eq!(first.count.status.failed_indexes.as_deref(), Some("1"));
    assert_eq!(names(&first.count.release), ["b"], "`a` stays until its replacement is seen");
    let replaced = first.plan.replaced.get(&0).expect("a failed pod");
    let terms = indexed(spec.clone(), json!({}));
    let terms = Terms::of(&terms).expect("known terms");
    assert_eq!(pods::IndexFailures::after(replaced, &terms).counted, 1);
    let replacement = pod("d", "Running", json!({"index": 0, "failures": 1}));
    let second = pass(&indexed(spec, json!({"failedIndexes": "1"})), &[pods[0].clone(), replacement, pods[2].clone()]);
    assert_eq!(names(&second.count.release), ["a"]);
}

#[test]
fn failed_indexes_end_the_job_when_there_are_too_many_or_nothing_is_left() {
    for (spec, completed, failed, reason) in [
        (json!({}), "0,2", "1", "FailedIndexes"),
        (json!({}), "0", "1", ""),
        (json!({"maxFailedIndexes": 1}), "", "0,1", "MaxFailedIndexesExceeded"),
        (json!({"maxFailedIndexes": 2}), "", "0,1", ""),
    ] {
        let mut spec = spec;
        spec["completions"] = 3.into();
        spec["backoffLimitPerIndex"] = 0.into();
        let status = json!({"completedIndexes": completed, "failedIndexes": failed});
        let pass = pass(&indexed(spec.clone(), status), &[]);
        let expected: Vec<String> =
            (!reason.is_empty()).then(|| format!("FailureTarget=True {reason}")).into_iter().collect();
        assert_eq!(pass.conditions(), expected, "{spec} {completed} {failed}");
    }
}

#[test]
fn the_success_policy_ends_the_job_and_its_other_pods_do_not_count_as_failed() {
    let spec = json!({"completions": 5, "parallelism": 5, "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    let pods = [pod("a", "Succeeded", json!({"index": 0})), pod("b", "Running", json!({"index": 1}))];
    let met = pass(&indexed(spec, json!({})), &pods);
    assert_eq!((met.done.deleted, met.counts()), (1, [0, 1, 0, 0, 0]));
    let status = met.settled();
    assert_eq!(conditions(&status), ["SuccessCriteriaMet=True SuccessPolicy"]);
    assert_eq!((status.completed_indexes.as_deref(), status.failed), (Some("0"), None));
    let spec = json!({"completions": 5, "parallelism": 5, "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    let ended = pass(&indexed(spec, serde_json::to_value(&status).expect("a value")), &[]).settled();
    assert_eq!(conditions(&ended), ["SuccessCriteriaMet=True SuccessPolicy", "Complete=True SuccessPolicy"]);
}
