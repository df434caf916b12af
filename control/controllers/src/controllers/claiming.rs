//! Adopts and releases the objects of one owner: pods and ControllerRevisions that its selector matches.

use std::sync::Arc;

use fairlead_client::{Api, Object};
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use super::pod_owners::SelectingOwner;
use crate::{
    engine::{Failure, Informer, unless_gone},
    objects::{
        candidates::orphans_for,
        informer_index::owned_by,
        owners::{Claim, adoption, claim, controller_reference, release},
    },
};

/// Claims for one owner. Its existence is asked for once, before the first adoption: a deleted owner must not adopt.
pub struct Claimer<'a, O> {
    owner: &'a O,
    owners: Api<O>,
    may_adopt: Option<bool>,
}

impl<'a, O: SelectingOwner> Claimer<'a, O> {
    /// For `owner`, which is one of `owners`.
    pub fn new(owner: &'a O, owners: Api<O>) -> Self {
        Self { owner, owners, may_adopt: None }
    }

    /// The owner's objects that are `selected`, those that it adopts now included; others lose it as their owner.
    pub async fn claim<D: Object>(
        &mut self,
        view: &Informer<D>,
        objects: &Api<D>,
        selected: impl Fn(&D) -> bool + Send,
    ) -> Result<Vec<Arc<D>>, Failure> {
        let owner = self.owner.meta();
        let uid = owner.uid.as_deref().unwrap_or_default();
        let mut candidates = view.indexed(&owned_by(uid));
        let namespace = owner.namespace.as_deref().unwrap_or_default();
        candidates.extend(orphans_for(view, namespace, self.owner.label_selector()));
        let terminating = owner.deletion_timestamp.is_some();
        let mut own = Vec::with_capacity(candidates.len());
        for object in candidates {
            match claim(object.meta(), uid, selected(&object), terminating) {
                Claim::Keep => own.push(object),
                Claim::Adopt => {
                    if self.may_adopt().await?
                        && patch(objects, &*object, adoption(object.meta(), &controller_reference(self.owner))).await?
                    {
                        own.push(object);
                    }
                }
                Claim::Release => {
                    patch(objects, &*object, release(object.meta(), uid)).await?;
                }
                Claim::Ignore => {}
            }
        }
        Ok(own)
    }

    async fn may_adopt(&mut self) -> Result<bool, Failure> {
        if let Some(known) = self.may_adopt {
            return Ok(known);
        }
        let meta = self.owner.meta();
        let live = self.owners.get_opt(meta.name.as_deref().unwrap_or_default()).await;
        let live = live.map_err(Failure::request("read the owner again"))?;
        let same = live.is_some_and(|live| live.meta().uid == meta.uid && live.meta().deletion_timestamp.is_none());
        self.may_adopt = Some(same);
        Ok(same)
    }
}

/// Whether the object was there to be patched.
async fn patch<D: Object>(objects: &Api<D>, object: &D, patch: Value) -> Result<bool, Failure> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    let answer = objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    unless_gone(answer, "adopt or release an object").map(|patched| patched.is_some())
}
