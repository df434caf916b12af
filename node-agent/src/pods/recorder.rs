//! Records events about pods, their containers and this node. They are correlated and written in the background, by a
//! supervised task, as the kubelet's: no pod waits for them.

use fairlead_client::recorder::{self, Rate};
pub use fairlead_client::recorder::{EventType, Writer};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Client;

/// Hands events to the task that writes them.
pub struct Recorder {
    events: recorder::Recorder,
    node: String,
}

/// Who reports: pods on fairlead's nodes have the same events as on the kubelet's.
const COMPONENT: &str = "kubelet";
/// The kubelet's `eventBurst` and `eventRecordQPS`.
const RATE: Rate = Rate { burst: 100.0, per_second: 50.0 };

impl Recorder {
    /// The recorder of `node`, and what writes its events.
    pub fn new(client: Client, node: &str) -> (Self, Writer) {
        let (events, writer) = recorder::recorder(client, Some(node.to_owned()), RATE);
        (Self { events, node: node.to_owned() }, writer)
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
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            field_path: container.map(|name| field_path(pod, name)),
            resource_version: None,
        };
        self.events.record(COMPONENT, regarding, kind, reason, message);
    }

    /// Records an event about this node.
    pub fn record_node(&self, kind: EventType, reason: &'static str, message: impl Into<String>) {
        let regarding = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            // As the kubelet's: `kubectl describe node` looks for events with the name for a uid.
            uid: Some(self.node.clone()),
            ..Default::default()
        };
        self.events.record(COMPONENT, regarding, kind, reason, message);
    }
}

/// `spec.containers{NAME}`, in the list that has the container.
fn field_path(pod: &Pod, name: &str) -> String {
    let list = if super::spec::init_containers(pod).any(|container| container.name == name) {
        "initContainers"
    } else if super::spec::ephemeral_containers(pod).any(|container| container.name == name) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{list}{{{name}}}")
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;
    use crate::supervise::Supervisor;

    /// A client whose first request panics, and the events that the others write.
    fn client_that_panics_first() -> (Client, mpsc::UnboundedReceiver<Value>) {
        let (written, events) = mpsc::unbounded_channel();
        let has_panicked = Arc::new(AtomicBool::new(false));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (written, panics) = (written.clone(), !has_panicked.swap(true, Ordering::Relaxed));
            async move {
                assert!(!panics, "told to panic");
                let body = request.into_body().collect().await?.to_bytes();
                written.send(serde_json::from_slice(&body)?)?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(http::Response::new(Body::from(body.to_vec())))
            }
        });
        (Client::new(service, "default"), events)
    }

    #[tokio::test]
    async fn a_writer_that_panics_is_started_again_and_writes_what_comes_then() {
        let (client, mut events) = client_that_panics_first();
        let (recorder, writer) = Recorder::new(client, "n1");
        let supervisor = Supervisor::with_first_delay(Duration::from_millis(1));
        supervisor.spawn("event-recorder", move |stop| writer.clone().run(stop));
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "namespace": "a", "name": "web", "uid": "u" },
            "spec": { "containers": [{ "name": "app" }] },
        }))
        .unwrap();
        recorder.record(&pod, None, EventType::Normal, "Lost", "with the panic");
        recorder.record(&pod, Some("app"), EventType::Warning, "BackOff", "again");
        recorder.record_node(EventType::Warning, "ImageGCFailed", "no");
        let next = tokio::time::timeout(Duration::from_secs(20), events.recv());
        let event = next.await.expect("an event in time").unwrap();
        assert_eq!(
            (&event["reason"], &event["count"], &event["type"]),
            (&json!("BackOff"), &json!(1), &json!("Warning"))
        );
        assert_eq!(event["involvedObject"]["fieldPath"], "spec.containers{app}");
        assert_eq!(event["source"], json!({ "component": "kubelet", "host": "n1" }));
        let event = events.recv().await.unwrap();
        let node = json!({ "kind": "Node", "name": "n1", "uid": "n1" });
        assert_eq!((&event["involvedObject"], &event["metadata"]["namespace"]), (&node, &json!("default")));
        assert_eq!(supervisor.tasks()[0].restarts, 1);
        supervisor.shutdown().await;
    }
}
