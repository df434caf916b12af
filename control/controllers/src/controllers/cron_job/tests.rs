//! Passes over CronJobs. The cases are those of Kubernetes' own tests of its CronJob controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::{
    controllers::fixtures::{api, list},
    engine::Taken,
    objects::informers::Informers,
};

const CREATED: &str = "2026-05-19T09:30:00Z";

fn at(text: &str) -> Timestamp {
    format!("2026-05-19T{text}Z").parse().expect("a valid time")
}

fn cron_job(spec: Value, status: Value) -> CronJob {
    let mut whole = json!({"schedule": "0 * * * *", "timeZone": "Etc/UTC", "concurrencyPolicy": "Allow",
        "jobTemplate": {"metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}}, "spec": {"template": {}}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    let meta = json!({"name": "c", "namespace": "ns", "uid": "cron", "creationTimestamp": CREATED});
    serde_json::from_value(json!({"metadata": meta, "spec": whole, "status": status})).expect("a valid CronJob")
}

fn decision(spec: Value, status: Value, now: &str) -> (Option<Timestamp>, Option<u64>, Vec<&'static str>) {
    let cron_job = cron_job(spec, status);
    let decision = decide(&cron_job, &cron_job.status.clone().unwrap_or_default(), at(now));
    let reasons = decision.events.iter().map(|(_, reason, _)| *reason).collect();
    (decision.start, decision.wake.map(|wake| wake.as_secs()), reasons)
}

#[test]
fn a_job_is_started_for_the_last_time_that_was_missed() {
    let last = |time: &str| json!({"lastScheduleTime": format!("2026-05-19T{time}Z")});
    let running = json!({"active": [{"kind": "Job", "name": "c-1", "namespace": "ns", "uid": "1"}],
        "lastScheduleTime": "2026-05-19T10:00:00Z"});
    for (spec, status, now, start, wake, reasons) in [
        (json!({}), json!({}), "09:45:00", None, Some(900), vec![]),
        (json!({}), json!({}), "10:00:00", Some("10:00:00"), Some(3600), vec![]),
        (json!({}), last("10:00:00"), "10:00:05", None, Some(3595), vec![]),
        (json!({}), last("10:00:00"), "12:30:00", Some("12:00:00"), Some(1800), vec![]),
        (json!({"suspend": true}), json!({}), "10:00:00", None, None, vec![]),
        (json!({"schedule": "x"}), json!({}), "10:00:00", None, None, vec!["UnparseableSchedule"]),
        (json!({"timeZone": "Nowhere"}), json!({}), "10:00:00", None, None, vec!["UnknownTimeZone"]),
        (json!({"schedule": "59 23 31 2 *"}), json!({}), "10:00:00", None, None, vec!["InvalidSchedule"]),
        (
            json!({"schedule": "TZ=UTC 0 * * * *"}),
            json!({}),
            "10:00:00",
            Some("10:00:00"),
            Some(3600),
            vec!["UnsupportedSchedule"],
        ),
        (json!({"startingDeadlineSeconds": 200}), json!({}), "10:03:00", Some("10:00:00"), Some(3420), vec![]),
        (json!({"startingDeadlineSeconds": 100}), json!({}), "10:03:00", None, Some(3420), vec![]),
        (
            json!({"schedule": "* * * * *"}),
            json!({}),
            "20:00:30",
            Some("20:00:00"),
            Some(30),
            vec!["TooManyMissedTimes"],
        ),
        (
            json!({"schedule": "* * * * *", "startingDeadlineSeconds": 120}),
            json!({}),
            "20:00:30",
            Some("20:00:00"),
            Some(30),
            vec![],
        ),
        (json!({}), running.clone(), "11:00:01", Some("11:00:00"), Some(3599), vec![]),
        (
            json!({"concurrencyPolicy": "Forbid"}),
            running.clone(),
            "11:00:01",
            None,
            Some(3599),
            vec!["JobAlreadyActive"],
        ),
        (json!({"concurrencyPolicy": "Forbid"}), last("10:00:00"), "11:00:01", Some("11:00:00"), Some(3599), vec![]),
    ] {
        let expected = (start.map(at), wake, reasons);
        assert_eq!(decision(spec.clone(), status.clone(), now), expected, "{spec} {status} {now}");
    }
}

#[test]
fn the_job_of_a_time_is_started_once() {
    let minutes = at("10:00:00").as_second() / 60;
    let status = json!({"active": [{"kind": "Job", "name": format!("c-{minutes}"), "namespace": "ns", "uid": "1"}]});
    assert_eq!(decision(json!({}), status, "10:00:01").0, None);
    let replacing = cron_job(json!({"concurrencyPolicy": "Replace"}), json!({}));
    assert!(decide(&replacing, &CronJobStatus::default(), at("10:00:01")).replace);
}

#[test]
fn a_job_says_for_which_time_it_runs() {
    for (zone, written) in [
        (json!("Etc/UTC"), "2026-05-19T10:00:00Z"),
        (Value::Null, "2026-05-19T10:00:00Z"),
        (json!("Europe/Berlin"), "2026-05-19T12:00:00+02:00"),
    ] {
        let cron_job = cron_job(json!({"timeZone": zone}), json!({}));
        let spec = cron_job.spec.clone().expect("a spec");
        let job = desired(&cron_job, &spec, at("10:00:00"));
        let annotations = job.metadata.annotations.expect("annotations");
        assert_eq!(annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"], written);
        assert_eq!(annotations["x"], "y");
        assert_eq!(job.metadata.name, Some(format!("c-{}", at("10:00:00").as_second() / 60)));
        assert!(
            job.metadata.owner_references.is_some_and(|owners| owners[0].uid == "cron" && owners[0].kind == "CronJob")
        );
    }
}

fn job(name: &str, start: Option<&str>, end: Option<(&str, &str)>) -> Arc<Job> {
    let mut job = json!({"metadata": {"name": name, "uid": name}, "status": {}});
    if let Some(start) = start {
        job["status"]["startTime"] = format!("2026-05-19T{start}Z").into();
    }
    if let Some((kind, time)) = end {
        job["status"]["conditions"] = json!([{"type": kind, "status": "True"}]);
        if kind == "Complete" {
            job["status"]["completionTime"] = format!("2026-05-19T{time}Z").into();
        }
    }
    Arc::new(serde_json::from_value(job).expect("a valid Job"))
}

#[test]
fn the_status_follows_the_jobs() {
    let active =
        |names: &[&str]| -> Value { names.iter().map(|n| json!({"kind": "Job", "name": n, "uid": n})).collect() };
    let cron_job = cron_job(
        json!({}),
        json!({"active": active(&["done", "runs", "gone"]),
        "lastSuccessfulTime": "2026-05-19T08:00:00Z"}),
    );
    let jobs = [
        job("done", None, Some(("Complete", "10:05:00"))),
        job("earlier", None, Some(("Complete", "09:05:00"))),
        job("failed", None, Some(("Failed", "10:15:00"))),
        job("runs", None, None),
        job("foreign", None, None),
    ];
    let observed = observe(&cron_job, &jobs);
    let names: Vec<_> = plan::active(&observed.status).iter().filter_map(|job| job.name.as_deref()).collect();
    assert_eq!(names, ["runs", "gone"]);
    assert_eq!(observed.status.last_successful_time, Some(Time(at("10:05:00"))));
    assert_eq!(observed.unseen.iter().filter_map(|job| job.name.as_deref()).collect::<Vec<_>>(), ["gone"]);
    let events: Vec<String> =
        observed.events.into_iter().map(|(_, reason, message)| format!("{reason}: {message}")).collect();
    assert_eq!(
        events,
        [
            "SawCompletedJob: Saw completed job: done, condition: Complete",
            "UnexpectedJob: Saw a job that the controller did not create or forgot: foreign"
        ]
    );
}

#[test]
fn the_oldest_finished_jobs_beyond_the_limits_go() {
    let jobs = [
        job("s3", Some("03:00:00"), Some(("Complete", "03:01:00"))),
        job("s1", Some("01:00:00"), Some(("Complete", "01:01:00"))),
        job("s2", Some("02:00:00"), Some(("Complete", "02:01:00"))),
        job("never", None, Some(("Failed", ""))),
        job("f1", Some("01:00:00"), Some(("Failed", ""))),
        job("runs", Some("00:00:00"), None),
    ];
    let going = |successful: Value, failed: Value| -> Vec<String> {
        let spec = json!({"successfulJobsHistoryLimit": successful, "failedJobsHistoryLimit": failed});
        let spec = cron_job(spec, json!({})).spec.expect("a spec");
        surplus(&spec, &jobs).iter().filter_map(|job| job.metadata.name.clone()).collect()
    };
    assert_eq!(going(json!(1), json!(1)), ["s1", "s2", "f1"]);
    assert_eq!(going(json!(0), json!(2)), ["s1", "s2", "s3"]);
    assert_eq!(going(Value::Null, Value::Null), [] as [&str; 0]);
}

#[tokio::test]
async fn a_job_wakes_the_cron_job_that_made_it_and_not_the_next_of_that_name() {
    let informers = Informers::new();
    list(&informers.cron_jobs, [cron_job(json!({}), json!({}))]).await;
    let controller = Controller {
        client: api(|_| 200),
        cron_jobs: informers.cron_jobs,
        jobs: informers.jobs,
        writes: OwnWrites::default(),
        recorder: Recorder::silent(),
    };
    let queue = WorkQueue::new("test");
    let wakes = |uid: &str| {
        let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": uid, "controller": true});
        let job = json!({"metadata": {"name": "j", "namespace": "ns", "uid": "j", "ownerReferences": [owner]}});
        let job: Job = serde_json::from_value(job).expect("a valid Job");
        let change = ObjectChange { key: Key::of(&job), old: None, new: Some(Arc::new(job)) };
        controller.job_changed(&change, &queue);
        matches!(queue.take(tokio::time::Instant::now()), Taken::Key(_))
    };
    assert!(!wakes("earlier"));
    assert!(wakes("cron"));
}
