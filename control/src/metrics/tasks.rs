//! Supervised tasks: whether they run, and how often they had to be started again.

use std::fmt;

use super::{Labels, Scrape};
use crate::supervise::TaskStatus;

/// Tells of `tasks`.
pub fn tell(scrape: &mut Scrape<'_>, tasks: &[TaskStatus]) -> fmt::Result {
    let labels: Vec<[(&str, &str); 1]> = tasks.iter().map(|task| [("task", task.name)]).collect();
    let labelled = || labels.iter().map(|labels| labels as Labels<'_>).zip(tasks);
    let restarts = labelled().map(|(labels, task)| (labels, task.restarts));
    scrape.counters("fairlead_task_restarts", "How often a task that had failed was started again.", restarts)?;
    let running = labelled().map(|(labels, task)| (labels, f64::from(u8::from(task.failure.is_none()))));
    scrape.gauges("fairlead_task_running", "Whether a task runs: 1, or 0 while it waits for its restart.", running)
}
