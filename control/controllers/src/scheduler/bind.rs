//! The scheduler's requests: the binding of a pod, the condition of a pod that no node can take, and the deletion of
//! others for it.

use std::time::Duration;

use fairlead_client::Api;
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use super::{
    pod::revision_of,
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
    /// That reason could not be written.
    NotReported,
    /// The nomination was written and all victims were deleted, or were gone before.
    Preempted(Preempted),
    /// The nomination was written, and some victims are still there.
    PreemptionFailed(Preempted),
}

/// What a preemption did.
#[derive(Debug)]
pub struct Preempted {
    /// Of the preemptor, with its nomination.
    pub revision: u64,
    /// How many pods were deleted for it.
    pub victims: usize,
    /// Why it has no node yet.
    pub message: String,
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

/// How many requests one preemption sends at a time.
const AT_A_TIME: usize = 16;

/// Writes to `pod` which node it is to have and why it has none yet, takes back the nominations in `outranked` (uid and
/// name of each pod), and deletes the victims. The nomination comes first: whoever goes on after a crash knows of it.
pub async fn preempt(
    client: Client,
    recorder: Recorder,
    pod: QueuedPod,
    preemption: Preemption,
    outranked: Vec<(String, Key)>,
    message: String,
) -> RequestOutcome {
    let node = preemption.node;
    recorder.record(COMPONENT, regarding(&pod), EventType::Warning, "FailedScheduling", message.clone());
    let revision = match patch_status(&client, &pod.key, unschedulable(&pod, &message, Nomination::To(&node))).await {
        Ok(revision) => revision,
        Err(WriteError::Gone) => return RequestOutcome::Superseded,
        Err(WriteError::Failed) => return RequestOutcome::Failed,
    };
    let taken_back = stream::iter(outranked).map(|(uid, key)| {
        let client = &client;
        let patch = json!({"metadata": {"uid": uid}, "status": {"nominatedNodeName": null}});
        // Who still has it is outranked all the same, and tries again without it.
        async move { patch_status(client, &key, patch).await.is_ok() }
    });
    taken_back.buffer_unordered(AT_A_TIME).for_each(|_| std::future::ready(())).await;
    let victims = preemption.victims.into_iter().filter(|victim| !victim.terminating);
    let deletions = stream::iter(victims).map(|victim| delete(&client, &recorder, &pod, &node, victim));
    let deleted: Vec<Deletion> = deletions.buffer_unordered(AT_A_TIME).collect().await;
    let victims = deleted.iter().filter(|deletion| **deletion == Deletion::Sent).count();
    tracing::info!(pod = %pod.key, node, victims, "pods of lower priority make room");
    let preempted = Preempted { revision, victims, message };
    if !deleted.contains(&Deletion::Failed) {
        return RequestOutcome::Preempted(preempted);
    }
    let message = format!("not all pods on {node} could be preempted");
    recorder.record(COMPONENT, regarding(&pod), EventType::Warning, "FailedPreemption", message);
    RequestOutcome::PreemptionFailed(preempted)
}

/// What became of a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletion {
    Sent,
    /// It was gone, or another has its name.
    Gone,
    Failed,
}

/// Tells a victim why it goes, and deletes it. One that cannot be told is not deleted: its Job must know.
async fn delete(client: &Client, recorder: &Recorder, pod: &QueuedPod, node: &str, victim: Victim) -> Deletion {
    let message = format!("{COMPONENT}: preempting to accommodate a higher priority pod");
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": preemption::REASON,
        "message": message, "lastTransitionTime": Time(Timestamp::now())});
    let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
    match patch_status(client, &victim.key, patch).await {
        Ok(_) => {}
        Err(WriteError::Gone) => return Deletion::Gone,
        Err(WriteError::Failed) => return Deletion::Failed,
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), &victim.key.namespace);
    let same = Preconditions { uid: Some(victim.uid.clone()), ..Preconditions::default() };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    match tokio::time::timeout(TIMEOUT, api.delete(&victim.key.name, &params)).await {
        Ok(Ok(_)) => {
            let message = format!("Preempted by pod {} on node {node}", pod.uid);
            let regarding = reference(&victim.key, &victim.uid);
            recorder.record(COMPONENT, regarding, EventType::Normal, "Preempted", message);
            Deletion::Sent
        }
        Ok(Err(error)) if matches!(api_code(&error), Some(404 | 409)) => Deletion::Gone,
        Ok(Err(error)) => {
            tracing::warn!(pod = %pod.key, victim = %victim.key, %error, "cannot preempt");
            Deletion::Failed
        }
        Err(_) => {
            tracing::warn!(pod = %pod.key, victim = %victim.key, "the deletion was not answered in time");
            Deletion::Failed
        }
    }
}

/// What becomes of a pod's nomination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nomination<'n> {
    /// It stays as it is.
    Kept,
    /// The pod has none any more.
    Ended,
    /// The pod is to have this node.
    To(&'n str),
}

/// Writes why `pod` has no node: condition and event.
pub async fn report_unschedulable(
    client: Client,
    recorder: Recorder,
    pod: QueuedPod,
    message: String,
    nomination: Nomination<'static>,
) -> RequestOutcome {
    recorder.record(COMPONENT, regarding(&pod), EventType::Warning, "FailedScheduling", message.clone());
    match patch_status(&client, &pod.key, unschedulable(&pod, &message, nomination)).await {
        Ok(_) | Err(WriteError::Gone) => RequestOutcome::Reported,
        Err(WriteError::Failed) => RequestOutcome::NotReported,
    }
}

/// The patch that says why a pod has no node.
fn unschedulable(pod: &QueuedPod, message: &str, nomination: Nomination) -> Value {
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": Time(Timestamp::now())});
    let mut patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    match nomination {
        Nomination::Kept => {}
        Nomination::Ended => patch["status"]["nominatedNodeName"] = Value::Null,
        Nomination::To(node) => patch["status"]["nominatedNodeName"] = node.into(),
    }
    patch
}

/// Why a status was not written.
enum WriteError {
    /// The pod is gone, or is another.
    Gone,
    Failed,
}

/// Returns the pod's revision with it.
async fn patch_status(client: &Client, pod: &Key, patch: Value) -> Result<u64, WriteError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
    match tokio::time::timeout(TIMEOUT, api.patch_status(&pod.name, &params, &patch)).await {
        Ok(Ok(written)) => Ok(revision_of(&written)),
        Ok(Err(error)) if matches!(api_code(&error), Some(404 | 409)) => Err(WriteError::Gone),
        Ok(Err(error)) => {
            tracing::warn!(%pod, %error, "cannot write the status of a pod");
            Err(WriteError::Failed)
        }
        Err(_) => {
            tracing::warn!(%pod, "the status of a pod was not written in time");
            Err(WriteError::Failed)
        }
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
