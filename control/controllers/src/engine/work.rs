//! Reconciles the keys of a queue with bounded concurrency.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::queue::{Taken, WorkQueue};

/// What one pass over a key left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, until something changes.
    Done,
    /// A timer of the object itself is due then.
    After(Duration),
}

/// A request of a controller failed; the key is tried again after its back-off.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API refused or could not be asked.
    #[error("cannot {operation}")]
    Request {
        /// What was asked, after "cannot".
        operation: &'static str,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// Several requests failed; the first failure is given for all.
    #[error("{0} requests failed, the first: {1}")]
    Several(usize, Box<Failure>),
    /// An object that the API should not have accepted.
    #[error("{what} is not valid: {message}")]
    Malformed {
        /// The object.
        what: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The pass panicked.
    #[error("the task stopped unexpectedly")]
    Panicked,
    /// The pass failed, and a timer of the object itself is due all the same.
    #[error("{failure}")]
    BeforeTimer {
        /// What failed.
        failure: Box<Failure>,
        /// When the timer is due, from the end of the pass.
        timer: Duration,
    },
}

impl Outcome {
    /// How a pass ends that came to `result`: in either case the object's own timer stands.
    pub fn of(result: Result<(), Failure>, timer: Option<Duration>) -> Result<Self, Failure> {
        match (result, timer) {
            (Ok(()), timer) => Ok(timer.map_or(Self::Done, Self::After)),
            (Err(failure), None) => Err(failure),
            (Err(failure), Some(timer)) => Err(Failure::BeforeTimer { failure: Box::new(failure), timer }),
        }
    }
}

impl Failure {
    /// Names the request that failed, for `map_err`.
    pub fn request(operation: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Request { operation, source: Box::new(source) }
    }

    /// What failed, and the timer that is due all the same.
    fn and_timer(self) -> (Self, Option<Duration>) {
        match self {
            Self::BeforeTimer { failure, timer } => (*failure, Some(timer)),
            failure => (failure, None),
        }
    }

    /// Whether someone else changed the object first, which the next pass sees: nothing to warn of.
    fn is_conflict(&self) -> bool {
        match self {
            Self::Request { source, .. } => api_code(source) == Some(409),
            Self::Several(_, first) => first.is_conflict(),
            _ => false,
        }
    }
}

/// HTTP code of an API refusal.
pub fn api_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// What the API answered about one object; `None` where that is gone, which leaves nothing to do.
pub fn unless_gone<T>(answer: kube::Result<T>, operation: &'static str) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if api_code(&error) == Some(404) => Ok(None),
        Err(error) => Err(Failure::request(operation)(error)),
    }
}

/// Whether the object to be deleted does not exist any more, or another has its name: in both cases the work is done.
pub fn is_gone_or_taken(error: &kube::Error) -> bool {
    matches!(api_code(error), Some(404 | 409))
}

/// Whether the API refused a new object because its namespace is being deleted: nothing to retry.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// One pass over a key. Boxed: the machinery below and the runtime's own are compiled once, not once a controller.
type Pass = BoxFuture<'static, Result<Outcome, Failure>>;

/// Works on keys of `queue` until `stop`, at most `concurrency` at a time; then waits for those under way.
pub async fn work<K, Fut>(
    name: &'static str,
    queue: Arc<WorkQueue<K>>,
    concurrency: usize,
    stop: CancellationToken,
    reconcile: impl Fn(K) -> Fut + Send + Sync + 'static,
) where
    K: Clone + Eq + Hash + Ord + std::fmt::Display + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, Failure>> + Send + 'static,
{
    drain(name, queue, concurrency, stop, Box::new(move |key| reconcile(key).boxed())).await;
}

async fn drain<K>(
    name: &'static str,
    queue: Arc<WorkQueue<K>>,
    concurrency: usize,
    stop: CancellationToken,
    reconcile: Box<dyn Fn(K) -> Pass + Send + Sync>,
) where
    K: Clone + Eq + Hash + Ord + std::fmt::Display + Send + Sync + 'static,
{
    // A worker that panicked left its keys behind.
    queue.recover();
    let mut running = JoinSet::new();
    let mut keys: HashMap<tokio::task::Id, K> = HashMap::new();
    while !stop.is_cancelled() {
        let mut wake = None;
        while running.len() < concurrency {
            match queue.take(Instant::now()) {
                Taken::Key(key) => {
                    let span = tracing::debug_span!("reconcile", controller = name, %key);
                    let task = running.spawn(reconcile(key.clone()).instrument(span));
                    keys.insert(task.id(), key);
                }
                Taken::Nothing(timer) => {
                    wake = timer;
                    break;
                }
            }
        }
        tokio::select! {
            _ = stop.cancelled() => {}
            _ = queue.changed(), if running.len() < concurrency => {}
            _ = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            Some(joined) = running.join_next_with_id(), if !running.is_empty() => {
                record_outcome(name, &queue, &mut keys, joined);
            }
        }
        while let Some(Some(joined)) = running.join_next_with_id().now_or_never() {
            record_outcome(name, &queue, &mut keys, joined);
        }
    }
    while running.join_next().await.is_some() {}
}

fn record_outcome<K>(
    name: &'static str,
    queue: &WorkQueue<K>,
    keys: &mut HashMap<tokio::task::Id, K>,
    joined: Result<(tokio::task::Id, Result<Outcome, Failure>), tokio::task::JoinError>,
) where
    K: Clone + Eq + Hash + Ord + std::fmt::Display,
{
    let (id, result) = match joined {
        Ok(ended) => ended,
        Err(error) => (error.id(), Err(Failure::Panicked)),
    };
    if let Some(key) = keys.remove(&id) {
        give_back(name, queue, key, result);
    }
}

/// Gives `key` back to the queue after a pass.
fn give_back<K>(name: &'static str, queue: &WorkQueue<K>, key: K, result: Result<Outcome, Failure>)
where
    K: Clone + Eq + Hash + Ord + std::fmt::Display,
{
    match result {
        Ok(Outcome::Done) => queue.done(&key),
        Ok(Outcome::After(delay)) => {
            queue.done(&key);
            queue.add_after(key, delay);
        }
        Err(failure) => {
            let (failure, timer) = failure.and_timer();
            let delay = queue.failed(&key, Instant::now());
            if let Some(timer) = timer {
                queue.add_after(key.clone(), timer);
            }
            if failure.is_conflict() {
                tracing::debug!(controller = name, %key, ?delay, "changed by others meanwhile, trying again");
            } else {
                let error: &dyn std::error::Error = &failure;
                tracing::warn!(controller = name, %key, ?delay, error, "trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use tokio::sync::Semaphore;

    use super::{super::Tasks, *};

    fn spawn_work<K, Fut>(
        tasks: &Tasks,
        queue: Arc<WorkQueue<K>>,
        concurrency: usize,
        reconcile: impl Fn(K) -> Fut + Send + Sync + 'static,
    ) where
        K: Clone + Eq + Hash + Ord + std::fmt::Display + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let reconcile = Arc::new(reconcile);
        tasks.spawn("test", move |stop| {
            let reconcile = reconcile.clone();
            work("test", queue.clone(), concurrency, stop, move |key| reconcile(key)).boxed()
        });
    }

    #[tokio::test]
    async fn no_more_than_the_bound_run_at_once_and_shutdown_waits_for_them() {
        let queue = Arc::new(WorkQueue::new("test"));
        for n in 0..10 {
            queue.add(n);
        }
        let tasks = Tasks::default();
        let gate = Arc::new(Semaphore::new(0));
        let (active, most, ended) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let reconcile = {
            let (gate, active, most, ended) = (gate.clone(), active.clone(), most.clone(), ended.clone());
            move |_: i32| {
                let (gate, active, most, ended) = (gate.clone(), active.clone(), most.clone(), ended.clone());
                async move {
                    most.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    gate.acquire().await.expect("never closed").forget();
                    active.fetch_sub(1, Ordering::SeqCst);
                    ended.fetch_add(1, Ordering::SeqCst);
                    Ok(Outcome::Done)
                }
            }
        };
        spawn_work(&tasks, queue, 3, reconcile);
        while active.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(5);
        while ended.load(Ordering::SeqCst) < 5 || active.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        let stopping = tasks.shutdown();
        gate.add_permits(100);
        stopping.await;
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(active.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_timer_stands_though_its_pass_failed() {
        let queue = WorkQueue::new("test");
        let refused = || Err(Failure::Malformed { what: "test", message: "refused".into() });
        let start = Instant::now();
        // After so many failures the back-off is longer than the timer.
        for second in 1..=20 {
            queue.add("a");
            let Taken::Key(key) = queue.take(start + Duration::from_secs(second * 1000)) else { panic!("it waits") };
            give_back("test", &queue, key, Outcome::of(refused(), Some(Duration::from_secs(10))));
        }
        let Taken::Nothing(Some(due)) = queue.take(Instant::now()) else { panic!("a timer is set") };
        assert!(due <= Instant::now() + Duration::from_secs(10), "not after the back-off of minutes");
        assert_eq!(Outcome::of(Ok(()), None).expect("no failure"), Outcome::Done);
        let later = Duration::from_secs(7);
        assert_eq!(Outcome::of(Ok(()), Some(later)).expect("no failure"), Outcome::After(later));
    }

    #[tokio::test]
    async fn a_failed_key_and_a_panicked_key_are_tried_again() {
        let queue = Arc::new(WorkQueue::new("test"));
        queue.add("fails");
        queue.add("panics");
        let tasks = Tasks::default();
        let tries = Arc::new(Mutex::new(Vec::new()));
        let seen = tries.clone();
        let reconcile = move |key: &'static str| {
            let count = {
                let mut seen = seen.lock();
                seen.push(key);
                seen.iter().filter(|k| **k == key).count()
            };
            async move {
                match (key, count) {
                    ("panics", 1) => panic!("a defect in a controller"),
                    ("fails", 1) => Err(Failure::Malformed { what: "test", message: "first try".into() }),
                    _ => Ok(Outcome::Done),
                }
            }
        };
        spawn_work(&tasks, queue, 2, reconcile);
        while tries.lock().len() < 4 {
            tokio::task::yield_now().await;
        }
        tasks.shutdown().await;
    }
}
