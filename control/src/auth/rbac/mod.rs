//! RBAC: what the stored roles and bindings allow.
//!
//! ```text
//! store ── changes of roles and bindings ──▶ Policy (an index by subject, never changed) ──▶ decisions
//! ```
//!
//! Nouns, as in Kubernetes:
//! - **rule**: verbs on resources, or on paths that are no resources.
//! - **role**: a list of rules; a Role is of one namespace, a ClusterRole of none.
//! - **subject**: a user or a group. A ServiceAccount is the user `system:serviceaccount:NAMESPACE:NAME`.
//! - **grant**: that a binding gives a role to a subject, in a namespace or everywhere.
//!
//! A decision looks at the grants of the user and its groups alone, however many others there are, and where these are
//! many, at those that are about what is asked. [`Rbac`] takes in the changes of the store before it decides: a binding
//! counts from the moment its write was answered.
//!
//! Files: `rule` (what one rule allows), `policy` (the index), `subject_index` (the same for a subject with many
//! grants), `subject_indexes` (of all such subjects), `coverage` (whether rules give no more than others), `escalation`
//! (whether a write of a role or binding may be made).

mod coverage;
pub mod escalation;
mod policy;
mod rule;
mod subject_index;
mod subject_indexes;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use self::{
    coverage::covers,
    policy::{Policy, RbacDecision, RoleReference},
    rule::{ALL, Rule},
};
use crate::{
    reflector::{Reflector, StoreUpdate},
    store::{Event, EventType, Snapshot, Store},
};

/// The resources of the store that decide, in the order in which they are read.
pub const RESOURCES: [&str; 4] = [
    "clusterroles.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
];

/// The roles and bindings of a store, as an index that follows their changes. Cheap to clone; clones share the index.
#[derive(Clone)]
pub struct Rbac {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    policy: ArcSwap<Policy>,
    /// All changes up to this revision are in `policy`.
    up_to: AtomicU64,
    /// Of [`RESOURCES`]; read when somebody asks.
    changes: Mutex<Reflector>,
}

impl Rbac {
    /// Follows the roles and bindings of `store` from its first use on.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let changes = Mutex::new(Reflector::new(store.clone(), RESOURCES));
        let (policy, up_to) = (ArcSwap::default(), AtomicU64::new(0));
        Self { inner: Arc::new(Inner { store, policy, up_to, changes }) }
    }

    /// The policy of all writes that were answered before this call.
    pub fn policy(&self) -> Arc<Policy> {
        let inner = &*self.inner;
        if inner.up_to.load(Ordering::Acquire) < inner.store.published() {
            inner.catch_up();
        }
        inner.policy.load_full()
    }
}

impl Inner {
    fn catch_up(&self) {
        let mut changes = self.changes.lock();
        let target = self.store.published();
        if self.up_to.load(Ordering::Acquire) >= target {
            return;
        }
        match changes.ready() {
            None => {}
            Some(StoreUpdate::Changed(events)) => {
                let mut policy = Policy::clone(&self.policy.load());
                for event in &events {
                    policy.change(event);
                }
                self.policy.store(Arc::new(policy));
            }
            Some(StoreUpdate::Listed(snapshot)) => {
                self.policy.store(Arc::new(Policy::of(&snapshot)));
                self.up_to.store(snapshot.revision, Ordering::Release);
                return;
            }
        }
        self.up_to.store(target, Ordering::Release);
    }
}

impl Policy {
    fn of(snapshot: &Snapshot) -> Self {
        let mut policy = Self::default();
        for resource in RESOURCES {
            for (_, object) in snapshot.list(resource, "", None) {
                policy.put(resource, object);
            }
        }
        policy
    }

    /// Takes in one change.
    fn change(&mut self, event: &Event) {
        if let Some(previous) = &event.previous {
            self.remove(&event.key.resource, previous);
        }
        if event.event_type != EventType::Deleted {
            self.put(&event.key.resource, &event.object);
        }
    }
}

#[cfg(test)]
mod creation_tests;
#[cfg(test)]
mod escalation_tests;
#[cfg(test)]
mod many_bindings_tests;
#[cfg(test)]
mod mutating_policy_tests;
#[cfg(test)]
mod tests;
