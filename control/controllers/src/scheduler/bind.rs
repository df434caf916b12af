//! The scheduler's requests: the binding of a pod, the condition of a pod that no node can take, and the deletion of
//! others for it.

use std::time::Duration;

use fairlead_client::Api;
use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    preemption::{self, Preemption, Victim},
    queue::QueuedPod,
};
use crate::engine::{EventType, Key, Recorder, api_code};

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

/// Deletes the victims of a preemption, takes back the nominations in `outranked` (uid and name of each pod), and writes
/// to `pod` which node it is to have and why it has none yet.
pub async fn preempt(
    client: Client,
    recorder: Recorder,
    pod: QueuedPod,
    preemption: Preemption,
    outranked: Vec<(String, Key)>,
    message: String,
) -> RequestOutcome {
    let node = preemption.node;
    let mut deletions: JoinSet<bool> = JoinSet::new();
    for victim in preemption.victims.into_iter().filter(|victim| !victim.terminating) {
        deletions.spawn(delete(client.clone(), recorder.clone(), pod.clone(), node.clone(), victim));
    }
    if !deletions.join_all().await.into_iter().all(|deleted| deleted) {
        return RequestOutcome::Failed;
    }
    for (uid, key) in outranked {
        let patch = json!({"metadata": {"uid": uid}, "status": {"nominatedNodeName": null}});
        patch_status(&client, &key, patch).await;
    }
    report_unschedulable(client, recorder, pod, message, Some(node)).await
}

/// Returns whether the victim is gone or on its way.
async fn delete(client: Client, recorder: Recorder, pod: QueuedPod, node: String, victim: Victim) -> bool {
    let message = format!("{COMPONENT}: preempting to accommodate a higher priority pod");
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": preemption::REASON,
        "message": message, "lastTransitionTime": Time(Timestamp::now())});
    patch_status(&client, &victim.key, json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}))
        .await;
    let api: Api<Pod> = Api::namespaced(client, &victim.key.namespace);
    let same = Preconditions { uid: Some(victim.uid.clone()), ..Preconditions::default() };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    match tokio::time::timeout(TIMEOUT, api.delete(&victim.key.name, &params)).await {
        Ok(Ok(_)) => {
            let message = format!("Preempted by pod {} on node {node}", pod.uid);
            let regarding = reference(&victim.key, &victim.uid);
            recorder.record(COMPONENT, regarding, EventType::Normal, "Preempted", message);
            true
        }
        Ok(Err(error)) if matches!(api_code(&error), Some(404 | 409)) => true,
        Ok(Err(error)) => {
            tracing::warn!(pod = %pod.key, victim = %victim.key, %error, "cannot preempt");
            false
        }
        Err(_) => {
            tracing::warn!(pod = %pod.key, victim = %victim.key, "the deletion was not answered in time");
            false
        }
    }
}

/// Writes why `pod` has no node: condition and event. `nominated` is the node that it is to have.
pub async fn report_unschedulable(
    client: Client,
    recorder: Recorder,
    pod: QueuedPod,
    message: String,
    nominated: Option<String>,
) -> RequestOutcome {
    recorder.record(COMPONENT, regarding(&pod), EventType::Warning, "FailedScheduling", message.clone());
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": Time(Timestamp::now())});
    let mut patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    if let Some(node) = nominated {
        patch["status"]["nominatedNodeName"] = node.into();
    }
    patch_status(&client, &pod.key, patch).await;
    RequestOutcome::Reported
}

/// What it cannot write is written at the next attempt.
async fn patch_status(client: &Client, pod: &Key, patch: serde_json::Value) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
    match tokio::time::timeout(TIMEOUT, api.patch_status(&pod.name, &params, &patch)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%pod, %error, "cannot write the status of a pod"),
        Err(_) => tracing::warn!(%pod, "the status of a pod was not written in time"),
    }
}

fn regarding(pod: &QueuedPod) -> ObjectReference {
    reference(&pod.key, &pod.uid)
}

fn reference(pod: &Key, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(uid.to_owned()),
        ..Default::default()
    }
}
