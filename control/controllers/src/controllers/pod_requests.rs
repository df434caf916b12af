//! Creates and deletes the pods of one set: many at once, with a slow start so that a refusal is met by few.

use std::sync::Arc;

use fairlead_client::Api;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::expectations::Expectations;
use crate::engine::{EventType, Failure, Key, Recorder, is_gone_or_taken, is_namespace_terminating};

/// Most requests of one set at a time.
const IN_FLIGHT: usize = 64;
/// Most pods that are created or deleted before the set is looked at again. Source: Kubernetes' `BurstReplicas`.
const BATCH: usize = 500;

/// The requests of one pass over a set, and what they need.
pub struct PodRequests<'a> {
    /// Name of the set.
    pub key: &'a Key,
    /// Pods of the set's namespace.
    pub pods: Api<Pod>,
    /// Creations and deletions that the cache has not shown yet.
    pub expectations: &'a Expectations,
    /// Writes events about the set.
    pub recorder: &'a Recorder,
    /// Name of the controller.
    pub component: &'static str,
    /// What the events are about: the set.
    pub about: ObjectReference,
    /// Whether the set is still as this pass was decided on. One that was changed or deleted meanwhile is decided on
    /// anew.
    pub is_current: &'a (dyn Fn() -> bool + Send + Sync),
}

impl PodRequests<'_> {
    /// Creates `pods`: 1, then 2, then 4… at a time, so that a set whose pods are refused asks few times.
    pub async fn create(&self, pods: &[&Pod]) -> Result<(), Failure> {
        let count = pods.len();
        self.expectations.expect(self.key, count, []);
        let (mut left, mut batch) = (count, 1);
        while left > 0 && (self.is_current)() {
            let now = batch.min(left);
            let first = count - left;
            let failures: Vec<Failure> = stream::iter(first..first + now)
                .map(|at| self.create_one(pods[at]))
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
            if !(self.is_current)() {
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
        self.recorder.record(self.component, self.about.clone(), kind, reason, message);
    }
}

/// One failure for all of `failures`.
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
