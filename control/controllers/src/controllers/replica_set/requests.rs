//! The requests of one pass over a ReplicaSet: many at once, with a slow start so that a refusal is met by few.

use std::sync::Arc;

use fairlead_client::Api;
use futures::{StreamExt, stream};
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};

use super::{
    Key,
    expectations::Expectations,
    family::Family,
    plan::{ReplicaSetPlan, desired},
};
use crate::{
    engine::{EventType, Failure, Informer, Recorder, api_code, is_gone_or_taken, is_namespace_terminating},
    objects::owners::{adoption, release},
};

/// Most requests of one set at a time.
const IN_FLIGHT: usize = 64;
/// Most pods that are created or deleted before the set is looked at again. Source: Kubernetes' `BurstReplicas`.
const BATCH: usize = 500;

/// The requests of one pass, and what they need.
pub struct ReplicaSetRequests<'a> {
    /// Name of the set.
    pub key: &'a Key,
    /// The set as this pass began with it.
    pub set: &'a ReplicaSet,
    /// Pods of the set's namespace.
    pub pods: Api<Pod>,
    /// Of which kind the set is.
    pub family: Family,
    /// Reads the set again.
    pub client: &'a Client,
    /// The shared cache of sets: asked before an adoption, whether the set is still the same.
    pub view: &'a Informer<ReplicaSet>,
    /// Creations and deletions that the cache has not shown yet.
    pub expectations: &'a Expectations,
    /// Writes events about the set.
    pub recorder: &'a Recorder,
}

impl ReplicaSetRequests<'_> {
    /// Adopts and releases. The set is read again before it adopts: a deleted set must not.
    pub async fn claim(&self, plan: &ReplicaSetPlan) -> Result<(), Failure> {
        if !plan.adopt.is_empty() {
            let live = self.family.live(self.client, self.key).await?;
            let same = live.is_some_and(|live| live.uid == self.set.metadata.uid && live.deletion_timestamp.is_none());
            if !same {
                return Ok(());
            }
        }
        let owner = self.family.owner_reference(self.set);
        for pod in &plan.adopt {
            self.patch(pod, adoption(&pod.metadata, &owner), "adopt a pod").await?;
        }
        for pod in &plan.release {
            self.patch(pod, release(&pod.metadata, &owner.uid), "release a pod").await?;
        }
        Ok(())
    }

    async fn patch(&self, pod: &Pod, patch: serde_json::Value, operation: &'static str) -> Result<(), Failure> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.pods.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if api_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(Failure::request(operation)(error)),
        }
    }

    /// Whether the set is still as this pass was decided on. One that was scaled or deleted meanwhile is decided on
    /// anew.
    fn is_current(&self) -> bool {
        self.view.get(self.key).is_some_and(|now| {
            now.metadata.uid == self.set.metadata.uid
                && now.metadata.deletion_timestamp == self.set.metadata.deletion_timestamp
                && now.spec.as_ref().map(|s| s.replicas) == self.set.spec.as_ref().map(|s| s.replicas)
        })
    }

    /// Creates `count` pods: 1, then 2, then 4… at a time, so that a set whose pods are refused asks few times.
    pub async fn create(&self, count: usize) -> Result<(), Failure> {
        let pod = desired(self.set, self.family.owner_reference(self.set));
        self.expectations.expect(self.key, count, []);
        let (mut left, mut batch) = (count, 1);
        while left > 0 && self.is_current() {
            let now = batch.min(left);
            let failures: Vec<Failure> = stream::iter(0..now)
                .map(|_| self.create_one(&pod))
                .buffer_unordered(IN_FLIGHT)
                .filter_map(async |result| result.err())
                .collect()
                .await;
            left -= now;
            if let Some(failure) = several(failures) {
                self.expectations.unexpect_creations(self.key, left);
                return Err(failure);
            }
            batch = (batch * 2).min(BATCH);
        }
        self.expectations.unexpect_creations(self.key, left);
        Ok(())
    }

    async fn create_one(&self, pod: &Pod) -> Result<(), Failure> {
        match self.pods.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                self.record(EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                self.expectations.created(self.key);
                if is_namespace_terminating(&error) {
                    return Ok(());
                }
                self.record(EventType::Warning, "FailedCreate", format!("Error creating: {}", refusal(&error)));
                Err(Failure::request("create a pod")(error))
            }
        }
    }

    /// Deletes all of `pods`, each only if it is still the one that was chosen.
    pub async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        for batch in pods.chunks(BATCH) {
            if !self.is_current() {
                break;
            }
            self.expectations.expect(self.key, 0, batch.iter().filter_map(|pod| pod.metadata.uid.clone()));
            let failures: Vec<Failure> = stream::iter(batch.to_vec())
                .map(|pod| self.delete_one(pod))
                .buffer_unordered(IN_FLIGHT)
                .filter_map(async |result| result.err())
                .collect()
                .await;
            if let Some(failure) = several(failures) {
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn delete_one(&self, pod: Arc<Pod>) -> Result<(), Failure> {
        let (name, uid) = (pod.metadata.name.as_deref().unwrap_or_default(), pod.metadata.uid.clone());
        let preconditions = Preconditions { uid: uid.clone(), resource_version: None };
        match self.pods.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => {
                self.record(EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(self.key, uid.as_deref().unwrap_or_default());
                if is_gone_or_taken(&error) {
                    return Ok(());
                }
                self.record(EventType::Warning, "FailedDelete", format!("Error deleting: {}", refusal(&error)));
                Err(Failure::request("delete a pod")(error))
            }
        }
    }

    fn record(&self, kind: EventType, reason: &'static str, message: String) {
        let about = self.family.object_reference(self.set);
        self.recorder.record(self.family.component(), about, kind, reason, message);
    }
}

/// One failure for all of them; `None` if there are none.
pub fn several(mut failures: Vec<Failure>) -> Option<Failure> {
    match failures.len() {
        0 => None,
        1 => failures.pop(),
        count => Some(Failure::Several(count, Box::new(failures.swap_remove(0)))),
    }
}

/// What the API said, without the client's wrapping.
pub fn refusal(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
