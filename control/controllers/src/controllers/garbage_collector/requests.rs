//! The collector's requests. Each carries the version it was decided on: an object that changed meanwhile is decided on
//! again.

use fairlead_kinds::kinds::api_version::group_and_version;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::DynamicObject,
};
use serde_json::{Value, json};

use super::{
    Collector,
    graph::{OwnedObject, OwnerState, Policy},
};
use crate::engine::{Failure, api_code};

impl Collector {
    /// The state of an owner that no watch has shown. One of an unknown kind is taken to be there.
    pub(super) async fn ask(&self, object: &OwnedObject, owner: &OwnerReference) -> Result<OwnerState, Failure> {
        let (group, _) = group_and_version(&owner.api_version);
        let found = self.kinds.borrow().as_ref().and_then(|found| {
            found.kinds.iter().find(|kind| kind.resource.kind == owner.kind && kind.resource.group == group).cloned()
        });
        let Some(kind) = found else { return Ok(OwnerState::Solid) };
        // A cluster-wide object can't be owned by a namespaced one: there is no namespace to look in.
        if kind.namespaced && object.key.namespace.is_empty() {
            return Ok(OwnerState::Solid);
        }
        let api = kind.api(&self.client, &object.key.namespace);
        let live = api.get_metadata_opt(&owner.name).await.map_err(Failure::request("look for an owner"))?;
        Ok(match live {
            Some(live) if live.metadata.uid.as_deref() == Some(&owner.uid) => OwnerState::Solid,
            _ => OwnerState::Absent,
        })
    }

    /// The API of an object's kind; `None` once it is no longer served, and with it the object.
    fn api(&self, object: &OwnedObject) -> Option<Api<DynamicObject>> {
        Some(self.served(&object.kind)?.api(&self.client, &object.key.namespace))
    }

    /// Deletes the object, if it is still the one that was decided on.
    pub(super) async fn delete(&self, object: &OwnedObject, policy: Policy) -> Result<(), Failure> {
        let policy = match policy {
            Policy::Background => PropagationPolicy::Background,
            Policy::Foreground => PropagationPolicy::Foreground,
            Policy::Orphan => PropagationPolicy::Orphan,
        };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(object.uid.clone()),
                resource_version: object.resource_version.clone(),
            }),
            ..Default::default()
        };
        let Some(api) = self.api(object) else { return Ok(()) };
        match api.delete(&object.key.name, &params).await {
            Ok(_) => Ok(()),
            Err(error) if api_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(Failure::request("delete what nobody owns")(error)),
        }
    }

    /// Replaces the object's owner references.
    pub(super) async fn set_owners(&self, object: &OwnedObject, owners: &[OwnerReference]) -> Result<(), Failure> {
        self.patch(object, "ownerReferences", json!(owners)).await
    }

    /// Removes one finalizer from the object.
    pub(super) async fn drop_finalizer(&self, object: &OwnedObject, finalizer: &str) -> Result<(), Failure> {
        let left: Vec<&String> = object.finalizers.iter().filter(|other| *other != finalizer).collect();
        self.patch(object, "finalizers", json!(left)).await
    }

    async fn patch(&self, object: &OwnedObject, field: &str, value: Value) -> Result<(), Failure> {
        let mut patch = json!({"metadata": {"uid": object.uid, "resourceVersion": object.resource_version}});
        patch["metadata"][field] = value;
        let Some(api) = self.api(object) else { return Ok(()) };
        match api.patch_metadata(&object.key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if api_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(Failure::request("change an object's owners or finalizers")(error)),
        }
    }
}
