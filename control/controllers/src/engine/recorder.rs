//! Writes Events in the background: bounded, in order, one request at a time, so that event writes never block
//! reconciliation.

use std::{sync::Arc, time::Duration};

use fairlead_client::Api;
use futures::FutureExt;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::later::later;

use super::{
    Tasks, api_code,
    correlate::{Correlator, Occurrence, Verdict},
};

/// Events that may wait to be written; more are dropped, as in client-go.
const PENDING: usize = 8192;
/// Events written in one go, and each second after that: recording a thousand new pods must not slow the next thousand.
const BURST: f64 = 500.0;
const PER_SECOND: f64 = 300.0;
/// How long a shutdown continues to write what waits.
const DRAIN: Duration = Duration::from_secs(1);

/// Whether an Event is a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Hands events to the one task that writes them.
#[derive(Clone)]
pub struct Recorder {
    pending: mpsc::Sender<Entry>,
}

struct Entry {
    regarding: ObjectReference,
    occurrence: Occurrence,
    at: Timestamp,
}

impl Recorder {
    /// A recorder whose writer is one of `tasks`.
    pub fn start(client: Client, tasks: &Tasks) -> Self {
        let (pending, entries) = mpsc::channel(PENDING);
        let entries = Arc::new(Mutex::new(entries));
        tasks.spawn("event-recorder", move |stop| write(client.clone(), entries.clone(), stop).boxed());
        Self { pending }
    }

    /// A recorder whose events nobody writes.
    #[cfg(test)]
    pub fn silent() -> Self {
        Self { pending: mpsc::channel(1).0 }
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
        let occurrence =
            Occurrence { component, object, reason, warning: kind == EventType::Warning, message: message.into() };
        if self.pending.try_send(Entry { regarding, occurrence, at: Timestamp::now() }).is_err() {
            tracing::debug!(reason, "event dropped: too many wait to be written");
        }
    }
}

/// Points at `object` as an Event does.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

async fn write(client: Client, entries: Arc<Mutex<mpsc::Receiver<Entry>>>, stop: CancellationToken) {
    // One writer at a time; the lock is free again when a writer that panicked is started again.
    let mut entries = entries.lock().await;
    let mut correlator = Correlator::default();
    let mut pace = Pace { tokens: BURST, at: Instant::now() };
    loop {
        let next = async {
            tokio::time::sleep_until(pace.next(Instant::now())).await;
            entries.recv().await
        };
        tokio::select! {
            biased;
            _ = stop.cancelled() => break,
            entry = next => match entry {
                Some(entry) => {
                    pace.take_token(Instant::now());
                    write_one(&client, &mut correlator, entry).await;
                }
                None => return,
            }
        }
    }
    entries.close();
    let drain = async {
        while let Some(entry) = entries.recv().await {
            write_one(&client, &mut correlator, entry).await;
        }
    };
    if tokio::time::timeout(DRAIN, drain).await.is_err() {
        tracing::debug!("events left unwritten at shutdown");
    }
}

/// A bucket of [`BURST`] tokens that fills by [`PER_SECOND`].
struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// When the next event may be written.
    fn next(&self, now: Instant) -> Instant {
        let missing = 1.0 - self.tokens_at(now);
        if missing <= 0.0 { now } else { later(now, Duration::from_secs_f64(missing / PER_SECOND)) }
    }

    fn take_token(&mut self, now: Instant) {
        self.tokens = self.tokens_at(now) - 1.0;
        self.at = now;
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        (self.tokens + now.duration_since(self.at).as_secs_f64() * PER_SECOND).min(BURST)
    }
}

async fn write_one(client: &Client, correlator: &mut Correlator, entry: Entry) {
    let namespace = entry.regarding.namespace.clone().unwrap_or_else(|| "default".into());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let mut verdict = correlator.decide(&entry.occurrence, Instant::now());
    if let Verdict::Count { name, count, message } = &verdict {
        let patch = json!({"count": count, "message": message, "lastTimestamp": Time(entry.at)});
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return,
            // It outlived its time to live and was deleted: create a new one.
            Err(error) if api_code(&error) == Some(404) => {
                correlator.forget(name);
                verdict = Verdict::Create { message: message.clone() };
            }
            Err(error) => return tracing::debug!(%error, "cannot count an event"),
        }
    }
    if let Verdict::Create { message } = verdict {
        let event = event(&entry, &namespace, message);
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => correlator.written(&entry.occurrence, name, Instant::now()),
            // A terminating namespace takes no new events.
            Err(error) => tracing::debug!(%error, "cannot write an event"),
        }
    }
}

fn event(entry: &Entry, namespace: &str, message: String) -> Event {
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
        source: Some(EventSource { component: Some(occurrence.component.to_owned()), host: None }),
        reporting_component: Some(occurrence.component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_pace() {
        let now = Instant::now();
        let mut pace = Pace { tokens: BURST, at: now };
        for _ in 0..500 {
            assert_eq!(pace.next(now), now);
            pace.take_token(now);
        }
        let next = pace.next(now);
        assert!(next > now && next < now + Duration::from_millis(5));
        assert_eq!(pace.next(next + Duration::from_millis(1)), next + Duration::from_millis(1));
    }
}
