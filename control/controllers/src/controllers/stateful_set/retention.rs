//! Who owns the claims of a StatefulSet's pods, so that the garbage collector deletes them when its policy
//! says so. Pure.
//!
//! | whenScaled | whenDeleted | owner of the claim |
//! |---|---|---|
//! | Retain | Retain | none |
//! | Retain | Delete | the set |
//! | Delete | Retain | the pod, while it is scaled away |
//! | Delete | Delete | the set; the pod instead, while it is scaled away |
//!
//! Source: KEP-1847.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::Resource;

use super::identity::{ordinal, ordinals};
use crate::objects::owners::controller_reference;

/// What becomes of claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    /// They go with the set.
    delete_with_set: bool,
    /// They go with pods that are scaled away.
    delete_with_pod: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    Policy {
        delete_with_set: deletes(policy.and_then(|p| p.when_deleted.as_ref())),
        delete_with_pod: deletes(policy.and_then(|p| p.when_scaled.as_ref())),
    }
}

/// The owners that the claim should have, where they differ from those it has.
///
/// A claim that names another object of the set's or pod's name is left alone: that one was deleted, and the garbage
/// collector decides.
pub fn owners_to_write(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> Option<Vec<OwnerReference>> {
    let owners = claim.metadata.owner_references.clone().unwrap_or_default();
    if is_stale(&owners, set) || is_stale(&owners, pod) {
        return None;
    }
    let mut wanted: Vec<OwnerReference> =
        owners.iter().filter(|owner| !names(owner, set) && !names(owner, pod)).cloned().collect();
    if !has_conflict(claim, set, pod) {
        wanted.extend(owner(set, pod));
    }
    let key = |owner: &OwnerReference| (owner.uid.clone(), owner.controller == Some(true));
    let sorted = |owners: &[OwnerReference]| {
        let mut keys: Vec<_> = owners.iter().map(key).collect();
        keys.sort_unstable();
        keys
    };
    (sorted(&owners) != sorted(&wanted)).then_some(wanted)
}

/// The owner of a claim that nobody else controls.
fn owner(set: &StatefulSet, pod: &Pod) -> Option<OwnerReference> {
    let Policy { delete_with_set, delete_with_pod } = policy(set);
    let scaled_away = ordinal(pod).is_none_or(|ordinal| !ordinals(set).contains(&ordinal));
    match (delete_with_set, delete_with_pod, scaled_away) {
        (_, true, true) => Some(controller_reference(pod)),
        (true, _, _) => Some(controller_reference(set)),
        (false, _, _) => None,
    }
}

/// The owner of a claim that is made for a wanted pod.
pub fn owner_of_new(set: &StatefulSet) -> Option<OwnerReference> {
    policy(set).delete_with_set.then(|| controller_reference(set))
}

/// Whether something else controls the claim although the policy would have the set or pod do so.
pub fn has_conflict(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    let Policy { delete_with_set, delete_with_pod } = policy(set);
    let mut others =
        claim.metadata.owner_references.iter().flatten().filter(|owner| !names(owner, set) && !names(owner, pod));
    (delete_with_set || delete_with_pod) && others.any(|owner| owner.controller == Some(true))
}

/// Whether the claim goes with a former pod of this name: the new one must wait until it is gone.
pub fn goes_with_former_pod(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &str) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    policy(set).delete_with_pod
        && owners.into_iter().any(|owner| owner.api_version == "v1" && owner.kind == "Pod" && owner.name == pod)
}

fn names<K: Resource<DynamicType = ()>>(owner: &OwnerReference, object: &K) -> bool {
    owner.api_version == K::api_version(&())
        && owner.kind == K::kind(&())
        && Some(&owner.name) == object.meta().name.as_ref()
}

fn is_stale<K: Resource<DynamicType = ()>>(owners: &[OwnerReference], object: &K) -> bool {
    let named = owners.iter().find(|owner| names(owner, object));
    named.is_some_and(|owner| Some(&owner.uid) != object.meta().uid.as_ref())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controllers::stateful_set::fixtures::{healthy, stateful_set};

    fn set(scaled: &str, deleted: &str) -> StatefulSet {
        let policy = json!({"whenScaled": scaled, "whenDeleted": deleted});
        stateful_set(2, json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}}))
    }

    fn claim(owners: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data-web-0", "ownerReferences": owners}}))
            .expect("a valid claim")
    }

    fn reference(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        let version = if kind == "StatefulSet" { "apps/v1" } else { "v1" };
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controller})
    }

    fn kinds(owners: Option<Vec<OwnerReference>>) -> Option<Vec<String>> {
        owners.map(|owners| owners.into_iter().map(|owner| owner.kind).collect())
    }

    #[test]
    fn the_policy_names_the_owner() {
        let cases = [
            ("Retain", "Retain", 0, vec![]),
            ("Retain", "Retain", 5, vec![]),
            ("Retain", "Delete", 0, vec!["StatefulSet"]),
            ("Retain", "Delete", 5, vec!["StatefulSet"]),
            ("Delete", "Retain", 0, vec![]),
            ("Delete", "Retain", 5, vec!["Pod"]),
            ("Delete", "Delete", 0, vec!["StatefulSet"]),
            ("Delete", "Delete", 5, vec!["Pod"]),
        ];
        for (scaled, deleted, ordinal, expected) in cases {
            let set = set(scaled, deleted);
            let pod = healthy(&set, "new", ordinal);
            let other = reference("ConfigMap", "other", "other", false);
            // From none, and from the owner of another policy.
            for before in [json!([other]), json!([other, reference("StatefulSet", "web", "set", true)])] {
                let claim = claim(before);
                let wanted: Vec<String> =
                    ["ConfigMap"].iter().chain(&expected).map(|kind| (*kind).to_owned()).collect();
                let had: Vec<String> =
                    claim.metadata.owner_references.iter().flatten().map(|owner| owner.kind.clone()).collect();
                let expected = (had != wanted).then_some(wanted);
                assert_eq!(kinds(owners_to_write(&claim, &set, &pod)), expected, "{scaled} {deleted} {ordinal}");
            }
        }
    }

    #[test]
    fn claims_of_others_and_of_former_objects_are_left_alone() {
        let set = set("Retain", "Delete");
        let pod = healthy(&set, "new", 0);
        let write = |owners: Value| kinds(owners_to_write(&claim(owners), &set, &pod));
        assert_eq!(write(json!([reference("StatefulSet", "web", "former", true)])), None);
        assert_eq!(write(json!([reference("Pod", "web-0", "former", true)])), None);
        let foreign = reference("Operator", "o", "o", true);
        assert_eq!(write(json!([foreign.clone()])), None);
        let both = json!([foreign, reference("StatefulSet", "web", "set", true)]);
        assert_eq!(write(both.clone()), Some(vec!["Operator".to_owned()]));
        assert!(has_conflict(&claim(both.clone()), &set, &pod));
        assert!(!has_conflict(&claim(both), &super::tests::set("Retain", "Retain"), &pod));
        // An owner that is not the controller becomes it.
        let owner = json!([reference("StatefulSet", "web", "set", false)]);
        assert_eq!(write(owner), Some(vec!["StatefulSet".to_owned()]));
    }

    #[test]
    fn a_claim_that_goes_with_a_former_pod_keeps_the_next_one_waiting() {
        let owned = claim(json!([reference("Pod", "web-0", "former", true)]));
        assert!(goes_with_former_pod(&owned, &set("Delete", "Retain"), "web-0"));
        assert!(!goes_with_former_pod(&owned, &set("Delete", "Retain"), "web-1"));
        assert!(!goes_with_former_pod(&owned, &set("Retain", "Delete"), "web-0"));
    }
}
