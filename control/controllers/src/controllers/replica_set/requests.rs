//! The requests of one pass over a ReplicaSet.

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{
    Client,
    api::{Patch, PatchParams},
};

use super::{
    super::{expectations::Expectations, pod_requests::PodRequests},
    Key,
    family::Family,
    plan::{ReplicaSetPlan, desired},
};
use crate::{
    engine::{Failure, Informer, Recorder, api_code},
    objects::owners::{adoption, release},
};

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

    /// Creates `count` pods of the set's template.
    pub async fn create(&self, count: usize) -> Result<(), Failure> {
        let pod = desired(self.set, self.family.owner_reference(self.set));
        self.of_pods(&|| self.is_current()).create(&vec![&pod; count]).await
    }

    /// Deletes all of `pods`, each only if it is still the one that was chosen.
    pub async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        self.of_pods(&|| self.is_current()).delete(pods).await
    }

    fn of_pods<'r>(&'r self, is_current: &'r (dyn Fn() -> bool + Send + Sync)) -> PodRequests<'r> {
        PodRequests {
            key: self.key,
            pods: self.pods.clone(),
            expectations: self.expectations,
            recorder: self.recorder,
            component: self.family.component(),
            about: self.family.object_reference(self.set),
            is_current,
        }
    }
}
