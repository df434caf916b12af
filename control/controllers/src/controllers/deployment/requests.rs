//! The requests of one pass over a Deployment.

use std::{collections::BTreeMap, sync::Arc};

use fairlead_client::Api;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::{
    COMPONENT,
    limits::{Limits, asked},
    plan::DeploymentPlan,
    revision::{REVISION, size_annotations, template},
    status::NewSet,
    template::runs,
};
use crate::{
    engine::{EventType, Failure, Recorder, api_code, is_gone_or_taken, reference, unless_gone},
    objects::owners::is_controlled_by,
};

/// The requests of one pass, and what they need.
pub struct DeploymentRequests<'a> {
    /// The Deployment as this pass began with it.
    pub deployment: &'a Deployment,
    /// Deployments of its namespace.
    pub deployments: Api<Deployment>,
    /// ReplicaSets of its namespace.
    pub sets: Api<ReplicaSet>,
    /// Writes events about the Deployment.
    pub recorder: &'a Recorder,
}

/// All changes of one set, sent as one patch.
#[derive(Default)]
struct SetPatch {
    replicas: Option<i32>,
    annotations: BTreeMap<String, String>,
    min_ready_seconds: Option<i32>,
}

impl DeploymentRequests<'_> {
    /// Makes the changes of `plan`, and returns what became of the new set.
    pub async fn carry_out(&self, plan: &DeploymentPlan) -> Result<NewSet, Failure> {
        for (set, change) in self.changes(plan) {
            self.change(set, change).await?;
        }
        for set in &plan.delete {
            self.delete(set).await?;
        }
        match &plan.create {
            Some(set) => self.create(set).await,
            None if plan.new.is_some() => Ok(NewSet::Found),
            None => Ok(NewSet::Standing),
        }
    }

    fn changes<'p>(&self, plan: &'p DeploymentPlan) -> Vec<(&'p Arc<ReplicaSet>, SetPatch)> {
        let mut changes: BTreeMap<&str, (&Arc<ReplicaSet>, SetPatch)> = BTreeMap::new();
        let sizes = size_annotations(Limits::of(self.deployment));
        let resized = plan.resize.iter().map(|resize| (&resize.set, Some(resize.replicas)));
        for (set, replicas) in resized.chain(plan.annotate_size.iter().map(|set| (set, None))) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let (_, change) = changes.entry(name).or_insert_with(|| (set, SetPatch::default()));
            change.replicas = change.replicas.or(replicas);
            change.annotations.extend(sizes.clone());
        }
        if let Some(refresh) = &plan.refresh {
            let name = refresh.set.metadata.name.as_deref().unwrap_or_default();
            let (_, change) = changes.entry(name).or_insert_with(|| (&refresh.set, SetPatch::default()));
            change.annotations.extend(refresh.annotations.clone());
            change.min_ready_seconds = refresh.min_ready_seconds;
        }
        changes.into_values().collect()
    }

    async fn change(&self, set: &ReplicaSet, change: SetPatch) -> Result<(), Failure> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let mut patch = json!({"metadata": {"resourceVersion": set.metadata.resource_version,
            "annotations": change.annotations}});
        if let Some(replicas) = change.replicas {
            patch["spec"]["replicas"] = json!(replicas);
        }
        if let Some(seconds) = change.min_ready_seconds {
            patch["spec"]["minReadySeconds"] = json!(seconds);
        }
        self.patch_set(name, patch, "change a ReplicaSet").await?;
        if let Some(replicas) = change.replicas {
            self.record_scaled(name, asked(set), replicas);
        }
        Ok(())
    }

    fn record_scaled(&self, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder.record(COMPONENT, reference(self.deployment), EventType::Normal, "ScalingReplicaSet", message);
    }

    async fn patch_set(&self, name: &str, patch: Value, operation: &'static str) -> Result<(), Failure> {
        let answer = self.sets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        unless_gone(answer, operation).map(drop)
    }

    async fn delete(&self, set: &ReplicaSet) -> Result<(), Failure> {
        let preconditions = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        match self.sets.delete(name, &DeleteParams::background().preconditions(preconditions)).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone_or_taken(&error) => Ok(()),
            Err(error) => Err(Failure::request("delete an old ReplicaSet")(error)),
        }
    }

    async fn create(&self, set: &ReplicaSet) -> Result<NewSet, Failure> {
        let name = set.metadata.name.clone().unwrap_or_default();
        match self.sets.create(&PostParams::default(), set).await {
            Ok(_) => {
                if asked(set) > 0 {
                    self.record_scaled(&name, 0, asked(set));
                }
                Ok(NewSet::Created { name })
            }
            Err(error) if api_code(&error) == Some(409) => self.resolve_name_collision(&name, error).await,
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                let message = format!("Failed to create new replica set \"{name}\": {}", status.message);
                self.recorder.record(
                    COMPONENT,
                    reference(self.deployment),
                    EventType::Warning,
                    "ReplicaSetCreateError",
                    message.clone(),
                );
                Ok(NewSet::Refused { message })
            }
            Err(error) => Err(Failure::request("create a ReplicaSet")(error)),
        }
    }

    /// The name is taken: by our own set, which the view does not show yet, or by another, and then the next hash
    /// differs.
    async fn resolve_name_collision(&self, name: &str, error: kube::Error) -> Result<NewSet, Failure> {
        let uid = self.deployment.metadata.uid.as_deref().unwrap_or_default();
        let namesake = self.sets.get_opt(name).await.map_err(Failure::request("read a ReplicaSet"))?;
        if namesake.is_some_and(|s| is_controlled_by(&s.metadata, uid) && runs(&s, &template(self.deployment))) {
            return Ok(NewSet::Standing);
        }
        let mut status = self.deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        self.report(None, status).await?;
        Err(Failure::request("name a ReplicaSet")(error))
    }

    /// Writes the revision annotation and the status, where they differ from the stored ones. Both through the status:
    /// an annotation written otherwise counts as a generation.
    pub async fn report(&self, revision: Option<i64>, status: DeploymentStatus) -> Result<(), Failure> {
        let name = self.deployment.metadata.name.as_deref().unwrap_or_default();
        let mut current = self.deployment.clone();
        if let Some(revision) = revision {
            let patch = json!({"metadata": {"uid": current.metadata.uid,
                "annotations": {REVISION: revision.to_string()}}});
            let answer = self.deployments.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
            let Some(patched) = unless_gone(answer, "write a Deployment's revision")? else { return Ok(()) };
            current = patched;
            // The status below was computed for the spec of the view.
            if current.metadata.generation != self.deployment.metadata.generation {
                return Ok(());
            }
        }
        if current.status.as_ref() == Some(&status) {
            return Ok(());
        }
        current.status = Some(status);
        let answer = self.deployments.replace_status(name, &PostParams::default(), &current).await;
        unless_gone(answer, "update the status of a Deployment").map(drop)
    }
}
