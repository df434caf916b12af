//! CronJobs over time.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::{Cluster, create_in_default, jobs::is_finished, patch};

fn cron_job(name: &str, image: &str, spec: Value) -> Value {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}});
    let jobs = json!({"metadata": {"labels": {"cron": name}}, "spec": {"template": template}});
    let mut cron_job = json!({"metadata": {"name": name}, "spec": {"schedule": "@every 1s", "jobTemplate": jobs}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        cron_job["spec"][key] = value.clone();
    }
    cron_job
}

fn active(cron_job: &CronJob) -> usize {
    cron_job.status.as_ref().and_then(|status| status.active.as_ref()).map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_started_in_time_and_the_oldest_go() {
    let cluster = Cluster::start(1).await;
    let api = cluster.api::<CronJob>();
    create_in_default(&api, cron_job("tick", "exit-0", json!({"successfulJobsHistoryLimit": 1}))).await;
    let succeeded = |cron_job: &CronJob| {
        let status = cron_job.status.as_ref();
        status.is_some_and(|status| status.last_schedule_time.is_some() && status.last_successful_time.is_some())
    };
    cluster.wait::<CronJob>("tick", "successful", succeeded).await;
    let jobs = cluster.wait_list::<Job>("cron=tick", "one Job at least", |jobs| !jobs.is_empty()).await;
    let first = jobs[0].metadata.name.clone();
    assert!(
        jobs[0]
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| { all.contains_key("batch.kubernetes.io/cronjob-scheduled-timestamp") })
    );
    assert!(jobs[0].metadata.owner_references.iter().flatten().any(|owner| owner.name == "tick"));
    // Names tell minutes apart: that of the first is free again in the next minute.
    patch(&api, "tick", json!({"spec": {"suspend": true, "successfulJobsHistoryLimit": 0}})).await;
    let gone = |jobs: &[Job]| jobs.iter().all(|job| job.metadata.name != first);
    cluster.wait_list::<Job>("cron=tick", "without the first", gone).await;
    cluster.wait::<CronJob>("tick", "idle", |cron_job| active(cron_job) == 0).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_deleted_is_active_no_more() {
    let cluster = Cluster::start(1).await;
    let api = cluster.api::<CronJob>();
    create_in_default(&api, cron_job("long", "long", json!({"concurrencyPolicy": "Forbid"}))).await;
    cluster.wait::<CronJob>("long", "active", |cron_job| active(cron_job) == 1).await;
    patch(&api, "long", json!({"spec": {"suspend": true}})).await;
    let jobs = cluster.wait_list::<Job>("cron=long", "one Job", |jobs| jobs.len() == 1).await;
    assert!(!is_finished(&jobs[0]));
    let name = jobs[0].metadata.name.as_deref().unwrap_or_default();
    cluster.api::<Job>().delete(name, &kube::api::DeleteParams::background()).await.expect("deleted");
    cluster.wait::<CronJob>("long", "idle", |cron_job| active(cron_job) == 0).await;
    cluster.stop().await;
}
