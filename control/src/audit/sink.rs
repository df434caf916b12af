//! Where events go: to every backend, at once or through a queue, as its mode says.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    backend::{AuditBackend, AuditWriteError},
    batch,
    event::AuditEvent,
    metrics::AuditMetrics,
    options::{AuditMode, BatchOptions},
};

/// The backends of one control service.
pub struct AuditSink {
    queued: Vec<(Arc<dyn AuditBackend>, mpsc::Sender<Bytes>)>,
    direct: Vec<DirectBackend>,
    metrics: Arc<AuditMetrics>,
    /// Events that are being written, requests whose clients went away included.
    writing: TaskTracker,
    /// Bounds those for which no request waits.
    unawaited: Arc<Semaphore>,
    /// Queues take no more events.
    stop: CancellationToken,
    /// Nothing waits any more before it is tried again.
    hurry: CancellationToken,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

/// A backend that requests wait for.
struct DirectBackend {
    backend: Arc<dyn AuditBackend>,
    /// Whether a failure is one of the request.
    strict: bool,
}

/// The plugin that metrics name where a buffer is full.
const BUFFER: &str = "buffered";
/// How many events are written at a time for which no request waits.
const MOST_UNAWAITED: usize = 1000;

impl AuditSink {
    /// Without backends. The shutdown begins with `hurry`.
    pub fn new(metrics: Arc<AuditMetrics>, hurry: CancellationToken) -> Self {
        let (queued, direct, workers) = (Vec::new(), Vec::new(), Mutex::default());
        let (writing, unawaited) = (TaskTracker::new(), Arc::new(Semaphore::new(MOST_UNAWAITED)));
        Self { queued, direct, metrics, writing, unawaited, stop: CancellationToken::new(), hurry, workers }
    }

    /// Adds a backend.
    pub fn add(&mut self, backend: Arc<dyn AuditBackend>, mode: AuditMode, batch: BatchOptions) {
        if mode != AuditMode::Batch {
            return self.direct.push(DirectBackend { backend, strict: mode == AuditMode::BlockingStrict });
        }
        let (queue, worker) = batch::start(backend.clone(), batch, self.metrics.clone(), self.stop.clone());
        self.workers.get_mut().push(worker);
        self.queued.push((backend, queue));
    }

    /// Hands an event to every backend, and waits for those that are waited for. `false` where a strict one failed.
    pub async fn process(self: &Arc<Self>, event: AuditEvent) -> bool {
        self.enqueue(&event);
        if self.direct.is_empty() {
            return true;
        }
        // In a task of its own: a client that goes away takes no event with it.
        let sink = self.clone();
        let written = self.writing.spawn(async move { sink.write(&event).await }).await;
        written.unwrap_or(false)
    }

    /// The same of an event that nobody waits for.
    pub fn process_later(self: &Arc<Self>, event: AuditEvent) {
        self.enqueue(&event);
        if self.direct.is_empty() {
            return;
        }
        match (self.unawaited.clone().try_acquire_owned(), tokio::runtime::Handle::try_current()) {
            (Ok(place), Ok(runtime)) => {
                let sink = self.clone();
                let write = async move {
                    sink.write(&event).await;
                    drop(place);
                };
                self.writing.spawn_on(write, &runtime);
            }
            (Err(_), _) => self.metrics.failed(BUFFER, 1, &AuditWriteError::BufferFull),
            (_, Err(_)) => self.metrics.failed(BUFFER, 1, &AuditWriteError::ShutDown),
        }
    }

    /// Runs `work`, for which the shutdown waits.
    pub fn track(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.writing.spawn(work);
    }

    /// Returns once every event is written or lost. Requests must have ended before.
    pub async fn shut_down(&self) {
        self.hurry.cancel();
        self.writing.close();
        self.writing.wait().await;
        self.stop.cancel();
        let workers = std::mem::take(&mut *self.workers.lock());
        for worker in workers {
            if let Err(error) = worker.await {
                tracing::error!(%error, "a writer of audit events failed");
            }
        }
    }

    fn enqueue(&self, event: &AuditEvent) {
        self.metrics.event();
        for (backend, queue) in &self.queued {
            let error = match queue.try_send(backend.encode(event)) {
                Ok(()) => continue,
                Err(mpsc::error::TrySendError::Full(_)) => AuditWriteError::BufferFull,
                Err(mpsc::error::TrySendError::Closed(_)) => AuditWriteError::ShutDown,
            };
            self.metrics.failed(BUFFER, 1, &error);
        }
    }

    async fn write(&self, event: &AuditEvent) -> bool {
        let mut processed = true;
        for DirectBackend { backend, strict } in &self.direct {
            if let Err(error) = backend.write(&[backend.encode(event)]).await {
                self.metrics.failed(backend.plugin(), 1, &error);
                processed &= !strict;
            }
        }
        processed
    }
}
