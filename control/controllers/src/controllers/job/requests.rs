//! The requests of one pass over a Job.

use std::{collections::HashSet, sync::Arc};

use fairlead_client::Api;
use futures::{StreamExt, stream};
use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::Pod,
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::{
    COMPONENT, Key,
    memory::Memory,
    plan::{Action, JobPlan},
    pods::{IndexFailures, TRACKING, is_tracked, uid},
    template::{Place, desired, placed},
    terms::Terms,
    tracking::Done,
};
use crate::{
    controllers::{
        expectations::Expectations,
        own_writes::OwnWrites,
        pod_requests::{refusal, several},
    },
    engine::{EventType, Failure, Informer, Recorder, api_code, is_namespace_terminating, reference},
    objects::{
        owners::{adoption, controller_reference, release},
        pod_state::is_ready,
    },
};

/// Most requests of one Job at a time.
const IN_FLIGHT: usize = 64;

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
        match self.pods.patch(name, &PatchParams::default(), patch).await {
            Ok(patched) => Ok(Some(patched)),
            Err(error) if api_code(&error) == Some(404) => Ok(None),
            Err(error) => Err(Failure::request(operation)(error)),
        }
    }

    /// Carries out the plan's action; with a failure, what was done before it counts all the same.
    pub async fn carry_out(&self, plan: &JobPlan) -> (Done, Option<Failure>) {
        match &plan.action {
            Action::Wait => (Done::default(), None),
            Action::End => self.delete(&plan.active, false).await,
            Action::Delete(pods) => self.delete(pods, true).await,
            Action::Create(count) => self.create(vec![None; *count]).await,
            Action::CreateIndexes(indexes) => {
                let place = |index: &usize| {
                    let replaced = plan.replaced.get(index);
                    let failures = replaced.map(|pod| IndexFailures::after(pod, &self.terms)).unwrap_or_default();
                    Some(Place { index: *index, failures })
                };
                self.create(indexes.iter().map(place).collect()).await
            }
        }
    }

    /// Whether the Job is still as this pass was decided on.
    fn is_current(&self) -> bool {
        self.view.get(self.key).is_some_and(|now| {
            now.metadata.uid == self.job.metadata.uid
                && now.metadata.deletion_timestamp == self.job.metadata.deletion_timestamp
                && now.metadata.generation == self.job.metadata.generation
        })
    }

    /// Creates a pod for each place: 1, then 2, then 4… at a time, so that a Job whose pods are refused asks few times.
    async fn create(&self, places: Vec<Option<Place>>) -> (Done, Option<Failure>) {
        let pod = desired(self.job, &self.terms, controller_reference(self.job));
        self.expectations.expect(self.key, places.len(), []);
        let (mut left, mut batch, mut done, mut failure) = (places.as_slice(), 1, Done::default(), None);
        while !left.is_empty() && failure.is_none() && self.is_current() {
            let (now, later) = left.split_at(batch.min(left.len()));
            let results: Vec<Result<bool, Failure>> = stream::iter(now.to_vec())
                .map(|place| match place {
                    Some(place) => self.create_one(placed(pod.clone(), self.job, &self.terms, place)),
                    None => self.create_one(pod.clone()),
                })
                .buffer_unordered(IN_FLIGHT)
                .collect()
                .await;
            done.created += results.iter().filter(|result| matches!(result, Ok(true))).count();
            failure = several(results.into_iter().filter_map(Result::err).collect());
            left = later;
            batch *= 2;
        }
        self.expectations.unexpect_creations(self.key, left.len());
        (done, failure)
    }

    async fn create_one(&self, pod: Pod) -> Result<bool, Failure> {
        match self.pods.create(&PostParams::default(), &pod).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                self.record(EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(true)
            }
            Err(error) => {
                self.expectations.created(self.key);
                if is_namespace_terminating(&error) {
                    return Ok(false);
                }
                self.record(EventType::Warning, "FailedCreate", format!("Error creating: {}", refusal(&error)));
                Err(Failure::request("create a pod")(error))
            }
        }
    }

    /// Deletes pods; with `uncounted`, without their finalizer.
    async fn delete(&self, pods: &[Arc<Pod>], uncounted: bool) -> (Done, Option<Failure>) {
        self.expectations.expect(self.key, 0, pods.iter().map(|pod| uid(pod).to_owned()));
        let results: Vec<(Arc<Pod>, Result<(), Failure>)> = stream::iter(pods.to_vec())
            .map(async |pod| {
                let result = self.delete_one(&pod, uncounted).await;
                (pod, result)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let deleted = results.iter().filter(|(_, result)| result.is_ok());
        let ready = deleted.clone().filter(|(pod, _)| is_ready(pod)).count();
        let done = Done { deleted: deleted.count(), deleted_ready: ready, ..Done::default() };
        (done, several(results.into_iter().filter_map(|(_, result)| result.err()).collect()))
    }

    async fn delete_one(&self, pod: &Pod, uncounted: bool) -> Result<(), Failure> {
        let result = self.begin_deletion(pod, uncounted).await;
        let Err(error) = result else { return Ok(()) };
        self.expectations.deleted(self.key, uid(pod));
        if api_code(&error) == Some(404) {
            return Ok(());
        }
        self.record(EventType::Warning, "FailedDelete", format!("Error deleting: {}", refusal(&error)));
        Err(Failure::request("delete a pod")(error))
    }

    async fn begin_deletion(&self, pod: &Pod, uncounted: bool) -> Result<(), kube::Error> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if uncounted && is_tracked(pod) {
            self.pods.patch(name, &PatchParams::default(), &untrack(pod)).await?;
        }
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        self.pods.delete(name, &DeleteParams::default().preconditions(preconditions)).await?;
        self.record(EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
        Ok(())
    }

    /// Removes the finalizer from pods whose uids are in the stored status; returns those that have it no more.
    pub async fn release(&self, pods: &[Arc<Pod>]) -> (HashSet<String>, Option<Failure>) {
        self.memory.releasing(self.key, self.job, pods.iter().map(|pod| uid(pod)));
        let results: Vec<Result<String, Failure>> = stream::iter(pods.to_vec())
            .map(async |pod| match self.patch(&pod, &untrack(&pod), "remove a pod's finalizer").await {
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
