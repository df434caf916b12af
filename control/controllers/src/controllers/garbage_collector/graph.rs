//! Who owns whom, as the watches show it, and what becomes of an object whose owners change. Pure.
//!
//! An owner is cluster-wide or in the namespace of its dependent. A reference across namespaces owns nothing, holds
//! nothing up, and counts as absent; so nobody can delay the deletion of an object in a namespace that is not theirs.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::engine::Key;

/// Finalizer of objects that are deleted after their dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of objects whose dependents are to be released.
pub const ORPHAN: &str = "orphan";

/// A served kind, as plural name and group.
pub type KindName = Arc<str>;

/// One object: only what ownership needs.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedObject {
    /// Group, version and kind.
    pub kind: KindName,
    /// Namespace and name.
    pub key: Key,
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Precondition of what the collector does to it.
    pub resource_version: Option<String>,
    /// `metadata.ownerReferences`.
    pub owners: Vec<OwnerReference>,
    /// `metadata.finalizers`: who must do something before it goes.
    pub finalizers: Vec<String>,
    /// It has a deletion timestamp.
    pub deleting: bool,
}

impl OwnedObject {
    /// Reads what ownership needs.
    pub fn read(kind: KindName, meta: ObjectMeta) -> Self {
        Self {
            kind,
            key: Key::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version,
            owners: meta.owner_references.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// Deleted in the foreground: after its dependents.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|finalizer| finalizer == FOREGROUND)
    }

    /// Deleted with its dependents to be left alone.
    pub fn orphans_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|finalizer| finalizer == ORPHAN)
    }

    /// Whether `self` may own `dependent`, if `dependent` names it.
    fn may_own(&self, dependent: &OwnedObject) -> bool {
        self.key.namespace.is_empty() || self.key.namespace == dependent.key.namespace
    }

    fn is_blocked_for(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
    }
}

/// All objects by uid, and who depends on whom.
#[derive(Default)]
pub struct Graph {
    objects: HashMap<String, Arc<OwnedObject>>,
    dependents: HashMap<String, BTreeSet<String>>,
}

/// The state of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// It exists, and keeps its dependents.
    Solid,
    /// It is deleted once its dependents are gone.
    Waiting,
    /// It does not exist: its dependents go.
    Absent,
}

/// What is to be done with one object.
#[derive(Clone, Debug, PartialEq)]
pub enum CollectorAction {
    /// It stays as it is.
    Nothing,
    /// All its owners are gone or wait for it.
    Delete {
        /// What becomes of its own dependents.
        policy: Policy,
    },
    /// It may be one of a circle of owners, all to be deleted: none of them is to wait for it.
    Unblock,
    /// Some owners are left: the others are taken off.
    KeepOwners(Vec<OwnerReference>),
    /// Its dependents are gone, or were released: this finalizer is done.
    DropFinalizer(&'static str),
    /// These dependents are to be released from it first.
    Release(Vec<String>),
}

/// `propagationPolicy` of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Dependents are deleted after it.
    Background,
    /// Dependents are deleted before it.
    Foreground,
    /// Dependents stay, without it as their owner.
    Orphan,
}

impl Graph {
    /// The object with this uid.
    pub fn get(&self, uid: &str) -> Option<&Arc<OwnedObject>> {
        self.objects.get(uid)
    }

    /// Takes over one object's state. Returns the uids to decide on.
    pub fn set(&mut self, object: OwnedObject) -> Vec<String> {
        let uid = object.uid.clone();
        let old = self.objects.get(&uid).cloned();
        for owner in old.iter().flat_map(|old| &old.owners) {
            self.remove_dependent(&owner.uid, &uid);
        }
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let mut affected = Vec::new();
        let owners_changed = old.as_ref().is_none_or(|old| old.owners != object.owners);
        let unknown = |owner: &OwnerReference| {
            self.objects.get(&owner.uid).is_none_or(|o| o.waits_for_dependents() || !o.may_own(&object))
        };
        if owners_changed && object.owners.iter().any(unknown) {
            affected.push(uid.clone());
        }
        // Former owners may have waited for it.
        for owner in old.iter().filter(|_| owners_changed).flat_map(|old| &old.owners) {
            affected.push(owner.uid.clone());
        }
        let began = |is: fn(&OwnedObject) -> bool| is(&object) && !old.as_deref().is_some_and(is);
        if began(OwnedObject::waits_for_dependents) {
            affected.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
            affected.push(uid.clone());
        }
        if began(OwnedObject::orphans_dependents) {
            affected.push(uid.clone());
        }
        self.objects.insert(uid, Arc::new(object));
        affected
    }

    /// Forgets an object. Returns the uids to decide on.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(object) = self.objects.remove(uid) else { return Vec::new() };
        let mut affected: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        for owner in &object.owners {
            self.remove_dependent(&owner.uid, uid);
            affected.push(owner.uid.clone());
        }
        affected
    }

    /// The uids of one kind that are not among `listed`.
    pub fn not_among(&self, kind: &KindName, listed: &HashSet<String>) -> Vec<String> {
        let of_kind = self.objects.values().filter(|object| object.kind == *kind);
        of_kind.filter(|object| !listed.contains(&object.uid)).map(|object| object.uid.clone()).collect()
    }

    /// Owners of an object that the watches have not shown: the API must be asked for them.
    pub fn unseen_owners(&self, object: &OwnedObject) -> Vec<OwnerReference> {
        object.owners.iter().filter(|owner| !self.objects.contains_key(&owner.uid)).cloned().collect()
    }

    /// Decides on one object. `unseen` is the state of owners that the graph does not hold.
    pub fn decide(&self, object: &OwnedObject, unseen: impl Fn(&OwnerReference) -> OwnerState) -> CollectorAction {
        if object.orphans_dependents() {
            let dependents: Vec<String> = self.dependents(object).map(|dependent| dependent.uid.clone()).collect();
            return if dependents.is_empty() {
                CollectorAction::DropFinalizer(ORPHAN)
            } else {
                CollectorAction::Release(dependents)
            };
        }
        if object.waits_for_dependents() {
            return if self.is_blocked(object) {
                CollectorAction::Nothing
            } else {
                CollectorAction::DropFinalizer(FOREGROUND)
            };
        }
        if object.deleting || object.owners.is_empty() {
            return CollectorAction::Nothing;
        }
        let state = |owner: &OwnerReference| match self.objects.get(&owner.uid) {
            // There is no namespace to look for the owner of a cluster-wide object in.
            Some(owner) if !owner.may_own(object) && object.key.namespace.is_empty() => OwnerState::Solid,
            Some(owner) if !owner.may_own(object) => OwnerState::Absent,
            Some(owner) if owner.waits_for_dependents() => OwnerState::Waiting,
            Some(_) => OwnerState::Solid,
            None => unseen(owner),
        };
        let states: Vec<OwnerState> = object.owners.iter().map(state).collect();
        if states.iter().all(|state| *state == OwnerState::Solid) {
            return CollectorAction::Nothing;
        }
        if states.contains(&OwnerState::Solid) {
            let kept = object.owners.iter().zip(&states).filter(|(_, state)| **state == OwnerState::Solid);
            return CollectorAction::KeepOwners(kept.map(|(owner, _)| owner.clone()).collect());
        }
        let has_dependents = self.dependents(object).next().is_some();
        if !states.contains(&OwnerState::Waiting) || !has_dependents {
            return CollectorAction::Delete { policy: own_policy(object) };
        }
        // Each owner in a circle would wait for the next one, for ever.
        let is_in_circle = self.dependents(object).any(|dependent| dependent.waits_for_dependents());
        if is_in_circle && object.owners.iter().any(|owner| owner.block_owner_deletion == Some(true)) {
            return CollectorAction::Unblock;
        }
        CollectorAction::Delete { policy: Policy::Foreground }
    }

    fn dependents<'g>(&'g self, owner: &'g OwnedObject) -> impl Iterator<Item = &'g Arc<OwnedObject>> {
        let uids = self.dependents.get(&owner.uid).into_iter().flatten();
        uids.filter_map(|uid| self.objects.get(uid)).filter(|dependent| owner.may_own(dependent))
    }

    /// Whether a dependent that asks to be waited for is still there.
    fn is_blocked(&self, owner: &OwnedObject) -> bool {
        self.dependents(owner).any(|dependent| dependent.is_blocked_for(&owner.uid))
    }

    fn remove_dependent(&mut self, owner: &str, uid: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

/// An object keeps the policy that its finalizers name.
fn own_policy(object: &OwnedObject) -> Policy {
    let has = |name: &str| object.finalizers.iter().any(|finalizer| finalizer == name);
    if has(ORPHAN) {
        Policy::Orphan
    } else if has(FOREGROUND) {
        Policy::Foreground
    } else {
        Policy::Background
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, blocks: bool) -> OwnerReference {
        OwnerReference { uid: uid.into(), name: uid.into(), block_owner_deletion: Some(blocks), ..Default::default() }
    }

    fn object(uid: &str, owners: &[OwnerReference]) -> OwnedObject {
        OwnedObject {
            kind: "pods".into(),
            key: Key::new("default", uid),
            uid: uid.into(),
            resource_version: None,
            owners: owners.to_vec(),
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    fn terminating(mut object: OwnedObject, finalizer: &str) -> OwnedObject {
        object.deleting = true;
        object.finalizers = vec![finalizer.into()];
        object
    }

    fn decide(graph: &Graph, uid: &str) -> CollectorAction {
        graph.decide(graph.get(uid).expect("is there"), |_| OwnerState::Absent)
    }

    #[test]
    fn dependents_of_a_deleted_owner_are_deleted_unless_another_owner_is_left() {
        let mut graph = Graph::default();
        graph.set(object("set", &[]));
        graph.set(object("other", &[]));
        assert!(graph.set(object("pod", &[owner("set", true)])).is_empty(), "an owner that is known costs nothing");
        graph.set(object("shared", &[owner("set", true), owner("other", false)]));
        let mut affected = graph.remove("set");
        affected.sort();
        assert_eq!(affected, ["pod", "shared"]);
        assert_eq!(decide(&graph, "pod"), CollectorAction::Delete { policy: Policy::Background });
        assert_eq!(decide(&graph, "shared"), CollectorAction::KeepOwners(vec![owner("other", false)]));
    }

    #[test]
    fn an_owner_that_no_watch_showed_is_asked_for_before_anything_is_deleted() {
        let mut graph = Graph::default();
        assert_eq!(graph.set(object("pod", &[owner("set", true)])), ["pod"]);
        let pod = graph.get("pod").expect("is there").clone();
        assert_eq!(graph.unseen_owners(&pod).len(), 1);
        assert_eq!(graph.decide(&pod, |_| OwnerState::Solid), CollectorAction::Nothing);
        assert_eq!(graph.decide(&pod, |_| OwnerState::Absent), CollectorAction::Delete { policy: Policy::Background });
    }

    #[test]
    fn foreground_deletion_waits_for_dependents_that_block() {
        let mut graph = Graph::default();
        graph.set(object("deployment", &[]));
        graph.set(object("set", &[owner("deployment", true)]));
        graph.set(object("pod", &[owner("set", true)]));
        let affected = graph.set(terminating(object("deployment", &[]), FOREGROUND));
        assert_eq!(affected, ["set", "deployment"]);
        assert_eq!(decide(&graph, "deployment"), CollectorAction::Nothing);
        assert_eq!(decide(&graph, "set"), CollectorAction::Delete { policy: Policy::Foreground });
        graph.set(terminating(object("set", &[owner("deployment", true)]), FOREGROUND));
        assert_eq!(decide(&graph, "pod"), CollectorAction::Delete { policy: Policy::Background });
        assert_eq!(graph.remove("pod"), ["set"]);
        assert_eq!(decide(&graph, "set"), CollectorAction::DropFinalizer(FOREGROUND));
        assert_eq!(graph.remove("set"), ["deployment"]);
        assert_eq!(decide(&graph, "deployment"), CollectorAction::DropFinalizer(FOREGROUND));
    }

    #[test]
    fn a_circle_of_owners_is_deleted_whole() {
        let mut graph = Graph::default();
        for (uid, on) in [("1", "3"), ("2", "1"), ("3", "2")] {
            graph.set(object(uid, &[owner(on, true)]));
        }
        graph.set(terminating(object("1", &[owner("3", true)]), FOREGROUND));
        assert_eq!(decide(&graph, "2"), CollectorAction::Delete { policy: Policy::Foreground });
        graph.set(terminating(object("2", &[owner("1", true)]), FOREGROUND));
        assert_eq!(decide(&graph, "3"), CollectorAction::Unblock);
        assert!(graph.set(object("3", &[owner("2", false)])).contains(&"3".to_owned()));
        assert_eq!(decide(&graph, "3"), CollectorAction::Delete { policy: Policy::Foreground });
        graph.set(terminating(object("3", &[owner("2", false)]), FOREGROUND));
        for uid in ["2", "1", "3"] {
            assert_eq!(decide(&graph, uid), CollectorAction::DropFinalizer(FOREGROUND), "{uid}");
            graph.remove(uid);
        }
    }

    #[test]
    fn dependents_that_do_not_block_are_deleted_but_not_waited_for() {
        let mut graph = Graph::default();
        graph.set(object("set", &[]));
        graph.set(object("pod", &[owner("set", false)]));
        graph.set(terminating(object("set", &[]), FOREGROUND));
        assert_eq!(decide(&graph, "set"), CollectorAction::DropFinalizer(FOREGROUND));
        assert_eq!(decide(&graph, "pod"), CollectorAction::Delete { policy: Policy::Background });
    }

    #[test]
    fn orphaning_releases_the_dependents_and_then_the_owner() {
        let mut graph = Graph::default();
        graph.set(object("set", &[]));
        graph.set(object("pod", &[owner("set", true)]));
        assert_eq!(graph.set(terminating(object("set", &[]), ORPHAN)), ["set"]);
        assert_eq!(decide(&graph, "set"), CollectorAction::Release(vec!["pod".into()]));
        assert_eq!(graph.set(object("pod", &[])), ["set"]);
        assert_eq!(decide(&graph, "set"), CollectorAction::DropFinalizer(ORPHAN));
    }

    #[test]
    fn a_reference_to_an_owner_in_another_namespace_neither_delays_nor_keeps_anything() {
        let mut graph = Graph::default();
        graph.set(object("set", &[]));
        let mut foreign = object("foreign", &[owner("set", true)]);
        foreign.key.namespace = "attacker".into();
        graph.set(foreign);
        assert_eq!(decide(&graph, "foreign"), CollectorAction::Delete { policy: Policy::Background });
        graph.set(terminating(object("set", &[]), FOREGROUND));
        assert_eq!(decide(&graph, "set"), CollectorAction::DropFinalizer(FOREGROUND));
        graph.set(terminating(object("set", &[]), ORPHAN));
        assert_eq!(decide(&graph, "set"), CollectorAction::DropFinalizer(ORPHAN));
        let mut cluster_wide = object("cluster-wide", &[owner("set", true)]);
        cluster_wide.key.namespace = String::new();
        graph.set(cluster_wide);
        assert_eq!(decide(&graph, "cluster-wide"), CollectorAction::Nothing);
    }
}
