//! Writes Events in the background: bounded, in order, one request at a time, so that event writes never block the work
//! that they are about. Each program hands [`Writer::run`] to the supervisor of its own tasks.

mod correlate;
mod pace;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use correlate::{Correlator, Occurrence, Verdict};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
};
use pace::Pace;
pub use pace::Rate;
use serde_json::json;
use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::Api;

/// Events that may wait to be written; more are dropped, as in client-go.
const PENDING: usize = 8192;
/// How long a shutdown continues to write what waits.
const DRAIN: Duration = Duration::from_secs(2);
/// A connection whose other end went away without a word must not keep back all later events.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Whether an Event is a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something that is expected.
    Normal,
    /// Something that people should look at.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Hands events to the one task that writes them. Clones share that.
#[derive(Clone)]
pub struct Recorder {
    pending: mpsc::Sender<Entry>,
    dropped: Arc<AtomicU64>,
}

/// Writes what its [`Recorder`] is given. Clones share the queue: one of them runs at a time.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    /// The node that events come from, for components that run on one.
    host: Option<String>,
    rate: Rate,
    shared: Arc<Mutex<Shared>>,
    dropped: Arc<AtomicU64>,
}

/// What a writer that is started again after a panic goes on with.
struct Shared {
    entries: mpsc::Receiver<Entry>,
    correlator: Correlator,
}

struct Entry {
    regarding: ObjectReference,
    occurrence: Occurrence,
    at: Timestamp,
}

/// A recorder, and the writer of its events, which come from `host` if from a node.
pub fn recorder(client: Client, host: Option<String>, rate: Rate) -> (Recorder, Writer) {
    let (pending, entries) = mpsc::channel(PENDING);
    let dropped = Arc::new(AtomicU64::new(0));
    let shared = Arc::new(Mutex::new(Shared { entries, correlator: Correlator::default() }));
    (Recorder { pending, dropped: dropped.clone() }, Writer { client, host, rate, shared, dropped })
}

impl Recorder {
    /// A recorder whose events nobody writes.
    pub fn silent() -> Self {
        Self { pending: mpsc::channel(1).0, dropped: Arc::default() }
    }

    /// Records that `reason` happened to `regarding`. Never waits.
    pub fn record(
        &self,
        component: &'static str,
        regarding: ObjectReference,
        kind: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let object = regarding
            .uid
            .clone()
            .unwrap_or_else(|| format!("{:?}/{:?}/{:?}", regarding.kind, regarding.namespace, regarding.name));
        let occurrence = Occurrence {
            component,
            object,
            field_path: regarding.field_path.clone(),
            reason,
            warning: kind == EventType::Warning,
            message: message.into(),
        };
        if self.pending.try_send(Entry { regarding, occurrence, at: Timestamp::now() }).is_err() {
            tracing::debug!(reason, "event dropped: too many wait to be written");
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Writer {
    /// Writes until `stop`, and then for a moment what still waits.
    pub async fn run(self, stop: CancellationToken) {
        // One writer at a time; the lock is free again when a writer that panicked is started again.
        let mut shared = self.shared.lock().await;
        let mut pace = Pace::new(self.rate, Instant::now());
        loop {
            let next = async {
                tokio::time::sleep_until(pace.next(Instant::now())).await;
                shared.entries.recv().await
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                entry = next => match entry {
                    Some(entry) => {
                        pace.take_token(Instant::now());
                        tokio::select! {
                            () = self.write_in_time(&mut shared.correlator, entry) => {}
                            () = moment_after(&stop) => break,
                        }
                        self.report_dropped();
                    }
                    // Nobody records any more.
                    None => return stop.cancelled().await,
                }
            }
        }
        shared.entries.close();
        let drain = async {
            while let Some(entry) = shared.entries.recv().await {
                self.write_in_time(&mut shared.correlator, entry).await;
            }
        };
        if tokio::time::timeout(DRAIN, drain).await.is_err() {
            tracing::debug!("events left unwritten at shutdown");
        }
    }

    fn report_dropped(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "events were dropped: more came than the API took");
        }
    }

    async fn write_in_time(&self, correlator: &mut Correlator, entry: Entry) {
        if tokio::time::timeout(ANSWERED_WITHIN, self.write(correlator, entry)).await.is_err() {
            tracing::debug!("an event was not written in time");
        }
    }

    async fn write(&self, correlator: &mut Correlator, entry: Entry) {
        let namespace = entry.regarding.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let mut verdict = correlator.decide(&entry.occurrence, Instant::now());
        if let Verdict::Count { name, count, message } = &verdict {
            let patch = json!({"count": count, "message": message, "lastTimestamp": Time(entry.at)});
            match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return,
                // It outlived its time to live and was deleted: create a new one.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    correlator.forget(&entry.occurrence, Instant::now());
                    verdict = Verdict::Create { message: message.clone() };
                }
                Err(error) => return tracing::debug!(%error, "cannot count an event"),
            }
        }
        if let Verdict::Create { message } = verdict {
            let event = self.event(&entry, &namespace, message);
            let name = event.metadata.name.clone().unwrap_or_default();
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => correlator.written(&entry.occurrence, name, Instant::now()),
                // A terminating namespace takes no new events.
                Err(error) => tracing::debug!(%error, "cannot write an event"),
            }
        }
    }

    fn event(&self, entry: &Entry, namespace: &str, message: String) -> Event {
        // The name ends in the nanoseconds in hex, as client-go's does.
        let object = entry.regarding.name.as_deref().unwrap_or("unknown");
        let name = format!("{object}.{:x}", entry.at.as_nanosecond());
        let occurrence = &entry.occurrence;
        let kind = if occurrence.warning { EventType::Warning } else { EventType::Normal };
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..Default::default() },
            involved_object: entry.regarding.clone(),
            reason: Some(occurrence.reason.to_owned()),
            message: Some(message),
            type_: Some(kind.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(entry.at)),
            last_timestamp: Some(Time(entry.at)),
            source: Some(EventSource { component: Some(occurrence.component.to_owned()), host: self.host.clone() }),
            reporting_component: Some(occurrence.component.to_owned()),
            reporting_instance: Some(self.host.clone().unwrap_or_default()),
            ..Default::default()
        }
    }
}

async fn moment_after(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted;

    fn pod(name: &str) -> ObjectReference {
        ObjectReference { namespace: Some("a".into()), name: Some(name.into()), ..Default::default() }
    }

    #[tokio::test]
    async fn what_waits_at_the_stop_is_written_and_what_repeats_is_counted() {
        let event = json!({ "apiVersion": "v1", "kind": "Event", "metadata": { "name": "web.1", "namespace": "a" },
            "involvedObject": {} })
        .to_string();
        let (client, asked) = scripted::client([(201, event.clone()), (200, event.clone()), (201, event)]);
        let (recorder, writer) = recorder(client, Some("n1".into()), Rate { burst: 1.0, per_second: 1.0 });
        for (name, message) in [("web", "one"), ("web", "one"), ("web", "two")] {
            recorder.record("kubelet", pod(name), EventType::Normal, "Started", message);
        }
        let stop = CancellationToken::new();
        stop.cancel();
        writer.run(stop).await;
        let asked: Vec<String> = asked.lock().iter().map(|asked| asked[..34.min(asked.len())].to_owned()).collect();
        assert_eq!(asked.len(), 3, "{asked:?}");
        let methods: Vec<&str> = asked.iter().filter_map(|asked| asked.split(' ').next()).collect();
        assert_eq!(methods, ["POST", "PATCH", "POST"]);
        assert!(asked[1].starts_with("PATCH /api/v1/namespaces/a/events/"), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_does_not_answer_holds_up_neither_later_events_nor_the_shutdown() {
        let (client, asked) = scripted::client([]);
        let (recorder, writer) = recorder(client, None, Rate { burst: 10.0, per_second: 10.0 });
        let stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(stop.clone()));
        for message in ["one", "two"] {
            recorder.record("kubelet", pod("web"), EventType::Normal, "Started", message);
        }
        tokio::time::sleep(ANSWERED_WITHIN * 3 / 2).await;
        assert_eq!(asked.lock().len(), 2);
        stop.cancel();
        tokio::time::timeout(DRAIN * 3, writing).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let (client, _) = scripted::client([]);
        let (recorder, writer) = recorder(client, None, Rate { burst: 1.0, per_second: 1.0 });
        for number in 0..PENDING + 3 {
            recorder.record("kubelet", pod("web"), EventType::Warning, "BackOff", number.to_string());
        }
        assert_eq!(writer.dropped.load(Ordering::Relaxed), 3);
    }
}
