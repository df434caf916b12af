//! The requests of one pass over a ReplicaSet.

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
    engine::{Failure, Informer, Recorder, unless_gone},
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
    /// The shared cache of sets.
    pub view: &'a Informer<ReplicaSet>,
    /// Creations and deletions that the cache has not shown yet.
    pub expectations: &'a Expectations,
    /// Writes events about the set.
    pub recorder: &'a Recorder,
}

impl ReplicaSetRequests<'_> {
    /// Adopts and releases. The set is read again before it adopts: a deleted set must not.
    async fn claim(&self, plan: &ReplicaSetPlan) -> Result<(), Failure> {
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
        let answer = self.pods.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        unless_gone(answer, operation).map(drop)
    }

    /// Creates pods of the set's template, and deletes others.
    pub async fn carry_out(&self, plan: &ReplicaSetPlan) -> Result<(), Failure> {
        self.claim(plan).await?;
        let is_current = || self.view.is_current(self.set);
        let requests = PodRequests {
            key: self.key,
            pods: self.pods.clone(),
            expectations: self.expectations,
            recorder: self.recorder,
            component: self.family.component(),
            about: self.family.object_reference(self.set),
            is_current: &is_current,
        };
        let pod = desired(self.set, self.family.owner_reference(self.set));
        let (_, failure) = requests.create(plan.create, |_| pod.clone()).await;
        failure.map_or(Ok(()), Err)?;
        let (_, failure) = requests.delete(&plan.delete).await;
        failure.map_or(Ok(()), Err)
    }
}
