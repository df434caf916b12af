//! Controller references: who owns an object, and the change that makes or ends it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::{Value, json};

/// The one owner that manages the object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether `uid` controls the object.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// A reference that makes `owner` the controller; deleting it in the foreground waits for the object.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Merge patch that adds `owner` to an object nobody controls. Fails as a conflict if the object changed meanwhile.
pub fn adoption(meta: &ObjectMeta, owner: &OwnerReference) -> Value {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.push(owner.clone());
    owners_patch(meta, &owners)
}

/// Merge patch that takes `uid` from the object's owners.
pub fn release(meta: &ObjectMeta, uid: &str) -> Value {
    let owners: Vec<OwnerReference> =
        meta.owner_references.iter().flatten().filter(|owner| owner.uid != uid).cloned().collect();
    owners_patch(meta, &owners)
}

fn owners_patch(meta: &ObjectMeta, owners: &[OwnerReference]) -> Value {
    json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}})
}

/// What an owner with a selector does about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's, and selected.
    Keep,
    /// It has no controller, and is selected: it becomes the owner's.
    Adopt,
    /// It is the owner's, and no longer selected.
    Release,
    /// It is another's, or not selected.
    Ignore,
}

/// Decides the claim of the owner `uid` on an object, as Kubernetes' `ControllerRefManager` does.
pub fn claim(meta: &ObjectMeta, uid: &str, selected: bool, owner_is_terminating: bool) -> Claim {
    match controller_of(meta) {
        Some(owner) if owner.uid != uid => Claim::Ignore,
        Some(_) if selected => Claim::Keep,
        Some(_) if owner_is_terminating => Claim::Ignore,
        Some(_) => Claim::Release,
        None if !selected || owner_is_terminating || meta.deletion_timestamp.is_some() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(uid: Option<&str>) -> ObjectMeta {
        let owner = uid.map(|uid| OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() });
        ObjectMeta { owner_references: owner.map(|o| vec![o]), ..Default::default() }
    }

    #[test]
    fn claims_follow_the_selector_and_never_take_from_another_owner() {
        assert_eq!(claim(&owned(Some("me")), "me", true, false), Claim::Keep);
        assert_eq!(claim(&owned(Some("me")), "me", false, false), Claim::Release);
        assert_eq!(claim(&owned(Some("other")), "me", true, false), Claim::Ignore);
        assert_eq!(claim(&owned(None), "me", true, false), Claim::Adopt);
        assert_eq!(claim(&owned(None), "me", false, false), Claim::Ignore);
        assert_eq!(claim(&owned(None), "me", true, true), Claim::Ignore);
        assert_eq!(claim(&owned(Some("me")), "me", false, true), Claim::Ignore);
    }

    #[test]
    fn releasing_keeps_the_other_owners() {
        let mut meta = owned(Some("me"));
        meta.owner_references
            .get_or_insert_default()
            .push(OwnerReference { uid: "other".into(), ..Default::default() });
        assert_eq!(release(&meta, "me")["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
    }
}
