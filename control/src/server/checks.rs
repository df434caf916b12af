//! What the composed service adds to health checks and metrics: its supervised tasks, and the heartbeat.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    health::{BEAT, Endpoint, Health, Outcome},
    metrics,
    supervise::{TaskState, TaskStatus},
};

/// Adds the tasks that `status` tells of to the checks and the metrics of `api`.
pub fn add(api: &Api, status: impl Fn() -> Vec<TaskStatus> + Send + Sync + 'static) {
    let status = Arc::new(status);
    let told = status.clone();
    api.metrics().add(move |scrape| metrics::tell_tasks(scrape, &told()));
    api.health().add("tasks", &[Endpoint::Ready, Endpoint::Healthy], move || check_tasks(&status()));
}

/// Beats until `stop`.
pub async fn beat(health: Health, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(BEAT);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        health.beat();
    }
}

/// All tasks run; those that had to be started again are named with their number of restarts, and not with their panic's
/// message, which may quote an object.
fn check_tasks(tasks: &[TaskStatus]) -> Outcome {
    let restarted = |task: &&TaskStatus| task.restarts > 0 || task.state == TaskState::BackingOff;
    let name = |task: &TaskStatus| match task.state {
        TaskState::BackingOff => format!("{} failed and waits for its restart ({} before)", task.name, task.restarts),
        TaskState::Running | TaskState::Stopped => format!("{} restarted {} times", task.name, task.restarts),
    };
    let remark = tasks.iter().filter(restarted).map(name).collect::<Vec<_>>().join(", ");
    match tasks.iter().any(|task| task.state == TaskState::BackingOff) {
        true => Err(remark),
        false => Ok(remark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, restarts: u64, state: TaskState) -> TaskStatus {
        TaskStatus { name: name.into(), restarts, state, last_failure: None }
    }

    #[test]
    fn a_task_that_waits_for_its_restart_fails_the_check_and_one_that_recovered_is_named() {
        let healthy = task("a", 0, TaskState::Running);
        assert_eq!(check_tasks(&[healthy.clone()]), Ok(String::new()));
        let recovered = task("b", 2, TaskState::Running);
        assert_eq!(check_tasks(&[healthy.clone(), recovered]), Ok("b restarted 2 times".to_owned()));
        let failed = task("c", 0, TaskState::BackingOff);
        assert_eq!(check_tasks(&[healthy, failed]), Err("c failed and waits for its restart (0 before)".to_owned()));
    }
}
