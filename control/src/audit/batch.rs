//! Events that wait to be written, and the task that writes them together.
//!
//! One task per backend takes them from its queue. Where requests wait for their events, it takes all that wait by
//! then; where they do not, it waits until there are enough or one has waited long enough. Source:
//! `k8s.io/apiserver/plugin/pkg/audit/buffered`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{self, JoinError, JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    backend::AuditBackend,
    memory::HeldMemory,
    metrics::AuditMetrics,
    options::{BatchOptions, BatchThrottle},
};
use crate::later::later;

/// An event as it is written.
#[derive(Debug)]
pub struct QueuedEvent {
    /// Its text.
    pub text: Bytes,
    /// Gets to know whether it was written.
    pub done: Option<oneshot::Sender<bool>>,
    /// What it takes, until it is written.
    pub memory: EventMemory,
}

/// Where the memory of an event is counted.
#[derive(Debug)]
pub enum EventMemory {
    /// In that of its request.
    Request { _held: Arc<HeldMemory> },
    /// In that of its queue.
    Queue { _held: OwnedSemaphorePermit },
}

/// Writes the events of a queue.
struct BatchWriter {
    backend: Arc<dyn AuditBackend>,
    queue: mpsc::Receiver<QueuedEvent>,
    /// The event that was too large for the batch before.
    next: Option<QueuedEvent>,
    options: BatchOptions,
    metrics: Arc<AuditMetrics>,
    stop: CancellationToken,
}

/// A queue of encoded events, and the task that writes them. From `stop` on the queue takes none; the task ends once
/// all are written or lost.
pub fn start(
    backend: Arc<dyn AuditBackend>,
    options: BatchOptions,
    metrics: Arc<AuditMetrics>,
    stop: CancellationToken,
) -> (mpsc::Sender<QueuedEvent>, JoinHandle<()>) {
    let (sender, queue) = mpsc::channel(options.buffer_size.clamp(1, Semaphore::MAX_PERMITS));
    let writer = BatchWriter { backend, queue, next: None, options, metrics, stop };
    (sender, tokio::spawn(writer.run()))
}

impl BatchWriter {
    async fn run(mut self) {
        let places = self.options.at_a_time.map(|count| Arc::new(Semaphore::new(count.max(1))));
        let mut throttle = self.options.throttle.map(|throttle| TokenBucket::new(throttle, Instant::now()));
        let (mut sending, mut sizes) = (JoinSet::new(), HashMap::new());
        loop {
            // Before the batch is taken: whatever comes while others are written is written together.
            let place = match &places {
                Some(places) => places.clone().acquire_owned().await.ok(),
                None => None,
            };
            let batch = self.take().await;
            if batch.is_empty() {
                break;
            }
            let wait = throttle.as_mut().map_or(Duration::ZERO, |throttle| throttle.take(Instant::now()));
            tokio::select! {
                () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                () = self.stop.cancelled(), if !wait.is_zero() => {}
                else => {}
            }
            let (backend, metrics) = (self.backend.clone(), self.metrics.clone());
            let size = batch.len();
            let task = sending.spawn(async move {
                write(&*backend, batch, &metrics).await;
                drop(place);
            });
            sizes.insert(task.id(), size);
            while let Some(done) = sending.try_join_next_with_id() {
                self.sent(done, &mut sizes);
            }
        }
        while let Some(done) = sending.join_next_with_id().await {
            self.sent(done, &mut sizes);
        }
    }

    /// A batch was written, or its writing panicked.
    fn sent(&self, done: Result<(task::Id, ()), JoinError>, sizes: &mut HashMap<task::Id, usize>) {
        match done {
            Ok((id, ())) => drop(sizes.remove(&id)),
            Err(error) => {
                let events = sizes.remove(&error.id()).unwrap_or_default();
                self.metrics.failed(self.backend.plugin(), events, &error);
            }
        }
    }

    /// The next batch; empty once there is none any more.
    async fn take(&mut self) -> Vec<QueuedEvent> {
        let first = match self.next.take() {
            Some(first) => first,
            None => match self.receive(None).await {
                Some(first) => first,
                None => return Vec::new(),
            },
        };
        let until = later(Instant::now(), self.options.max_wait);
        let mut bytes = first.text.len();
        let mut batch = vec![first];
        while batch.len() < self.options.max_size
            && let Some(event) = self.receive(Some(until)).await
        {
            bytes = bytes.saturating_add(event.text.len());
            if bytes > self.options.max_bytes {
                self.next = Some(event);
                break;
            }
            batch.push(event);
        }
        batch
    }

    /// The next event; `None` where none came in time, or none will come.
    async fn receive(&mut self, until: Option<Instant>) -> Option<QueuedEvent> {
        if until.is_some() && self.options.max_wait.is_zero() {
            return self.queue.try_recv().ok();
        }
        loop {
            let is_open = !self.queue.is_closed();
            tokio::select! {
                biased;
                event = self.queue.recv() => return event,
                () = self.stop.cancelled(), if is_open => self.queue.close(),
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return None,
            }
        }
    }
}

/// Writes a batch, and tells whoever waits for one of it.
async fn write(backend: &dyn AuditBackend, batch: Vec<QueuedEvent>, metrics: &AuditMetrics) {
    let texts: Vec<Bytes> = batch.iter().map(|event| event.text.clone()).collect();
    let written = backend.write(&texts).await;
    if let Err(error) = &written {
        metrics.failed(backend.plugin(), batch.len(), error);
    }
    let (memory, done): (Vec<_>, Vec<_>) = batch.into_iter().map(|event| (event.memory, event.done)).unzip();
    drop(memory);
    for done in done.into_iter().flatten() {
        if done.send(written.is_ok()).is_err() {
            tracing::trace!("nobody waits any more for an audit event");
        }
    }
}

/// So many batches a second, and a few more after a pause.
#[derive(Debug)]
struct TokenBucket {
    qps: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    fn new(throttle: BatchThrottle, now: Instant) -> Self {
        let burst = f64::from(throttle.burst);
        Self { qps: throttle.qps, burst, tokens: burst, at: now }
    }

    /// How long the next batch has to wait.
    fn take(&mut self, now: Instant) -> Duration {
        let come = now.saturating_duration_since(self.at).as_secs_f64() * self.qps;
        self.tokens = (self.tokens + come).min(self.burst) - 1.0;
        self.at = now;
        Duration::try_from_secs_f64(-self.tokens / self.qps).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
