//! The requests that keep a revision history.

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::{Current, HistoryOwner, HistoryPlan, NewRevision, template_of};
use crate::{
    engine::{Failure, api_code, is_gone_or_taken},
    objects::owners::{controller_reference, is_controlled_by},
};

/// Names that are tried for one revision in one pass: each but the last was taken.
const NAMES: i32 = 16;

/// The history of one owner.
pub struct History<'a, O> {
    /// DaemonSet or StatefulSet.
    pub owner: &'a O,
    /// Revisions of its namespace.
    pub revisions: Api<ControllerRevision>,
}

/// A revision that was made, or was there already.
pub struct Created {
    /// The revision.
    pub revision: Arc<ControllerRevision>,
    /// The owner's collision count after that.
    pub collisions: i32,
}

impl<O: HistoryOwner> History<'_, O> {
    /// The revision of the owner's present `template`, made or renumbered where `plan` says that the history lacks it.
    pub async fn current(&self, plan: &HistoryPlan, template: &PodTemplateSpec) -> Result<Created, Failure> {
        let collisions = self.owner.collision_count();
        match &plan.current {
            Current::Newest(revision) => Ok(Created { revision: revision.clone(), collisions }),
            Current::Renumber(revision, number) => {
                Ok(Created { revision: self.renumber(revision, *number).await?, collisions })
            }
            Current::Missing(number) => {
                let annotations = self.owner.meta().annotations.as_ref();
                let label = O::REVISION_LABEL;
                self.create(&NewRevision { template, annotations, label, number: *number }, collisions).await
            }
        }
    }

    /// Makes a revision. A name that another revision has counts as a collision, and the next is tried.
    async fn create(&self, new: &NewRevision<'_>, mut collisions: i32) -> Result<Created, Failure> {
        let meta = self.owner.meta();
        let (owner, uid) = (meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default());
        for _ in 0..NAMES {
            let mut revision = new.named(owner, collisions);
            revision.metadata.owner_references = Some(vec![controller_reference(self.owner)]);
            let name = revision.metadata.name.clone().unwrap_or_default();
            match self.revisions.create(&PostParams::default(), &revision).await {
                Ok(revision) => return Ok(Created { revision: Arc::new(revision), collisions }),
                Err(error) if api_code(&error) == Some(409) => {}
                Err(error) => return Err(Failure::request("create a ControllerRevision")(error)),
            }
            let namesake = self.revisions.get_opt(&name).await;
            let namesake = namesake.map_err(Failure::request("read a ControllerRevision"))?;
            // Our own, which the view does not show yet.
            let own = namesake
                .filter(|found| is_controlled_by(&found.metadata, uid))
                .filter(|found| template_of(found).as_ref() == Some(new.template));
            if let Some(revision) = own {
                return Ok(Created { revision: Arc::new(revision), collisions });
            }
            collisions = collisions.saturating_add(1);
        }
        Err(Failure::Malformed { what: "revision history", message: format!("{NAMES} names of {owner} are taken") })
    }

    /// Gives the revision another number.
    async fn renumber(&self, revision: &ControllerRevision, number: i64) -> Result<Arc<ControllerRevision>, Failure> {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({"metadata": {"uid": revision.metadata.uid,
            "resourceVersion": revision.metadata.resource_version}, "revision": number});
        let patched = self.revisions.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(Arc::new).map_err(Failure::request("renumber a ControllerRevision"))
    }

    /// Deletes revisions, each only if it is still the one that was chosen.
    pub async fn delete(&self, revisions: &[Arc<ControllerRevision>]) -> Result<(), Failure> {
        for revision in revisions {
            let preconditions = Preconditions { uid: revision.metadata.uid.clone(), resource_version: None };
            let name = revision.metadata.name.as_deref().unwrap_or_default();
            match self.revisions.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
                Ok(_) => {}
                Err(error) if is_gone_or_taken(&error) => {}
                Err(error) => return Err(Failure::request("delete a ControllerRevision")(error)),
            }
        }
        Ok(())
    }
}
