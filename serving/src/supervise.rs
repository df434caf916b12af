//! Keeps tasks running: one that panics or ends early is started again with back-off, counted, and shown in health
//! checks and metrics.
//!
//! It decides nothing about what a task does. A task that is started again must find all its state in what its closure
//! hands it.

use std::{any::Any, collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// Tasks that are kept running until [`Supervisor::shutdown`]. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// Asks tasks to end.
    stop: CancellationToken,
    /// Drops tasks that did not end in time.
    abort: CancellationToken,
    tracker: TaskTracker,
    tasks: Arc<Mutex<Vec<TaskStatus>>>,
    first_delay: Duration,
}

type Task = dyn Fn(CancellationToken) -> BoxFuture<'static, ()> + Send;

/// How one task fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// As the task was started under; a label of metrics and part of a check's name.
    pub name: &'static str,
    /// Times it was started again since the supervisor was made.
    pub restarts: u64,
    /// Why it is not running now; `None` while it runs.
    pub failure: Option<String>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// Restarts after 100 ms at first, at most 30 s.
    pub fn new() -> Self {
        Self::with_first_delay(Duration::from_millis(100))
    }

    /// As [`Supervisor::new`], with another delay before the first restart.
    pub fn with_first_delay(first_delay: Duration) -> Self {
        let [stop, abort] = [CancellationToken::new(), CancellationToken::new()];
        Self { stop, abort, tracker: TaskTracker::new(), tasks: Arc::default(), first_delay }
    }

    /// Runs `task`, and again whenever it panics or returns before the stop token is cancelled. After a shutdown
    /// nothing is started.
    pub fn spawn<T>(&self, name: &'static str, task: impl Fn(CancellationToken) -> T + Send + 'static)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.spawn_boxed(name, Box::new(move |stop| task(stop).boxed()));
    }

    /// Boxed: compiled once, not once per task.
    fn spawn_boxed(&self, name: &'static str, task: Box<Task>) {
        let (health, abort) = (self.track(name), self.abort.clone());
        if self.stop.is_cancelled() {
            return;
        }
        let run = async move {
            if abort.run_until_cancelled(health.keep_running(task)).await.is_none() {
                tracing::warn!("the task did not end in time and was dropped");
            }
        };
        self.tracker.spawn(run.instrument(tracing::info_span!("task", name)));
    }

    /// Adds a task that runs elsewhere, such as a thread, and reports through the handle.
    pub fn track(&self, name: &'static str) -> TaskHealth {
        let mut tasks = self.tasks.lock();
        let index = tasks.len();
        tasks.push(TaskStatus { name, restarts: 0, failure: None });
        TaskHealth { supervisor: self.clone(), name, index }
    }

    /// All tasks, by name: of several that share one, the sum of their restarts and one of their failures.
    pub fn tasks(&self) -> Vec<TaskStatus> {
        let mut by_name: BTreeMap<&'static str, TaskStatus> = BTreeMap::new();
        for task in self.tasks.lock().iter() {
            let sum = by_name.entry(task.name).or_insert(TaskStatus { name: task.name, restarts: 0, failure: None });
            sum.restarts = sum.restarts.saturating_add(task.restarts);
            sum.failure = sum.failure.take().or_else(|| task.failure.clone());
        }
        by_name.into_values().collect()
    }

    /// Cancels the stop token and waits until every spawned task has returned.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// The same, but tasks that have not returned within `limit` are dropped.
    pub async fn shutdown_within(&self, limit: Duration) {
        if timeout(limit, self.shutdown()).await.is_err() {
            self.abort.cancel();
            self.tracker.wait().await;
        }
    }
}

/// Reports how one task fares.
#[derive(Clone, Debug)]
pub struct TaskHealth {
    supervisor: Supervisor,
    name: &'static str,
    index: usize,
}

impl TaskHealth {
    /// The task is not running because of `reason`, and is started again in `delay`.
    pub fn failed(&self, reason: String, delay: Duration) {
        tracing::error!(task = self.name, reason, ?delay, "a task is not running, starting it again");
        self.update(|task| task.failure = Some(reason));
    }

    /// The task runs again.
    pub fn restarted(&self) {
        self.update(|task| {
            task.restarts = task.restarts.saturating_add(1);
            task.failure = None;
        });
    }

    /// The delays before successive restarts: exponential, without end.
    pub fn delays(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        let first = self.supervisor.first_delay;
        ExponentialBuilder::default().with_min_delay(first).with_max_delay(LAST_DELAY).without_max_times().build()
    }

    async fn keep_running(self, task: Box<Task>) {
        let (stop, mut delays) = (&self.supervisor.stop, self.delays());
        // One that was spawned before the shutdown runs, to do what it does at its end.
        loop {
            let started = Instant::now();
            // Making the task may panic, too.
            let made = std::panic::catch_unwind(AssertUnwindSafe(|| task(stop.child_token())));
            let ended = match made {
                Ok(running) => AssertUnwindSafe(running).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            if stop.is_cancelled() {
                return;
            }
            let reason = ended.map_or_else(|panic| describe_panic(&*panic), |()| "it ended early".to_owned());
            if started.elapsed() >= STABLE_AFTER {
                delays = self.delays();
            }
            let delay = delays.next().unwrap_or(LAST_DELAY);
            self.failed(reason, delay);
            if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return;
            }
            self.restarted();
        }
    }

    fn update(&self, change: impl FnOnce(&mut TaskStatus)) {
        if let Some(task) = self.supervisor.tasks.lock().get_mut(self.index) {
            change(task);
        }
    }
}

/// Serves on the calling thread: `serve(first)`, and again with a fresh value of `start` whenever it panics. Returns
/// when it returns.
pub fn keep_serving<V, E: std::error::Error>(
    health: &TaskHealth,
    first: V,
    start: impl Fn() -> Result<V, E>,
    mut serve: impl FnMut(V),
) {
    let mut delays = health.delays();
    let mut value = first;
    loop {
        let started = std::time::Instant::now();
        // What `serve` leaves half-done is in `value`, which a panic drops, or behind channels, which have no broken
        // states.
        let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| serve(value))) else { return };
        if started.elapsed() >= STABLE_AFTER {
            delays = health.delays();
        }
        let mut reason = describe_panic(&*panic);
        value = loop {
            let delay = delays.next().unwrap_or(LAST_DELAY);
            health.failed(reason, delay);
            std::thread::sleep(delay);
            match start() {
                Ok(value) => break value,
                Err(error) => reason = crate::error_chain(&error),
            }
        };
        health.restarted();
    }
}

/// What a panic said.
pub fn describe_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.map_or_else(|| "it panicked".to_owned(), |text| format!("it panicked: {text}"))
}

const LAST_DELAY: Duration = Duration::from_secs(30);
/// A task that ran this long starts from the first delay again.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::watch;

    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::with_first_delay(Duration::from_millis(1))
    }

    /// Runs `misbehave` twice, then a task that stays; returns once that runs.
    async fn restarts_after(misbehave: fn()) -> Supervisor {
        let supervisor = supervisor();
        let (running, mut is_running) = watch::channel(false);
        let runs = Arc::new(AtomicU32::new(0));
        supervisor.spawn("worker", move |stop| {
            let (runs, running) = (runs.clone(), running.clone());
            async move {
                if runs.fetch_add(1, Ordering::Relaxed) < 2 {
                    return misbehave();
                }
                running.send_replace(true);
                stop.cancelled().await;
            }
        });
        is_running.wait_for(|running| *running).await.unwrap();
        supervisor
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_started_again_and_counted() {
        for misbehave in [(|| panic!("a bug")) as fn(), || ()] {
            let supervisor = restarts_after(misbehave).await;
            assert_eq!(supervisor.tasks(), [TaskStatus { name: "worker", restarts: 2, failure: None }]);
            supervisor.shutdown().await;
        }
    }

    #[tokio::test]
    async fn a_task_that_cannot_even_be_made_is_tried_again() {
        let supervisor = supervisor();
        let (made, mut is_made) = watch::channel(0);
        supervisor.spawn("worker", move |stop| {
            made.send_modify(|count| *count += 1);
            assert!(*made.borrow() == 2, "a bug");
            async move { stop.cancelled().await }
        });
        is_made.wait_for(|made| *made == 2).await.unwrap();
        supervisor.shutdown().await;
    }

    #[tokio::test]
    async fn a_task_that_runs_again_does_not_hide_that_another_of_its_name_does_not() {
        let supervisor = supervisor();
        let [one, other] = [supervisor.track("worker"), supervisor.track("worker")];
        for task in [&one, &other] {
            task.failed("it panicked".into(), Duration::ZERO);
        }
        one.restarted();
        let failure = Some("it panicked".to_owned());
        assert_eq!(supervisor.tasks(), [TaskStatus { name: "worker", restarts: 1, failure }]);
        other.restarted();
        assert_eq!(supervisor.tasks(), [TaskStatus { name: "worker", restarts: 2, failure: None }]);
    }

    #[test]
    fn the_wait_doubles_up_to_a_bound() {
        let delays = Supervisor::new().track("worker").delays();
        let waits: Vec<_> = delays.take(10).map(|delay| delay.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
    }

    #[tokio::test]
    async fn a_task_that_is_not_running_says_why_until_it_runs_again() {
        let supervisor = Supervisor::with_first_delay(Duration::from_secs(3600));
        let (panicked, mut has_panicked) = watch::channel(false);
        supervisor.spawn("worker", move |_| {
            panicked.send_replace(true);
            async { panic!("no {}", "luck") }
        });
        has_panicked.wait_for(|panicked| *panicked).await.unwrap();
        while supervisor.tasks()[0].failure.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(supervisor.tasks()[0].failure.as_deref(), Some("it panicked: no luck"));
        supervisor.shutdown().await;
    }

    #[test]
    fn a_thread_that_panics_is_served_anew_with_a_fresh_value() {
        let supervisor = supervisor();
        let (mut served, starts) = (Vec::new(), std::cell::Cell::new(0));
        let start = || {
            starts.set(starts.get() + 1);
            if starts.get() == 1 { Err(std::fmt::Error) } else { Ok(starts.get()) }
        };
        keep_serving(&supervisor.track("thread"), 0, start, |value| {
            served.push(value);
            assert_ne!(value, 0, "a bug");
        });
        assert_eq!(served, [0, 2]);
        assert_eq!(supervisor.tasks(), [TaskStatus { name: "thread", restarts: 1, failure: None }]);
    }

    #[tokio::test]
    async fn shutdown_waits_for_the_tasks_and_starts_none_again() {
        let supervisor = supervisor();
        let (ended, has_ended) = watch::channel(0);
        supervisor.spawn("worker", move |stop| {
            let ended = ended.clone();
            async move {
                stop.cancelled().await;
                ended.send_modify(|count| *count += 1);
            }
        });
        supervisor.shutdown().await;
        assert_eq!(*has_ended.borrow(), 1);
        assert_eq!(supervisor.tasks()[0].restarts, 0);
    }

    #[tokio::test]
    async fn tasks_that_do_not_end_in_time_are_dropped_and_none_is_started_after_a_shutdown() {
        let supervisor = supervisor();
        supervisor.spawn("good", |stop| async move { stop.cancelled().await });
        supervisor.spawn("deaf", |_| std::future::pending());
        supervisor.spawn("fails", |_| async { panic!("now") });
        supervisor.shutdown_within(Duration::from_millis(20)).await;
        supervisor.spawn("late", |_| async { panic!("it must not start") });
        supervisor.shutdown().await;
        let late = supervisor.tasks().into_iter().find(|task| task.name == "late");
        assert_eq!(late, Some(TaskStatus { name: "late", restarts: 0, failure: None }));
    }
}
