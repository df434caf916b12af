//! Events that wait to be written together, so that no request waits for it.
//!
//! One task per backend takes them from a bounded queue, and waits until there are enough or one has waited long
//! enough. Source: `k8s.io/apiserver/plugin/pkg/audit/buffered`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    backend::AuditBackend,
    metrics::AuditMetrics,
    options::{BatchOptions, BatchThrottle},
};
use crate::later::later;

/// Writes the events of a queue.
struct BatchWriter {
    backend: Arc<dyn AuditBackend>,
    queue: mpsc::Receiver<Bytes>,
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
) -> (mpsc::Sender<Bytes>, JoinHandle<()>) {
    let (sender, queue) = mpsc::channel(options.buffer_size.max(1));
    let writer = BatchWriter { backend, queue, options, metrics, stop };
    (sender, tokio::spawn(writer.run()))
}

impl BatchWriter {
    async fn run(mut self) {
        let places = Arc::new(Semaphore::new(self.options.at_a_time.max(1)));
        let mut throttle = self.options.throttle.map(|throttle| TokenBucket::new(throttle, Instant::now()));
        let mut sending = JoinSet::new();
        loop {
            let batch = self.next().await;
            if batch.is_empty() {
                break;
            }
            let wait = throttle.as_mut().map_or(Duration::ZERO, |throttle| throttle.take(Instant::now()));
            tokio::select! {
                () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                () = self.stop.cancelled(), if !wait.is_zero() => {}
                else => {}
            }
            let Ok(place) = places.clone().acquire_owned().await else { break };
            let (backend, metrics) = (self.backend.clone(), self.metrics.clone());
            sending.spawn(async move {
                if let Err(error) = backend.write(&batch).await {
                    metrics.failed(backend.plugin(), batch.len(), &error);
                }
                drop(place);
            });
            while sending.try_join_next().is_some() {}
        }
        while sending.join_next().await.is_some() {}
    }

    /// The next batch; empty once there is none any more.
    async fn next(&mut self) -> Vec<Bytes> {
        let Some(first) = self.receive(None).await else { return Vec::new() };
        let until = later(Instant::now(), self.options.max_wait);
        let mut batch = vec![first];
        while batch.len() < self.options.max_size
            && let Some(event) = self.receive(Some(until)).await
        {
            batch.push(event);
        }
        batch
    }

    /// The next event; `None` where none came in time, or none will come.
    async fn receive(&mut self, until: Option<Instant>) -> Option<Bytes> {
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
mod tests {
    use parking_lot::Mutex;
    use tokio::sync::Notify;

    use super::*;
    use crate::audit::{backend::AuditWriteError, event::AuditEvent};

    /// Keeps how large the batches were.
    #[derive(Default)]
    struct Sizes(Mutex<Vec<usize>>, Notify);

    #[async_trait::async_trait]
    impl AuditBackend for Sizes {
        fn plugin(&self) -> &'static str {
            "test"
        }

        fn encode(&self, event: &AuditEvent) -> Bytes {
            event.to_json().into()
        }

        async fn write(&self, events: &[Bytes]) -> Result<(), AuditWriteError> {
            self.0.lock().push(events.len());
            self.1.notify_one();
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_batch_is_written_when_it_is_full_and_the_rest_at_the_stop() {
        let (sizes, stop) = (Arc::new(Sizes::default()), CancellationToken::new());
        let options = BatchOptions { max_size: 3, at_a_time: 1, ..BatchOptions::default() };
        let (queue, task) = start(sizes.clone(), options, Arc::default(), stop.clone());
        for _ in 0..7 {
            queue.send(Bytes::new()).await.unwrap();
        }
        stop.cancel();
        task.await.unwrap();
        assert_eq!(*sizes.0.lock(), [3, 3, 1]);
        assert!(queue.try_send(Bytes::new()).is_err());
    }

    #[tokio::test]
    async fn a_batch_that_is_not_full_is_written_after_a_time() {
        let (sizes, stop) = (Arc::new(Sizes::default()), CancellationToken::new());
        let options = BatchOptions { max_wait: Duration::from_millis(1), ..BatchOptions::default() };
        let (queue, task) = start(sizes.clone(), options, Arc::default(), stop.clone());
        // Both are there before the writer's task runs.
        queue.try_send(Bytes::new()).unwrap();
        queue.try_send(Bytes::new()).unwrap();
        sizes.1.notified().await;
        assert_eq!(*sizes.0.lock(), [2]);
        stop.cancel();
        task.await.unwrap();
    }

    #[test]
    fn batches_are_throttled_after_a_burst() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(BatchThrottle { qps: 2.0, burst: 2 }, now);
        let waits = [bucket.take(now), bucket.take(now), bucket.take(now), bucket.take(now)];
        assert_eq!(waits.map(|wait| wait.as_millis()), [0, 0, 500, 1000]);
        assert!(bucket.take(now + Duration::from_secs(60)).is_zero());
    }
}
