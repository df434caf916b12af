//! Where events go: into the queue of every backend. Whether a request waits until they are written says the mode.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    backend::{AuditBackend, AuditWriteError},
    batch::{self, EventMemory, QueuedEvent},
    budget::Budget,
    event::AuditEvent,
    memory::HeldMemory,
    metrics::AuditMetrics,
    options::{AuditMode, BatchOptions, TruncateOptions},
    truncate::{self, EventTooLarge},
};

/// The backends of one control service.
pub struct AuditSink {
    backends: Vec<QueuedBackend>,
    metrics: Arc<AuditMetrics>,
    /// Requests whose ends are waited for in tasks of their own.
    open: TaskTracker,
    /// Queues take no more events.
    stop: CancellationToken,
    /// Nothing waits any more before it is tried again.
    hurry: CancellationToken,
    workers: Mutex<Vec<JoinHandle<()>>>,
    /// Bytes of each queue for which nobody waits.
    queue_bytes: u32,
}

/// A backend and its queue.
struct QueuedBackend {
    backend: Arc<dyn AuditBackend>,
    queue: mpsc::Sender<QueuedEvent>,
    delivery: Delivery,
    truncate: Option<TruncateOptions>,
}

/// Who waits for an event.
enum Delivery {
    /// Nobody: it is lost where the queue has no more memory.
    Unawaited(Budget),
    /// Its request, whose memory it is in. `strict`: a failure is one of the request.
    Awaited { strict: bool },
}

/// Events whose requests wait for them.
#[must_use]
pub struct Handed {
    awaited: Vec<(oneshot::Receiver<bool>, bool)>,
    processed: bool,
}

/// The plugin that metrics name where a buffer is full.
const BUFFER: &str = "buffered";
/// … and where an event is too large.
const TRUNCATE: &str = "truncate";
/// From how many bytes on an event is encoded beside the tasks that others wait for.
const LARGE: usize = 64 << 10;
/// What an event takes in a queue beside its text.
const OVERHEAD: usize = 256;

impl AuditSink {
    /// Without backends. The shutdown begins with `hurry`.
    pub fn new(metrics: Arc<AuditMetrics>, hurry: CancellationToken, queue_bytes: u32) -> Self {
        let (backends, workers, open) = (Vec::new(), Mutex::default(), TaskTracker::new());
        Self { backends, metrics, open, stop: CancellationToken::new(), hurry, workers, queue_bytes }
    }

    /// Adds a backend.
    pub fn add(
        &mut self,
        backend: Arc<dyn AuditBackend>,
        mode: AuditMode,
        batch: BatchOptions,
        truncate: Option<TruncateOptions>,
    ) {
        let delivery = match mode {
            AuditMode::Batch => Delivery::Unawaited(Budget::new(self.queue_bytes)),
            AuditMode::Blocking => Delivery::Awaited { strict: false },
            AuditMode::BlockingStrict => Delivery::Awaited { strict: true },
        };
        let (queue, worker) = batch::start(backend.clone(), batch, self.metrics.clone(), self.stop.clone());
        self.workers.get_mut().push(worker);
        self.backends.push(QueuedBackend { backend, queue, delivery, truncate });
    }

    /// Whether requests wait for a backend.
    pub fn is_awaited(&self) -> bool {
        self.backends.iter().any(|backend| matches!(backend.delivery, Delivery::Awaited { .. }))
    }

    /// Hands an event to every backend. From here on it is written, whether anybody waits for that or not.
    pub async fn hand_over(self: &Arc<Self>, event: AuditEvent, held: &Arc<HeldMemory>) -> Handed {
        if event.text_bytes() < LARGE {
            return self.enqueue(&event, held);
        }
        let (sink, held) = (self.clone(), held.clone());
        let encoding = self.open.spawn_blocking(move || sink.enqueue(&event, &held));
        encoding.await.unwrap_or_else(|error| {
            self.metrics.failed(BUFFER, 1, &error);
            let is_strict = |backend: &QueuedBackend| matches!(backend.delivery, Delivery::Awaited { strict: true });
            Handed { awaited: Vec::new(), processed: !self.backends.iter().any(is_strict) }
        })
    }

    /// The same of events for which nobody waits, in their order.
    pub fn hand_over_unawaited(self: &Arc<Self>, events: Vec<AuditEvent>, held: &Arc<HeldMemory>) {
        let is_large = events.iter().any(|event| event.text_bytes() >= LARGE);
        // Outside of a runtime nothing is kept waiting.
        if !is_large || Handle::try_current().is_err() {
            events.iter().for_each(|event| self.enqueue(event, held).unawaited());
            return;
        }
        let (sink, held) = (self.clone(), held.clone());
        self.track(async move {
            for event in events {
                sink.hand_over(event, &held).await.unawaited();
            }
        });
    }

    fn enqueue(&self, event: &AuditEvent, held: &Arc<HeldMemory>) -> Handed {
        self.metrics.event();
        let mut handed = Handed { awaited: Vec::new(), processed: true };
        for backend in &self.backends {
            match backend.enqueue(event, held) {
                Ok(awaited) => handed.awaited.extend(awaited),
                Err(error) => {
                    self.metrics.failed(error.plugin(), 1, &error);
                    handed.processed &= !error.is_of_request();
                }
            }
        }
        handed
    }

    /// Runs `work`, for which the shutdown waits.
    pub fn track(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.open.spawn(work);
    }

    /// Returns once every event is written or lost. Requests must have ended before.
    pub async fn shut_down(&self) {
        self.hurry.cancel();
        self.open.close();
        self.open.wait().await;
        self.stop.cancel();
        let workers = std::mem::take(&mut *self.workers.lock());
        for worker in workers {
            if let Err(error) = worker.await {
                tracing::error!(%error, "a writer of audit events failed");
            }
        }
    }
}

/// Why a queue does not take an event.
#[derive(Debug, thiserror::Error)]
enum EnqueueError {
    /// It is lost, and its request goes on.
    #[error(transparent)]
    Lost(AuditWriteError),
    /// The same of an event that a request must have.
    #[error(transparent)]
    Missing(AuditWriteError),
    /// It is lost, as in Kubernetes whatever the mode.
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),
}

impl EnqueueError {
    fn plugin(&self) -> &'static str {
        match self {
            Self::Lost(_) | Self::Missing(_) => BUFFER,
            Self::TooLarge(_) => TRUNCATE,
        }
    }

    fn is_of_request(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

impl QueuedBackend {
    /// Puts an event into the queue; answers with what tells that it is written, if its request waits for that.
    fn enqueue(
        &self,
        event: &AuditEvent,
        held: &Arc<HeldMemory>,
    ) -> Result<Option<(oneshot::Receiver<bool>, bool)>, EnqueueError> {
        let text = truncate::encode(event, &*self.backend, self.truncate)?;
        let (memory, strict) = match &self.delivery {
            Delivery::Unawaited(budget) => {
                let held = budget.try_take(text.len().saturating_add(OVERHEAD));
                let held = held.ok_or(EnqueueError::Lost(AuditWriteError::BufferFull))?;
                (EventMemory::Queue { _held: held }, None)
            }
            Delivery::Awaited { strict } => (EventMemory::Request { _held: held.clone() }, Some(*strict)),
        };
        let (done, awaited) = match strict {
            None => (None, None),
            Some(strict) => {
                let (done, written) = oneshot::channel();
                (Some(done), Some((written, strict)))
            }
        };
        self.queue.try_send(QueuedEvent { text, done, memory }).map_err(|error| {
            let error = match error {
                mpsc::error::TrySendError::Full(_) => AuditWriteError::BufferFull,
                mpsc::error::TrySendError::Closed(_) => AuditWriteError::ShutDown,
            };
            if strict == Some(true) { EnqueueError::Missing(error) } else { EnqueueError::Lost(error) }
        })?;
        Ok(awaited)
    }
}

impl Handed {
    /// Waits until the event is written, where that is waited for. `false` where a strict backend failed.
    pub async fn written(self) -> bool {
        let mut processed = self.processed;
        for (written, strict) in self.awaited {
            // A writer that is gone wrote nothing.
            processed &= written.await.unwrap_or(false) || !strict;
        }
        processed
    }

    /// Nobody waits.
    pub fn unawaited(self) {}
}
