//! The scheduler's requests: a pod's binding, and word to a pod that nothing can take it.

use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde::de::IgnoredAny;
use serde_json::json;

use super::waiting::WaitingPod;
use crate::controllers::engine::{EventType, Recorder, api_code};

const COMPONENT: &str = "default-scheduler";

/// How a request for a pod ended.
#[derive(Debug)]
pub enum Ended {
    Bound,
    /// The pod is gone, or has a node from someone else: the watch tells.
    Superseded,
    Failed,
    Told,
}

/// Binds `pod` to `node`.
pub async fn bind(client: Client, recorder: Recorder, pod: WaitingPod, node: String) -> Ended {
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
    let bound = api.create_subresource::<_, IgnoredAny>("binding", name, &params, &Binding { metadata, target }).await;
    match bound {
        Ok(_) => {
            let message = format!("Successfully assigned {}/{} to {node}", namespace, name);
            recorder.record(COMPONENT, regarding(&pod), EventType::Normal, "Scheduled", message);
            Ended::Bound
        }
        Err(error) if matches!(api_code(&error), Some(404 | 409)) => Ended::Superseded,
        Err(error) => {
            tracing::warn!(pod = %pod.key, node, error = &error as &dyn std::error::Error, "cannot bind");
            let message = format!("binding rejected: {error}");
            recorder.record(COMPONENT, regarding(&pod), EventType::Warning, "FailedScheduling", message);
            Ended::Failed
        }
    }
}

/// Tells `pod` why it has no node: condition and event.
pub async fn tell(client: Client, recorder: Recorder, pod: WaitingPod, message: String) -> Ended {
    recorder.record(COMPONENT, regarding(&pod), EventType::Warning, "FailedScheduling", message.clone());
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": Time(Timestamp::now())});
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    if let Err(error) = api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        tracing::debug!(pod = %pod.key, %error, "cannot tell a pod why it waits");
    }
    Ended::Told
}

fn regarding(pod: &WaitingPod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.clone()),
        ..Default::default()
    }
}
