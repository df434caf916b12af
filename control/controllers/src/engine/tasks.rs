//! The supervised tasks of one group (the controllers, or the scheduler), stopped together, and the queues they drain.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::queue::{Measured, QueueStats};
use crate::supervise::{Supervisor, TaskStatus};

/// How long tasks may take to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A group of tasks. One that panics or returns before the group is stopped is started again with back-off.
#[derive(Default)]
pub struct Tasks {
    supervisor: Supervisor,
    queues: Mutex<Vec<Arc<dyn Measured>>>,
}

impl Tasks {
    /// Starts the task that `make` makes, and makes it again each time it fails. The token is cancelled at shutdown.
    pub fn spawn(
        &self,
        name: &'static str,
        make: impl Fn(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        self.supervisor.spawn(name, make);
    }

    /// Shows the counters of `queue` in [`Self::queues`].
    pub fn measure(&self, queue: Arc<dyn Measured>) {
        self.queues.lock().push(queue);
    }

    /// Every task and how often it was started again.
    pub fn status(&self) -> Vec<TaskStatus> {
        self.supervisor.tasks()
    }

    /// The counters of every queue.
    pub fn queues(&self) -> Vec<QueueStats> {
        self.queues.lock().iter().map(|queue| queue.stats()).collect()
    }

    /// Stops all tasks and returns when the last has ended. Those that take too long are dropped.
    pub async fn shutdown(&self) {
        self.supervisor.shutdown_within(DRAIN_LIMIT).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_started_again_until_the_group_is_stopped() {
        let tasks = Tasks::default();
        let (starts, mut heard) = mpsc::unbounded_channel();
        tasks.spawn("test", move |_| {
            starts.send(()).expect("the test listens");
            async {}.boxed()
        });
        for _ in 0..3 {
            heard.recv().await.expect("a start");
        }
        tasks.shutdown().await;
        assert!(tasks.status()[0].restarts >= 2);
    }
}
