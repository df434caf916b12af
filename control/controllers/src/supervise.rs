//! Long-running tasks: one that panics or returns is started again with back-off, is counted,
//! and can be asked about.
//!
//! What a task does is its own; this module only decides when it runs. `/readyz` and `/metrics` read
//! [`Supervisor::status`].

use std::{
    any::Any,
    fmt,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, info, warn};

/// When a failed task is started again, and how long tasks may take to finish.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The wait before the first restart; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest wait before a restart.
    pub max_delay: Duration,
    /// A task that ran for this long has recovered: the next failure waits `first_delay` again.
    pub recovered_after: Duration,
    /// How long [`Supervisor::shutdown`] waits for tasks before it drops them.
    pub drain_limit: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            recovered_after: Duration::from_secs(60),
            drain_limit: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// The wait before a restart, given the wait before the last one and how long the task ran since.
    fn delay(&self, last: Option<Duration>, ran: Duration) -> Duration {
        match last.filter(|_| ran < self.recovered_after) {
            None => self.first_delay,
            Some(last) => last.saturating_mul(2).min(self.max_delay),
        }
    }
}

/// Makes a task, from the token that asks it to finish.
type Make = dyn Fn(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync;

/// Runs named tasks until [`Supervisor::shutdown`]. Cheap to clone; clones share the tasks.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    timing: Timing,
    /// In the order of their start. Tasks stay listed after the end, so that a late `/readyz` still says what ended.
    tasks: Mutex<Vec<Arc<Task>>>,
    tracker: TaskTracker,
    /// Asks tasks to finish.
    stop: CancellationToken,
    /// Drops tasks that did not finish in time.
    abort: CancellationToken,
}

#[derive(Debug)]
struct Task {
    name: Arc<str>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    restarts: u64,
    state: TaskState,
    last_failure: Option<TaskFailure>,
}

/// What a task does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It runs, since its start or its last restart.
    Running,
    /// It failed and is started again when the back-off is over.
    BackingOff,
    /// It was asked to finish and did.
    Stopped,
}

/// Why a task had to be started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    /// When the task ended.
    pub at: SystemTime,
    /// How it ended.
    pub cause: FailureCause,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// It returned though nobody had asked it to finish.
    Returned,
    /// It panicked, with this message.
    Panicked(String),
}

/// One task as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// As the task was started under; a label of metrics.
    pub name: Arc<str>,
    /// How often the task was started again.
    pub restarts: u64,
    /// Whether it runs now.
    pub state: TaskState,
    /// `None` for one that has never been started again.
    pub last_failure: Option<TaskFailure>,
}

impl Supervisor {
    /// Starts the task that `make` makes, and makes it anew each time it panics or returns before it was asked to
    /// finish. The token is cancelled by [`Supervisor::shutdown`]; the task should then finish soon
    /// ([`Timing::drain_limit`], 10 s).
    ///
    /// After a shutdown nothing is started.
    pub fn spawn(
        &self,
        name: impl Into<Arc<str>>,
        make: impl Fn(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        self.spawn_boxed(name.into(), Box::new(make));
    }

    /// Boxed: compiled once, not once a task.
    fn spawn_boxed(&self, name: Arc<str>, make: Box<Make>) {
        let progress = Progress { restarts: 0, state: TaskState::Running, last_failure: None };
        let task = Arc::new(Task { name: name.clone(), progress: Mutex::new(progress) });
        self.inner.tasks.lock().push(task.clone());
        let (timing, stop, abort) = (self.inner.timing, self.inner.stop.clone(), self.inner.abort.clone());
        let span = tracing::info_span!("task", name = &*name);
        let run = async move {
            if abort.run_until_cancelled(task.run(&*make, &timing, &stop)).await.is_none() {
                warn!("the task did not finish in time and was dropped");
            }
            task.progress.lock().state = TaskState::Stopped;
        };
        self.inner.tracker.spawn(run.instrument(span));
    }

    /// Every task, in the order of their start.
    pub fn status(&self) -> Vec<TaskStatus> {
        self.inner.tasks.lock().iter().map(|task| task.status()).collect()
    }

    /// Asks all tasks to finish and waits until they have; those that do not in time are dropped.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tracker.close();
        if timeout(self.inner.timing.drain_limit, self.inner.tracker.wait()).await.is_err() {
            self.inner.abort.cancel();
            self.inner.tracker.wait().await;
        }
    }
}

impl Task {
    async fn run(&self, make: &Make, timing: &Timing, stop: &CancellationToken) {
        let mut delay = None;
        while !stop.is_cancelled() {
            self.progress.lock().state = TaskState::Running;
            let started = Instant::now();
            // `make` itself may panic, so it is called within.
            let ended = AssertUnwindSafe(async { make(stop.child_token()).await }).catch_unwind().await;
            let cause = match ended {
                Ok(()) if stop.is_cancelled() => break,
                Ok(()) => FailureCause::Returned,
                Err(payload) => FailureCause::Panicked(panic_message(&*payload)),
            };
            let wait = timing.delay(delay, started.elapsed());
            error!(cause = %cause, restart_after = ?wait, "the task failed and is started again");
            {
                let mut progress = self.progress.lock();
                progress.state = TaskState::BackingOff;
                progress.last_failure = Some(TaskFailure { at: SystemTime::now(), cause });
            }
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                break;
            }
            delay = Some(wait);
            let mut progress = self.progress.lock();
            progress.restarts = progress.restarts.saturating_add(1);
        }
        info!("the task stopped");
    }

    fn status(&self) -> TaskStatus {
        let progress = self.progress.lock();
        TaskStatus {
            name: self.name.clone(),
            restarts: progress.restarts,
            state: progress.state,
            last_failure: progress.last_failure.clone(),
        }
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("it returned unexpectedly"),
            Self::Panicked(message) => write!(f, "it panicked: {message}"),
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    fn quick() -> Supervisor {
        let (first_delay, drain_limit) = (Duration::from_millis(1), Duration::from_millis(20));
        let timing = Timing { first_delay, drain_limit, ..Timing::default() };
        Supervisor { inner: Arc::new(Inner { timing, ..Inner::default() }) }
    }

    /// A task that says at each start which one it is, returns at the first, panics at the second and then runs.
    fn failing_twice(supervisor: &Supervisor) -> mpsc::UnboundedReceiver<u32> {
        let (starts, heard) = mpsc::unbounded_channel();
        let count = AtomicU32::new(0);
        supervisor.spawn("failing", move |stop| {
            let start = count.fetch_add(1, Ordering::Relaxed);
            starts.send(start).expect("the test listens");
            Box::pin(async move {
                match start {
                    0 => {}
                    1 => panic!("out of {}", "luck"),
                    _ => stop.cancelled().await,
                }
            })
        });
        heard
    }

    #[tokio::test]
    async fn a_task_that_panics_or_returns_is_started_again_and_counted() {
        let supervisor = quick();
        let mut starts = failing_twice(&supervisor);
        assert_eq!(starts.recv().await, Some(0));
        assert_eq!(starts.recv().await, Some(1));
        assert_eq!(starts.recv().await, Some(2));
        let [status] = supervisor.status().try_into().expect("one task");
        assert_eq!((&*status.name, status.restarts, status.state), ("failing", 2, TaskState::Running));
        assert_eq!(status.last_failure.map(|f| f.cause), Some(FailureCause::Panicked("out of luck".into())));
        supervisor.shutdown().await;
        assert_eq!(supervisor.status()[0].state, TaskState::Stopped);
    }

    #[test]
    fn the_wait_doubles_up_to_a_bound_and_begins_again_after_a_recovery() {
        let timing = Timing::default();
        let mut delay = None;
        let waits: Vec<u128> = std::iter::repeat_with(|| {
            delay = Some(timing.delay(delay, Duration::from_secs(1)));
            delay.map_or(0, |delay| delay.as_millis())
        })
        .take(10)
        .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
        assert_eq!(timing.delay(delay, timing.recovered_after), timing.first_delay);
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_tasks_and_drops_those_that_do_not_finish() {
        let supervisor = quick();
        supervisor.spawn("good", |stop| Box::pin(async move { stop.cancelled().await }));
        supervisor.spawn("deaf", |_| Box::pin(std::future::pending()));
        supervisor.spawn("fails", |_| Box::pin(async { panic!("now") }));
        supervisor.shutdown().await;
        let states: Vec<_> = supervisor.status().into_iter().map(|s| s.state).collect();
        assert_eq!(states, [TaskState::Stopped; 3]);
        supervisor.spawn("late", |_| Box::pin(async { panic!("it must not start") }));
        supervisor.shutdown().await;
        assert_eq!(supervisor.status()[3].last_failure, None);
    }
}
