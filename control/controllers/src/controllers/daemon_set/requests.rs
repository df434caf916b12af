//! The requests of one pass over a DaemonSet.

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus},
    core::v1::Pod,
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{
    super::{
        expectations::Expectations,
        history::{HASH_LABEL, History, HistoryOwner},
        pod_requests::PodRequests,
    },
    COMPONENT, placement,
    plan::DaemonPlan,
};
use crate::engine::{EventType, Failure, Informer, Key, Recorder, reference, unless_gone};

impl HistoryOwner for DaemonSet {
    const REVISION_LABEL: &'static str = HASH_LABEL;

    fn collision_count(&self) -> i32 {
        self.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
    }
}

/// The requests of one pass, and what they need.
pub struct DaemonSetRequests<'a> {
    /// Name of the set.
    pub key: &'a Key,
    /// The set as this pass began with it.
    pub set: &'a DaemonSet,
    /// DaemonSets of its namespace.
    pub sets: Api<DaemonSet>,
    /// Pods of its namespace.
    pub pods: Api<Pod>,
    /// Its revisions.
    pub history: History<'a, DaemonSet>,
    /// The shared cache of sets.
    pub view: &'a Informer<DaemonSet>,
    /// Creations and deletions that the cache has not shown yet.
    pub expectations: &'a Expectations,
    /// Writes events about the set.
    pub recorder: &'a Recorder,
}

impl DaemonSetRequests<'_> {
    /// Deletes the older revisions of the present template, after their pods bear the label of the newest.
    pub async fn merge(
        &self,
        duplicates: &[Arc<ControllerRevision>],
        hash: &str,
        pods: &[Arc<Pod>],
    ) -> Result<(), Failure> {
        if duplicates.is_empty() {
            return Ok(());
        }
        let hashes: Vec<&str> = duplicates.iter().map(|revision| hash_of(revision)).collect();
        let label = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).cloned();
        for pod in pods.iter().filter(|pod| label(pod).is_some_and(|of| hashes.contains(&of.as_str()))) {
            let patch = json!({"metadata": {"uid": pod.metadata.uid, "labels": {HASH_LABEL: hash}}});
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let answer = self.pods.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
            unless_gone(answer, "label a pod with its revision")?;
        }
        self.history.delete(duplicates).await
    }

    /// Creates and deletes pods; returns those that were deleted, whatever failed.
    pub async fn carry_out(&self, plan: &DaemonPlan, hash: &str) -> (Vec<Arc<Pod>>, Result<(), Failure>) {
        let name = |pod: &Pod| Key::of(pod).to_string();
        for (node, pod) in &plan.failed {
            let message = format!("Found failed daemon pod {} on node {node}, will try to kill it", name(pod));
            self.record(EventType::Warning, "FailedDaemonPod", message);
        }
        for pod in &plan.succeeded {
            let node = placement::target_node(pod).unwrap_or_default();
            let message = format!("Found succeeded daemon pod {} on node {node}, will try to delete it", name(pod));
            self.record(EventType::Normal, "SucceededDaemonPod", message);
        }
        let is_current = || self.view.is_current(self.set);
        let requests = PodRequests {
            key: self.key,
            pods: self.pods.clone(),
            expectations: self.expectations,
            recorder: self.recorder,
            component: COMPONENT,
            about: reference(self.set),
            is_current: &is_current,
        };
        let pod = placement::pod(self.set, hash);
        let on_node = |at: usize| placement::bind_to(pod.clone(), &plan.create[at]);
        let (_, refused) = requests.create(plan.create.len(), on_node).await;
        // Those that are to go may be what stands in the way of the new ones, as where a quota is used up.
        let (deleted, failure) = requests.delete(&plan.delete).await;
        (deleted, refused.or(failure).map_or(Ok(()), Err))
    }

    /// Writes the status; a set that is gone needs none.
    pub async fn report(&self, status: DaemonSetStatus) -> Result<(), Failure> {
        let updated = DaemonSet { status: Some(status), ..self.set.clone() };
        let answer = self.sets.replace_status(&self.key.name, &PostParams::default(), &updated).await;
        unless_gone(answer, "update the status of a DaemonSet").map(drop)
    }

    fn record(&self, kind: EventType, reason: &'static str, message: String) {
        self.recorder.record(COMPONENT, reference(self.set), kind, reason, message);
    }
}

/// What the pods of a revision are labelled with.
pub fn hash_of(revision: &ControllerRevision) -> &str {
    let label = revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
    label.or(revision.metadata.name.as_ref()).map(String::as_str).unwrap_or_default()
}
