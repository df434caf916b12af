//! Writes events about pods to the API; an event that repeats raises the count of the first. Writes happen in the
//! background, one after the other, so that no pod waits for them. Events are dropped, with a warning in the log, when
//! the API does not keep up.

use std::collections::HashMap;

use fairlead_client::Api;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinHandle};

/// Kubernetes' two types of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something that is expected.
    Normal,
    /// Something that people should look at.
    Warning,
}

/// The queue of events to write.
pub struct Recorder {
    queue: Mutex<Option<mpsc::Sender<Entry>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    pod: Involved,
    kind: EventType,
    reason: &'static str,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Involved {
    namespace: String,
    name: String,
    uid: String,
    /// `spec.containers{NAME}`
    field_path: Option<String>,
}

const QUEUE: usize = 1024;
/// Distinct events remembered for counting.
const REMEMBERED: usize = 1024;

impl Recorder {
    /// Starts to write the events of `node`.
    pub fn start(client: Client, node: &str) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write_all(client, node.to_owned(), entries));
        Self { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) }
    }

    /// Records an event about `pod`, or about one of its containers.
    pub fn record(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let meta = &pod.metadata;
        let field_path = container.map(|name| {
            let list = if super::spec::init_containers(pod).any(|container| container.name == name) {
                "initContainers"
            } else if super::spec::ephemeral_containers(pod).any(|container| container.name == name) {
                "ephemeralContainers"
            } else {
                "containers"
            };
            format!("spec.{list}{{{name}}}")
        });
        let pod = Involved {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            field_path,
        };
        let entry = Entry { pod, kind, reason, message: message.into() };
        if let Some(queue) = &*self.queue.lock()
            && let Err(error) = queue.try_send(entry)
        {
            tracing::warn!(%error, "an event about a pod is dropped");
        }
    }

    /// Waits until what was recorded is written, at most a few seconds.
    pub async fn drain(&self) {
        self.queue.lock().take();
        let writer = self.writer.lock().take();
        if let Some(mut writer) = writer
            && tokio::time::timeout(std::time::Duration::from_secs(2), &mut writer).await.is_err()
        {
            writer.abort();
        }
    }
}

async fn write_all(client: Client, node: String, mut entries: mpsc::Receiver<Entry>) {
    let mut written: HashMap<Entry, (String, i32)> = HashMap::new();
    while let Some(entry) = entries.recv().await {
        let events = Api::<Event>::namespaced(client.clone(), &entry.pod.namespace);
        let known = written.get(&entry).cloned();
        match write(&events, &node, &entry, known).await {
            Ok(recorded) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(entry, recorded);
            }
            Err(error) => tracing::debug!(%error, reason = entry.reason, "an event about a pod was not written"),
        }
    }
}

/// Writes a new event, or counts up the one that `known` names; returns its name and count.
async fn write(
    events: &Api<Event>,
    node: &str,
    entry: &Entry,
    known: Option<(String, i32)>,
) -> Result<(String, i32), kube::Error> {
    let now = Time(Timestamp::now());
    if let Some((name, count)) = known {
        let patch = json!({ "count": count.saturating_add(1), "lastTimestamp": now });
        match events.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok((name, count.saturating_add(1))),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let Involved { namespace, name, uid, field_path } = entry.pod.clone();
    let event_name = format!("{name}.{:016x}", rand::random::<u64>());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(event_name.clone()),
            namespace: Some(namespace.clone()),
            ..Default::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace),
            name: Some(name),
            uid: Some(uid),
            field_path,
            resource_version: None,
        },
        type_: Some(format!("{:?}", entry.kind)),
        reason: Some(entry.reason.to_owned()),
        message: Some(entry.message.clone()),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Default::default()
    };
    events.create(&PostParams::default(), &event).await?;
    Ok((event_name, 1))
}
