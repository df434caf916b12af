//! The requests of one pass over a Job.

use std::{collections::HashSet, sync::Arc};

use fairlead_client::Api;
use futures::{StreamExt, stream};
use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::Pod,
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{
    COMPONENT, Key,
    memory::Memory,
    plan::{Action, JobPlan},
    pods::{IndexFailures, TRACKING, is_tracked, uid},
    template::{CompletionIndex, desired, placed},
    terms::Terms,
    tracking::Done,
};
use crate::{
    controllers::{
        expectations::Expectations,
        own_writes::OwnWrites,
        pod_requests::{IN_FLIGHT, PodRequests, several},
    },
    engine::{EventType, Failure, Informer, Recorder, reference, unless_gone},
    objects::{
        owners::{adoption, controller_reference, release},
        pod_state::is_ready,
    },
};

const UNTRACK: &str = "remove a pod's finalizer";

/// The requests of one pass, and what they need.
pub struct JobRequests<'a> {
    /// Name of the Job.
    pub key: &'a Key,
    /// The Job as this pass began with it.
    pub job: &'a Job,
    /// Its terms.
    pub terms: Terms<'a>,
    /// Pods of the Job's namespace.
    pub pods: Api<Pod>,
    /// Jobs of that namespace.
    pub jobs: Api<Job>,
    /// The shared cache of Jobs: asked between requests whether the Job is still the same.
    pub view: &'a Informer<Job>,
    /// Creations and deletions that the cache has not shown yet.
    pub expectations: &'a Expectations,
    /// Releases that the cache has not shown yet.
    pub memory: &'a Memory,
    /// Status writes that the cache has not shown yet.
    pub writes: &'a OwnWrites,
    /// Writes events about the Job.
    pub recorder: &'a Recorder,
}

impl JobRequests<'_> {
    /// Takes orphans over and gives the finalizer to them; returns them as they are then. The Job is read again before:
    /// a deleted Job must not.
    pub async fn adopt(&self, orphans: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, Failure> {
        if orphans.is_empty() {
            return Ok(Vec::new());
        }
        let live = self.jobs.get_opt(&self.key.name).await.map_err(Failure::request("read the Job again"))?;
        let same = live.is_some_and(|live| {
            live.metadata.uid == self.job.metadata.uid && live.metadata.deletion_timestamp.is_none()
        });
        let mut adopted = Vec::new();
        for pod in orphans.iter().filter(|_| same) {
            let mut patch = adoption(&pod.metadata, &controller_reference(self.job));
            if !is_tracked(pod) {
                let finalizers = pod.metadata.finalizers.iter().flatten().map(String::as_str).chain([TRACKING]);
                patch["metadata"]["finalizers"] = finalizers.collect();
            }
            adopted.extend(self.patch(pod, &Patch::Merge(patch), "adopt a pod").await?.map(Arc::new));
        }
        Ok(adopted)
    }

    /// Lets go of pods that are no longer selected, and of their finalizer.
    pub async fn release_strays(&self, strays: &[Arc<Pod>]) -> Result<(), Failure> {
        for pod in strays {
            let mut patch = release(&pod.metadata, self.job.metadata.uid.as_deref().unwrap_or_default());
            let finalizers = pod.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != TRACKING);
            patch["metadata"]["finalizers"] = finalizers.cloned().collect();
            self.patch(pod, &Patch::Merge(patch), "release a pod").await?;
        }
        Ok(())
    }

    /// Changes a pod; `None` where it is gone.
    async fn patch(&self, pod: &Pod, patch: &Patch<Value>, operation: &'static str) -> Result<Option<Pod>, Failure> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        unless_gone(self.pods.patch(name, &PatchParams::default(), patch).await, operation)
    }

    /// Carries out the plan's action; with a failure, what was done before it counts all the same.
    pub async fn carry_out(&self, plan: &JobPlan) -> (Done, Option<Failure>) {
        match &plan.action {
            Action::Wait => (Done::default(), None),
            Action::End => self.delete(&plan.active).await,
            Action::Delete(pods) => self.delete_uncounted(pods).await,
            Action::Create(count) => self.create(*count, |pod, _| pod).await,
            Action::CreateIndexes(indexes) => {
                let place = |pod, at: usize| {
                    let index = indexes[at];
                    let replaced = plan.replaced.get(&index);
                    let failures = replaced.map(|pod| IndexFailures::after(pod, &self.terms)).unwrap_or_default();
                    placed(pod, self.job, &self.terms, CompletionIndex { index, failures })
                };
                self.create(indexes.len(), place).await
            }
        }
    }

    /// Creates `count` pods of the Job's template, each as `place` makes it.
    async fn create(&self, count: usize, place: impl Fn(Pod, usize) -> Pod + Send + Sync) -> (Done, Option<Failure>) {
        let pod = desired(self.job, &self.terms, controller_reference(self.job));
        let is_current = || self.view.is_current(self.job);
        let (created, failure) = self.of_pods(&is_current).create(count, |at| place(pod.clone(), at)).await;
        (Done { created, ..Done::default() }, failure)
    }

    async fn delete(&self, pods: &[Arc<Pod>]) -> (Done, Option<Failure>) {
        let (deleted, failure) = self.of_pods(&|| true).delete(pods).await;
        let deleted_ready = deleted.iter().filter(|pod| is_ready(pod)).count();
        (Done { deleted: deleted.len(), deleted_ready, created: 0 }, failure)
    }

    /// Deletes pods without their finalizer, so that they are not counted.
    async fn delete_uncounted(&self, pods: &[Arc<Pod>]) -> (Done, Option<Failure>) {
        let results: Vec<Result<Arc<Pod>, Failure>> = stream::iter(pods.to_vec())
            .map(async |pod| {
                if is_tracked(&pod) {
                    self.patch(&pod, &untrack(&pod), UNTRACK).await?;
                }
                Ok(pod)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let (untracked, failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let (done, failure) = self.delete(&untracked.into_iter().flatten().collect::<Vec<_>>()).await;
        (done, several(failures.into_iter().filter_map(Result::err).chain(failure).collect()))
    }

    fn of_pods<'r>(&'r self, is_current: &'r (dyn Fn() -> bool + Send + Sync)) -> PodRequests<'r> {
        PodRequests {
            key: self.key,
            pods: self.pods.clone(),
            expectations: self.expectations,
            recorder: self.recorder,
            component: COMPONENT,
            about: reference(self.job),
            is_current,
        }
    }

    /// Removes the finalizer from pods whose uids are in the stored status; returns those that have it no more.
    pub async fn release(&self, pods: &[Arc<Pod>]) -> (HashSet<String>, Option<Failure>) {
        self.memory.releasing(self.key, self.job, pods.iter().map(|pod| uid(pod)));
        let results: Vec<Result<String, Failure>> = stream::iter(pods.to_vec())
            .map(async |pod| match self.patch(&pod, &untrack(&pod), UNTRACK).await {
                Ok(Some(_)) => Ok(uid(&pod).to_owned()),
                Ok(None) => {
                    self.memory.observed(self.key, uid(&pod));
                    Ok(uid(&pod).to_owned())
                }
                Err(failure) => {
                    self.memory.observed(self.key, uid(&pod));
                    Err(failure)
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let (released, failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let failure = several(failures.into_iter().filter_map(Result::err).collect());
        (released.into_iter().flatten().collect(), failure)
    }

    /// Writes the status over that of `stored`, and gives the Job as it is stored then. Fails as a conflict if the Job
    /// changed meanwhile.
    pub async fn write_status(&self, stored: &Job, status: &JobStatus) -> Result<Job, Failure> {
        let job = Job { status: Some(status.clone()), ..stored.clone() };
        let written = self.jobs.replace_status(&self.key.name, &PostParams::default(), &job).await;
        let written = written.map_err(Failure::request("update the status of a Job"))?;
        self.writes.wrote(&written);
        Ok(written)
    }

    /// Writes an event about the Job.
    pub fn record(&self, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.recorder.record(COMPONENT, reference(self.job), kind, reason, message);
    }
}

/// Takes the finalizer from a pod, whatever else changes on it meanwhile.
pub fn untrack(pod: &Pod) -> Patch<Value> {
    Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}}))
}
