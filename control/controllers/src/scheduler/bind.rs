//! The scheduler's requests: the binding of a pod, and the condition of a pod that no node can take.

use std::time::Duration;

use fairlead_client::Api;
use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::queue::QueuedPod;
use crate::engine::{EventType, Recorder, api_code};

const COMPONENT: &str = "default-scheduler";

/// How a request for a pod ended.
#[derive(Debug)]
pub enum RequestOutcome {
    /// The pod has its node.
    Bound,
    /// The pod is gone, or has a node from someone else: the watch will show it.
    Superseded,
    /// The API refused or did not answer: the pod is tried again.
    Failed,
    /// The reason why the pod has no node was written.
    Reported,
}

/// A request without an answer must not keep its place for ever; should it succeed after all, the watch shows that.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Binds `pod` to `node`.
pub async fn bind(client: Client, recorder: Recorder, pod: QueuedPod, node: String) -> RequestOutcome {
    let key = pod.key.clone();
    tokio::time::timeout(TIMEOUT, try_bind(client, recorder, pod, node)).await.unwrap_or_else(|_| {
        tracing::warn!(pod = %key, "the binding was not answered in time");
        RequestOutcome::Failed
    })
}

async fn try_bind(client: Client, recorder: Recorder, pod: QueuedPod, node: String) -> RequestOutcome {
    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
    let target = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.clone()),
        ..Default::default()
    };
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        uid: Some(pod.uid.clone()),
        ..Default::default()
    };
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let params = PostParams::default();
    let bound = api.create_subresource("binding", name, &params, &Binding { metadata, target }).await;
    match bound {
        Ok(_) => {
            let message = format!("Successfully assigned {}/{} to {node}", namespace, name);
            recorder.record(COMPONENT, regarding(&pod), EventType::Normal, "Scheduled", message);
            RequestOutcome::Bound
        }
        Err(error) if matches!(api_code(&error), Some(404 | 409)) => RequestOutcome::Superseded,
        Err(error) => {
            tracing::warn!(pod = %pod.key, node, error = &error as &dyn std::error::Error, "cannot bind");
            let message = format!("binding rejected: {error}");
            recorder.record(COMPONENT, regarding(&pod), EventType::Warning, "FailedScheduling", message);
            RequestOutcome::Failed
        }
    }
}

/// Writes why `pod` has no node: condition and event.
pub async fn report_unschedulable(
    client: Client,
    recorder: Recorder,
    pod: QueuedPod,
    message: String,
) -> RequestOutcome {
    recorder.record(COMPONENT, regarding(&pod), EventType::Warning, "FailedScheduling", message.clone());
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": Time(Timestamp::now())});
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
    match tokio::time::timeout(TIMEOUT, api.patch_status(&pod.key.name, &params, &patch)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(pod = %pod.key, %error, "cannot write why a pod waits"),
        Err(_) => tracing::warn!(pod = %pod.key, "the status of a pod that waits was not written in time"),
    }
    RequestOutcome::Reported
}

fn regarding(pod: &QueuedPod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.clone()),
        ..Default::default()
    }
}
