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
        history::{self, Created, Current, HASH_LABEL, History, NewRevision},
        pod_requests::PodRequests,
    },
    COMPONENT, placement,
    plan::DaemonPlan,
};
use crate::engine::{EventType, Failure, Informer, Key, Recorder, api_code, reference};

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
    /// Revisions of its namespace.
    pub revisions: Api<ControllerRevision>,
    /// The shared cache of sets.
    pub view: &'a Informer<DaemonSet>,
    /// Creations and deletions that the cache has not shown yet.
    pub expectations: &'a Expectations,
    /// Writes events about the set.
    pub recorder: &'a Recorder,
}

impl DaemonSetRequests<'_> {
    /// The revision of the present template, made or renumbered where the history lacks it.
    pub async fn current(&self, plan: &history::HistoryPlan) -> Result<Created, Failure> {
        let collisions = self.set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let history = self.history();
        match &plan.current {
            Current::Newest(revision) => Ok(Created { revision: revision.clone(), collisions }),
            Current::Renumber(revision, number) => {
                Ok(Created { revision: history.renumber(revision, *number).await?, collisions })
            }
            Current::Missing(number) => {
                let template = self.set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
                let new = NewRevision {
                    template: &template,
                    annotations: self.set.metadata.annotations.as_ref(),
                    label: HASH_LABEL,
                    number: *number,
                };
                history.create(&new, collisions).await
            }
        }
    }

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
            match self.pods.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {}
                Err(error) if api_code(&error) == Some(404) => {}
                Err(error) => return Err(Failure::request("label a pod with its revision")(error)),
            }
        }
        self.history().delete(duplicates).await
    }

    /// Deletes revisions.
    pub async fn forget(&self, revisions: &[Arc<ControllerRevision>]) -> Result<(), Failure> {
        self.history().delete(revisions).await
    }

    fn history(&self) -> History<'_, DaemonSet> {
        History { owner: self.set, revisions: self.revisions.clone() }
    }

    /// Creates and deletes pods.
    pub async fn carry_out(&self, plan: &DaemonPlan, hash: &str) -> Result<(), Failure> {
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
        let is_current = || self.is_current();
        let requests = PodRequests {
            key: self.key,
            pods: self.pods.clone(),
            expectations: self.expectations,
            recorder: self.recorder,
            component: COMPONENT,
            about: reference(self.set),
            is_current: &is_current,
        };
        let mut made = Ok(());
        if !plan.create.is_empty() {
            let pod = placement::pod(self.set, hash);
            let pods: Vec<Pod> = plan.create.iter().map(|node| placement::bind_to(pod.clone(), node)).collect();
            made = requests.create(&pods.iter().collect::<Vec<_>>()).await;
        }
        // Those that are to go may be what stands in the way of the new ones, as where a quota is used up.
        let gone = requests.delete(&plan.delete).await;
        made.and(gone)
    }

    /// Whether the set is still as this pass was decided on. One that was changed or deleted meanwhile is decided on
    /// anew.
    fn is_current(&self) -> bool {
        self.view.get(self.key).is_some_and(|now| {
            now.metadata.uid == self.set.metadata.uid
                && now.metadata.deletion_timestamp == self.set.metadata.deletion_timestamp
                && now.metadata.generation == self.set.metadata.generation
        })
    }

    /// Writes the status; a set that is gone needs none.
    pub async fn report(&self, status: DaemonSetStatus) -> Result<(), Failure> {
        let updated = DaemonSet { status: Some(status), ..self.set.clone() };
        match self.sets.replace_status(&self.key.name, &PostParams::default(), &updated).await {
            Ok(_) => Ok(()),
            Err(error) if api_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(Failure::request("update the status of a DaemonSet")(error)),
        }
    }

    /// Writes an event about the set.
    pub fn record(&self, kind: EventType, reason: &'static str, message: String) {
        self.recorder.record(COMPONENT, reference(self.set), kind, reason, message);
    }
}

/// What the pods of a revision are labelled with.
pub fn hash_of(revision: &ControllerRevision) -> &str {
    let label = revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
    label.or(revision.metadata.name.as_ref()).map(String::as_str).unwrap_or_default()
}
