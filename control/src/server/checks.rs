//! What the composed service adds to health checks and metrics: its supervised tasks, and the heartbeat.

use std::sync::{Arc, Weak};

use fairlead_encryption::Encryption;
use tokio_util::sync::CancellationToken;

use super::Workers;
use crate::{
    api::Api,
    controllers::Controllers,
    health::{BEAT, CheckFailure, CheckResult, Health, HealthEndpoint},
    metrics,
    scheduler::Scheduler,
    supervise::{Supervisor, TaskStatus},
};

/// The parts of the service that report on themselves. Weak: they hold clients of the API, which holds its checks.
#[derive(Clone)]
struct Parts {
    supervisor: Supervisor,
    controllers: Weak<Controllers>,
    scheduler: Weak<Scheduler>,
}

impl Parts {
    fn tasks(&self) -> Vec<TaskStatus> {
        let controllers = self.controllers.upgrade().map(|controllers| controllers.tasks());
        let scheduler = self.scheduler.upgrade().map(|scheduler| scheduler.tasks());
        self.supervisor.tasks().into_iter().chain(controllers.into_iter().chain(scheduler).flatten()).collect()
    }

    /// The kinds whose first listing is not complete.
    fn unsynced(&self) -> Vec<String> {
        let informers = self.controllers.upgrade().map(|controllers| controllers.informers().status());
        informers.into_iter().flatten().filter(|informer| !informer.synced).map(|informer| informer.kind).collect()
    }
}

/// Adds tasks, informers, queues and the scheduler to the checks and the metrics of `api`.
pub(super) fn add(api: &Api, supervisor: &Supervisor, workers: Option<&Workers>) {
    let parts = Parts {
        supervisor: supervisor.clone(),
        controllers: workers.map(|workers| Arc::downgrade(&workers.controllers)).unwrap_or_default(),
        scheduler: workers.map(|workers| Arc::downgrade(&workers.scheduler)).unwrap_or_default(),
    };
    let told = parts.clone();
    api.metrics().add(move |scrape| {
        metrics::tell_tasks(scrape, &told.tasks())?;
        let queues = told.controllers.upgrade().map(|controllers| controllers.queues()).unwrap_or_default();
        metrics::tell_work_queues(scrape, &queues)?;
        match told.scheduler.upgrade() {
            Some(scheduler) => metrics::tell_scheduler(scrape, &scheduler.stats()),
            None => Ok(()),
        }
    });
    let asked = parts.clone();
    api.health().add("informer-sync", &[HealthEndpoint::Ready], move || match asked.unsynced() {
        unsynced if unsynced.is_empty() => Ok(String::new()),
        unsynced => Err(CheckFailure::new(format!("not listed yet: {}", unsynced.join(", ")))),
    });
    // Asked for by their names, as ComponentStatuses.
    let asked = parts.clone();
    api.health().add("controller-manager", &[], move || {
        check_tasks(&asked.controllers.upgrade().map(|controllers| controllers.tasks()).unwrap_or_default())
    });
    let asked = parts.clone();
    api.health().add("scheduler", &[], move || {
        check_tasks(&asked.scheduler.upgrade().map(|scheduler| scheduler.tasks()).unwrap_or_default())
    });
    api.health().add("tasks", &[HealthEndpoint::Ready, HealthEndpoint::Healthy], move || check_tasks(&parts.tasks()));
}

/// Adds the health of key services, as kube-apiserver names it; but for `/livez`: a restart would make it worse, since
/// nothing could be decrypted.
pub(super) fn add_key_services(api: &Api, encryption: Arc<Encryption>) {
    api.health().add("kms-providers", &[HealthEndpoint::Ready, HealthEndpoint::Healthy], move || {
        // Only the name: the cause may say where the service is.
        encryption.health().map(|()| String::new()).map_err(|failure| CheckFailure::new(failure.to_string()))
    });
}

/// Beats until `stop`.
pub async fn beat(health: Health, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(BEAT);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        health.beat();
    }
}

/// All tasks run; those that had to be started again are named with their number of restarts, and not with their
/// panic's message, which may quote an object.
fn check_tasks(tasks: &[TaskStatus]) -> CheckResult {
    let has_failed = |task: &TaskStatus| task.failure.is_some();
    let name = |task: &TaskStatus| match has_failed(task) {
        true => format!("{} failed and waits for its restart ({} before)", task.name, task.restarts),
        false => format!("{} restarted {} times", task.name, task.restarts),
    };
    let restarted = |task: &&TaskStatus| task.restarts > 0 || has_failed(task);
    let remark = tasks.iter().filter(restarted).map(name).collect::<Vec<_>>().join(", ");
    match tasks.iter().any(has_failed) {
        true => Err(CheckFailure::new(remark)),
        false => Ok(remark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &'static str, restarts: u64, failure: Option<&str>) -> TaskStatus {
        TaskStatus { name, restarts, failure: failure.map(str::to_owned) }
    }

    async fn get(client: &kube::Client, path: &str) -> Result<String, kube::Error> {
        client.request_text(http::Request::get(path).body(Vec::new()).expect("a request")).await
    }

    #[tokio::test]
    async fn a_running_service_tells_of_its_tasks_queues_and_scheduler() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = crate::Config::new(dir.path());
        config.bind = ([127, 0, 0, 1], 0).into();
        let running = crate::start(config.clone()).await.expect("a service");
        let client = running.client();
        let ready = async {
            loop {
                match get(&client, "/readyz?verbose").await {
                    Ok(text) => break text,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let ready = tokio::time::timeout(std::time::Duration::from_secs(60), ready).await.expect("it becomes ready");
        for check in ["ping", "log", "shutdown", "store", "informer-sync", "tasks"] {
            assert!(ready.contains(&format!("[+]{check} ok")), "{check}: {ready}");
        }
        assert!(get(&client, "/livez?verbose").await.expect("it lives").contains("[+]store-open ok"));
        let metrics = get(&client, "/metrics").await.expect("metrics");
        for start in [
            "fairlead_task_running{task=\"heartbeat\"} 1",
            "fairlead_task_running{task=\"scheduler\"} 1",
            "workqueue_adds_total{name=\"",
            "workqueue_queue_duration_seconds_count{name=\"",
            "scheduler_schedule_attempts_total{result=\"scheduled\"}",
            "etcd_disk_backend_commit_duration_seconds_count ",
            "etcd_disk_wal_fsync_duration_seconds_count ",
            "process_resident_memory_bytes ",
            "fairlead_certificate_expiration_timestamp_seconds{name=\"serving\"} ",
            "fairlead_connections{class=\"node\"} ",
            "fairlead_connections_limit{class=\"stranger\"} ",
        ] {
            assert!(metrics.lines().any(|line| line.starts_with(start)), "{start} in\n{metrics}");
        }
        let components = get(&client, "/api/v1/componentstatuses").await.expect("a list");
        let components: serde_json::Value = serde_json::from_str(&components).expect("JSON");
        let names: Vec<&str> = components["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names, ["controller-manager", "etcd-0", "scheduler"]);
        drop(client);
        running.shutdown().await;
        // Nothing that tells of the service keeps it alive: once the workers of its clients have ended, its store is
        // free.
        let again = async {
            loop {
                match crate::start(config.clone()).await {
                    Ok(again) => break again,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let again = tokio::time::timeout(std::time::Duration::from_secs(30), again).await.expect("it starts again");
        again.shutdown().await;
    }

    #[test]
    fn a_task_that_waits_for_its_restart_fails_the_check_and_one_that_recovered_is_named() {
        let healthy = task("a", 0, None);
        assert_eq!(check_tasks(std::slice::from_ref(&healthy)), Ok(String::new()));
        let recovered = task("b", 2, None);
        assert_eq!(check_tasks(&[healthy.clone(), recovered]), Ok("b restarted 2 times".to_owned()));
        let failed = task("c", 0, Some("it panicked: no {\"secret\"}"));
        assert_eq!(
            check_tasks(&[healthy, failed]),
            Err(CheckFailure::new("c failed and waits for its restart (0 before)"))
        );
    }
}
