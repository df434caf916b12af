//! How lines are gathered into batches, and what becomes of them when nobody takes them.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::*;
use crate::audit::{backend::AuditWriteError, event::AuditEvent};

/// Keeps how large the batches were.
#[derive(Default)]
struct Sizes {
    batches: Mutex<Vec<usize>>,
    written: Notify,
    /// How many batches wait in vain to be written.
    stuck: usize,
    /// How many events a batch has with which the backend panics; 0 for none.
    panics_with: usize,
}

#[async_trait::async_trait]
impl AuditBackend for Sizes {
    fn plugin(&self) -> &'static str {
        "test"
    }

    fn encode(&self, event: &AuditEvent) -> Bytes {
        event.to_json().into()
    }

    async fn write(&self, events: &[Bytes]) -> Result<(), AuditWriteError> {
        let count = {
            let mut batches = self.batches.lock();
            batches.push(events.len());
            batches.len()
        };
        self.written.notify_one();
        assert!(self.panics_with == 0 || events.len() != self.panics_with, "as this test wants");
        if count <= self.stuck {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn event(text: &'static [u8]) -> QueuedEvent {
    let memory = EventMemory::Request { _held: Arc::default() };
    QueuedEvent { text: Bytes::from_static(text), done: None, memory }
}

#[tokio::test]
async fn a_batch_is_written_when_it_is_full_and_the_rest_at_the_stop() {
    let (sizes, stop) = (Arc::new(Sizes::default()), CancellationToken::new());
    let options = BatchOptions { max_size: 3, at_a_time: Some(1), ..BatchOptions::default() };
    let (queue, task) = start(sizes.clone(), options, Arc::default(), stop.clone());
    for _ in 0..7 {
        queue.send(event(b"")).await.unwrap();
    }
    stop.cancel();
    task.await.unwrap();
    assert_eq!(*sizes.batches.lock(), [3, 3, 1]);
    assert!(queue.try_send(event(b"")).is_err());
}

#[tokio::test]
async fn a_batch_that_is_not_full_is_written_after_a_time() {
    let (sizes, stop) = (Arc::new(Sizes::default()), CancellationToken::new());
    let options = BatchOptions { max_wait: Duration::from_millis(1), ..BatchOptions::default() };
    let (queue, task) = start(sizes.clone(), options, Arc::default(), stop.clone());
    // Both are there before the writer's task runs.
    queue.try_send(event(b"")).unwrap();
    queue.try_send(event(b"")).unwrap();
    sizes.written.notified().await;
    assert_eq!(*sizes.batches.lock(), [2]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_batch_has_no_more_bytes_than_it_may_but_an_event_is_written_however_large() {
    let (sizes, stop) = (Arc::new(Sizes::default()), CancellationToken::new());
    let options =
        BatchOptions { max_bytes: 4, max_wait: Duration::ZERO, at_a_time: Some(1), ..BatchOptions::default() };
    let (queue, task) = start(sizes.clone(), options, Arc::default(), stop.clone());
    for text in [&b"12"[..], b"34", b"5", b"too large", b"6"] {
        queue.try_send(event(text)).unwrap();
    }
    stop.cancel();
    task.await.unwrap();
    assert_eq!(*sizes.batches.lock(), [2, 1, 1, 1]);
}

#[tokio::test]
async fn what_comes_while_others_are_written_is_written_together() {
    let sizes = Arc::new(Sizes::default());
    let options = BatchOptions { max_wait: Duration::ZERO, at_a_time: Some(1), ..BatchOptions::default() };
    let (queue, task) = start(sizes.clone(), options, Arc::default(), CancellationToken::new());
    queue.try_send(event(b"")).unwrap();
    sizes.written.notified().await;
    // The writer's task has not run since.
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (done, written) = oneshot::channel();
            queue.try_send(QueuedEvent { done: Some(done), ..event(b"") }).unwrap();
            written
        })
        .collect();
    for written in waiting {
        assert!(written.await.unwrap());
    }
    assert_eq!(*sizes.batches.lock(), [1, 100]);
    drop(queue);
    task.await.unwrap();
}

/// A backend that keeps batches for long, since it is away, must not keep the queue from being emptied.
#[tokio::test]
async fn batches_that_wait_to_be_sent_again_hold_up_no_others() {
    let sizes = Arc::new(Sizes { stuck: 100, ..Sizes::default() });
    let options = BatchOptions { max_size: 1, throttle: None, buffer_size: 1, ..BatchOptions::default() };
    let (queue, task) = start(sizes.clone(), options, Arc::default(), CancellationToken::new());
    for _ in 0..100 {
        queue.send(event(b"")).await.unwrap();
    }
    while sizes.batches.lock().len() < 100 {
        sizes.written.notified().await;
    }
    task.abort();
}

#[tokio::test]
async fn events_of_a_batch_whose_writing_panics_are_counted() {
    let (sizes, metrics) = (Arc::new(Sizes { panics_with: 2, ..Sizes::default() }), Arc::new(AuditMetrics::default()));
    let options = BatchOptions { max_size: 2, at_a_time: Some(1), ..BatchOptions::default() };
    let (queue, task) = start(sizes.clone(), options, metrics.clone(), CancellationToken::new());
    for _ in 0..5 {
        queue.send(event(b"")).await.unwrap();
    }
    drop(queue);
    task.await.unwrap();
    assert_eq!((&*sizes.batches.lock(), metrics.failures("test")), (&vec![2, 2, 1], 4));
}

#[test]
fn batches_are_throttled_after_a_burst() {
    let now = Instant::now();
    let mut bucket = TokenBucket::new(BatchThrottle { qps: 2.0, burst: 2 }, now);
    let waits = [bucket.take(now), bucket.take(now), bucket.take(now), bucket.take(now)];
    assert_eq!(waits.map(|wait| wait.as_millis()), [0, 0, 500, 1000]);
    assert!(bucket.take(now + Duration::from_secs(60)).is_zero());
}
