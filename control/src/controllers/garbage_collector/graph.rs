//! Who owns whom, as the watches tell it, and what becomes of an object whose owners change. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::controllers::engine::Key;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// One object: only what ownership needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Position among the served kinds.
    pub kind: usize,
    pub key: Key,
    pub uid: String,
    pub resource_version: Option<String>,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

impl Object {
    pub fn read(kind: usize, meta: ObjectMeta) -> Self {
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

    /// Deleted in the foreground: it goes after its dependents.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|finalizer| finalizer == FOREGROUND)
    }

    /// Deleted with its dependents to be left alone.
    pub fn orphans_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|finalizer| finalizer == ORPHAN)
    }

    fn is_blocked_for(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
    }
}

/// All objects by uid, and who depends on whom.
#[derive(Default)]
pub struct Graph {
    objects: HashMap<String, Arc<Object>>,
    dependents: HashMap<String, BTreeSet<String>>,
}

/// How an owner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Solid,
    /// It goes once its dependents are gone.
    Waiting,
    Absent,
}

/// What is to be done with one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Nothing,
    /// All its owners are gone or wait for it.
    Delete {
        policy: Policy,
    },
    /// Some owners are left: the others are taken off.
    KeepOwners(Vec<OwnerReference>),
    /// Its dependents are gone, or were let go: this finalizer is done.
    DropFinalizer(&'static str),
    /// Its dependents are to be let go first.
    Release(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Background,
    Foreground,
    Orphan,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Arc<Object>> {
        self.objects.get(uid)
    }

    /// Takes over one object's state. Returns the uids to decide on.
    pub fn set(&mut self, object: Object) -> Vec<String> {
        let uid = object.uid.clone();
        let old = self.objects.get(&uid).cloned();
        for owner in old.iter().flat_map(|old| &old.owners) {
            self.leave(&owner.uid, &uid);
        }
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let mut affected = Vec::new();
        let owners_changed = old.as_ref().is_none_or(|old| old.owners != object.owners);
        let unknown = |owner: &OwnerReference| self.objects.get(&owner.uid).is_none_or(|o| o.waits_for_dependents());
        if owners_changed && object.owners.iter().any(unknown) {
            affected.push(uid.clone());
        }
        // Former owners may have waited for it.
        for owner in old.iter().filter(|_| owners_changed).flat_map(|old| &old.owners) {
            affected.push(owner.uid.clone());
        }
        let began = |is: fn(&Object) -> bool| is(&object) && !old.as_deref().is_some_and(is);
        if began(Object::waits_for_dependents) {
            affected.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
            affected.push(uid.clone());
        }
        if began(Object::orphans_dependents) {
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
            self.leave(&owner.uid, uid);
            affected.push(owner.uid.clone());
        }
        affected
    }

    /// The uids of one kind that are not among `listed`.
    pub fn beyond(&self, kind: usize, listed: &BTreeSet<String>) -> Vec<String> {
        let of_kind = self.objects.values().filter(|object| object.kind == kind);
        of_kind.filter(|object| !listed.contains(&object.uid)).map(|object| object.uid.clone()).collect()
    }

    /// Owners of an object that the watches have not shown: the API must be asked for them.
    pub fn unseen_owners(&self, object: &Object) -> Vec<OwnerReference> {
        object.owners.iter().filter(|owner| !self.objects.contains_key(&owner.uid)).cloned().collect()
    }

    /// Every object, for the first pass after the first listing.
    pub fn with_owners_or_waiting(&self) -> Vec<String> {
        let has_work = |o: &&Arc<Object>| {
            o.waits_for_dependents()
                || o.orphans_dependents()
                || o.owners.iter().any(|w| !self.objects.contains_key(&w.uid))
        };
        self.objects.values().filter(has_work).map(|object| object.uid.clone()).collect()
    }

    /// Decides on one object. `unseen` tells how owners stand that the graph does not hold.
    pub fn decide(&self, object: &Object, unseen: impl Fn(&OwnerReference) -> Owner) -> Decision {
        if object.orphans_dependents() {
            let dependents: Vec<String> = self.dependents.get(&object.uid).into_iter().flatten().cloned().collect();
            return if dependents.is_empty() { Decision::DropFinalizer(ORPHAN) } else { Decision::Release(dependents) };
        }
        if object.waits_for_dependents() {
            return if self.is_blocked(&object.uid) { Decision::Nothing } else { Decision::DropFinalizer(FOREGROUND) };
        }
        if object.deleting || object.owners.is_empty() {
            return Decision::Nothing;
        }
        let standing = |owner: &OwnerReference| match self.objects.get(&owner.uid) {
            Some(owner) if owner.waits_for_dependents() => Owner::Waiting,
            Some(_) => Owner::Solid,
            None => unseen(owner),
        };
        let standings: Vec<Owner> = object.owners.iter().map(standing).collect();
        if standings.iter().all(|standing| *standing == Owner::Solid) {
            return Decision::Nothing;
        }
        if standings.contains(&Owner::Solid) {
            let kept = object.owners.iter().zip(&standings).filter(|(_, standing)| **standing == Owner::Solid);
            return Decision::KeepOwners(kept.map(|(owner, _)| owner.clone()).collect());
        }
        let has_dependents = self.dependents.get(&object.uid).is_some_and(|d| !d.is_empty());
        let policy =
            if standings.contains(&Owner::Waiting) && has_dependents { Policy::Foreground } else { own_policy(object) };
        Decision::Delete { policy }
    }

    /// Whether a dependent that asks to be waited for is still there.
    fn is_blocked(&self, uid: &str) -> bool {
        let dependents = self.dependents.get(uid).into_iter().flatten();
        dependents.filter_map(|dependent| self.objects.get(dependent)).any(|dependent| dependent.is_blocked_for(uid))
    }

    fn leave(&mut self, owner: &str, uid: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

/// An object keeps the policy that its finalizers name.
fn own_policy(object: &Object) -> Policy {
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

    fn object(uid: &str, owners: &[OwnerReference]) -> Object {
        Object {
            kind: 0,
            key: Key::new("default", uid),
            uid: uid.into(),
            resource_version: None,
            owners: owners.to_vec(),
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    fn going(mut object: Object, finalizer: &str) -> Object {
        object.deleting = true;
        object.finalizers = vec![finalizer.into()];
        object
    }

    fn decide(graph: &Graph, uid: &str) -> Decision {
        graph.decide(graph.get(uid).expect("is there"), |_| Owner::Absent)
    }

    #[test]
    fn dependents_of_an_owner_that_goes_are_deleted_unless_another_owner_stays() {
        let mut graph = Graph::default();
        graph.set(object("set", &[]));
        graph.set(object("other", &[]));
        assert!(graph.set(object("pod", &[owner("set", true)])).is_empty(), "an owner that is known costs nothing");
        graph.set(object("shared", &[owner("set", true), owner("other", false)]));
        let mut affected = graph.remove("set");
        affected.sort();
        assert_eq!(affected, ["pod", "shared"]);
        assert_eq!(decide(&graph, "pod"), Decision::Delete { policy: Policy::Background });
        assert_eq!(decide(&graph, "shared"), Decision::KeepOwners(vec![owner("other", false)]));
    }

    #[test]
    fn an_owner_that_no_watch_showed_is_asked_for_before_anything_is_deleted() {
        let mut graph = Graph::default();
        assert_eq!(graph.set(object("pod", &[owner("set", true)])), ["pod"]);
        let pod = graph.get("pod").expect("is there").clone();
        assert_eq!(graph.unseen_owners(&pod).len(), 1);
        assert_eq!(graph.decide(&pod, |_| Owner::Solid), Decision::Nothing);
        assert_eq!(graph.decide(&pod, |_| Owner::Absent), Decision::Delete { policy: Policy::Background });
    }

    #[test]
    fn foreground_deletion_waits_for_dependents_that_block() {
        let mut graph = Graph::default();
        graph.set(object("deployment", &[]));
        graph.set(object("set", &[owner("deployment", true)]));
        graph.set(object("pod", &[owner("set", true)]));
        let affected = graph.set(going(object("deployment", &[]), FOREGROUND));
        assert_eq!(affected, ["set", "deployment"]);
        assert_eq!(decide(&graph, "deployment"), Decision::Nothing);
        assert_eq!(decide(&graph, "set"), Decision::Delete { policy: Policy::Foreground });
        graph.set(going(object("set", &[owner("deployment", true)]), FOREGROUND));
        assert_eq!(decide(&graph, "pod"), Decision::Delete { policy: Policy::Background });
        assert_eq!(graph.remove("pod"), ["set"]);
        assert_eq!(decide(&graph, "set"), Decision::DropFinalizer(FOREGROUND));
        assert_eq!(graph.remove("set"), ["deployment"]);
        assert_eq!(decide(&graph, "deployment"), Decision::DropFinalizer(FOREGROUND));
    }

    #[test]
    fn dependents_that_do_not_block_are_deleted_but_not_waited_for() {
        let mut graph = Graph::default();
        graph.set(object("set", &[]));
        graph.set(object("pod", &[owner("set", false)]));
        graph.set(going(object("set", &[]), FOREGROUND));
        assert_eq!(decide(&graph, "set"), Decision::DropFinalizer(FOREGROUND));
        assert_eq!(decide(&graph, "pod"), Decision::Delete { policy: Policy::Background });
    }

    #[test]
    fn orphaning_lets_dependents_go_and_then_the_owner() {
        let mut graph = Graph::default();
        graph.set(object("set", &[]));
        graph.set(object("pod", &[owner("set", true)]));
        assert_eq!(graph.set(going(object("set", &[]), ORPHAN)), ["set"]);
        assert_eq!(decide(&graph, "set"), Decision::Release(vec!["pod".into()]));
        assert_eq!(graph.set(object("pod", &[])), ["set"]);
        assert_eq!(decide(&graph, "set"), Decision::DropFinalizer(ORPHAN));
    }
}
