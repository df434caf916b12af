//! What the pods of a node hold of its CPU and memory, and who may have more. Pure: no I/O, no clock.
//!
//! A pod holds what it was admitted with until a resize of it fits. Those that do not fit now wait, and are looked at
//! again whenever another pod leaves or shrinks: first who asks for less than it has, then by priority, by QoS class,
//! and by how long they wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use super::{Amounts, Requests};
use crate::pods::{spec, status::qos_class};

/// The resources of a pod's containers that can be resized, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation(BTreeMap<String, ResourceRequirements>);

impl Allocation {
    /// What the pod asks for.
    pub fn of(pod: &Pod) -> Self {
        let sidecars = spec::init_containers(pod).filter(|container| spec::is_sidecar(container));
        let all = sidecars.chain(spec::app_containers(pod));
        Self(all.map(|one| (one.name.clone(), one.resources.clone().unwrap_or_default())).collect())
    }

    /// The pod with these resources in the place of those that it asks for.
    pub fn applied_to(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if *self == Self::of(pod) {
            return pod.clone();
        }
        let mut allocated = Pod::clone(pod);
        let replace = |container: &mut Container| {
            if let Some(resources) = self.0.get(&container.name) {
                container.resources = Some(resources.clone());
            }
        };
        if let Some(spec) = &mut allocated.spec {
            spec.init_containers.iter_mut().flatten().filter(|container| spec::is_sidecar(container)).for_each(replace);
            spec.containers.iter_mut().for_each(replace);
        }
        Arc::new(allocated)
    }

    /// Whether every container has the same CPU and memory in both, however it is written.
    fn is_same(&self, other: &Self) -> bool {
        let amounts = |one: &Self| -> Vec<_> {
            one.0.iter().map(|(name, resources)| (name.clone(), Amounts::of(Some(resources)))).collect()
        };
        self == other || amounts(self) == amounts(other)
    }
}

/// Why desired resources are not allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// In the kubelet's words.
    pub message: String,
    /// Of the Pod that asks for them.
    pub generation: Option<i64>,
    /// Since when it waits for this reason.
    pub since: Timestamp,
}

impl Pending {
    fn is_deferred(&self) -> bool {
        self.reason == DEFERRED
    }
}

const DEFERRED: &str = "Deferred";
const INFEASIBLE: &str = "Infeasible";

/// What a pod's worker is told of its pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// What it was granted.
    pub allocated: Allocation,
    /// What it asks for besides, and why it has not got it.
    pub pending: Option<Pending>,
    /// The generation whose resources were granted by the latest resize; `None` before the first.
    pub generation: Option<i64>,
}

/// Everything that the node's pods hold.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    capacity: Requests,
    pods: BTreeMap<String, Entry>,
    /// What an earlier agent granted to pods that have not been seen yet.
    earlier: BTreeMap<String, Allocation>,
}

#[derive(Clone, Debug)]
struct Entry {
    desired: Arc<Pod>,
    held: Held,
    requests: Requests,
}

impl Ledger {
    /// For a node of this capacity, on which an earlier agent granted `earlier` by uid.
    pub fn new(capacity: Requests, earlier: BTreeMap<String, Allocation>) -> Self {
        Self { capacity, earlier, ..Self::default() }
    }

    /// Takes in a version of the Pod `uid`, and decides on its resize. Returns the other pods for which that changed
    /// something.
    pub fn put(&mut self, uid: &str, pod: &Arc<Pod>, now: Timestamp) -> BTreeSet<String> {
        match self.pods.get_mut(uid) {
            Some(entry) => entry.desired = pod.clone(),
            None => {
                let allocated = self.earlier.remove(uid).unwrap_or_else(|| Allocation::of(pod));
                let requests = Requests::of(&allocated.applied_to(pod));
                let held = Held { allocated, ..Held::default() };
                self.pods.insert(uid.to_owned(), Entry { desired: pod.clone(), held, requests });
            }
        }
        let before = self.pods[uid].requests;
        self.decide(uid, now);
        if self.pods[uid].requests == before { BTreeSet::new() } else { self.retry(now) }
    }

    /// The pod needs nothing any more. Returns the pods that got more by that.
    pub fn remove(&mut self, uid: &str, now: Timestamp) -> BTreeSet<String> {
        self.earlier.remove(uid);
        if self.pods.remove(uid).is_some() { self.retry(now) } else { BTreeSet::new() }
    }

    /// Forgets what an earlier agent granted to pods that are not among `uids`.
    pub fn retain(&mut self, uids: &[String]) {
        self.earlier.retain(|uid, _| uids.contains(uid));
    }

    /// What is held for the pod.
    pub fn held(&self, uid: &str) -> Option<&Held> {
        self.pods.get(uid).map(|entry| &entry.held)
    }

    /// All allocations, by uid.
    pub fn allocations(&self) -> BTreeMap<String, Allocation> {
        let now = self.pods.iter().map(|(uid, entry)| (uid.clone(), entry.held.allocated.clone()));
        self.earlier.clone().into_iter().chain(now).collect()
    }

    /// Looks at all that were deferred once more, in their order, until none gets more.
    fn retry(&mut self, now: Timestamp) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        loop {
            let mut waiting: Vec<_> = self
                .pods
                .iter()
                .filter(|(_, entry)| entry.held.pending.as_ref().is_some_and(Pending::is_deferred))
                .map(|(uid, entry)| (entry.rank(), uid.clone()))
                .collect();
            waiting.sort();
            let mut one_fits = false;
            for (_, uid) in waiting {
                let before = self.pods[&uid].held.clone();
                self.decide(&uid, now);
                let held = &self.pods[&uid].held;
                one_fits |= held.pending.is_none();
                if *held != before {
                    changed.insert(uid);
                }
            }
            if !one_fits {
                return changed;
            }
        }
    }

    /// Grants what the pod asks for, or notes why not.
    fn decide(&mut self, uid: &str, now: Timestamp) {
        let Some(entry) = self.pods.get(uid) else { return };
        let desired = Allocation::of(&entry.desired);
        let is_ending = entry.desired.metadata.deletion_timestamp.is_some();
        let refusal = if desired.is_same(&entry.held.allocated) {
            Ok(false)
        } else {
            self.refusal(uid, entry).map_or(Ok(true), Err)
        };
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let generation = entry.desired.metadata.generation;
        match refusal {
            // What a pod that ends has is what it keeps.
            _ if is_ending => entry.held.pending = None,
            Ok(is_resize) => {
                entry.held.pending = None;
                entry.held.allocated = desired;
                if is_resize {
                    entry.held.generation = generation.or(Some(0));
                    entry.requests = Requests::of(&entry.desired);
                }
            }
            Err((reason, message)) => {
                let before = entry.held.pending.as_ref().filter(|before| before.reason == reason);
                let since = before.map_or(now, |before| before.since);
                entry.held.pending = Some(Pending { reason, message, generation, since });
            }
        }
    }

    /// Why the node cannot grant what the pod asks for.
    fn refusal(&self, uid: &str, entry: &Entry) -> Option<(&'static str, String)> {
        let source = entry.desired.metadata.annotations.as_ref().and_then(|all| all.get("kubernetes.io/config.source"));
        if source.is_some_and(|source| source != "api") {
            return Some((INFEASIBLE, "In-place resize of static-pods is not supported".to_owned()));
        }
        let (asked, capacity) = (Requests::of(&entry.desired), self.capacity);
        let beyond = |resource, asked, capacity| {
            let message =
                format!("Node didn't have enough capacity: {resource}, requested: {asked}, capacity: {capacity}");
            Some((INFEASIBLE, message))
        };
        if asked.memory > capacity.memory {
            return beyond("memory", asked.memory, capacity.memory);
        }
        if asked.cpu > capacity.cpu {
            return beyond("cpu", asked.cpu, capacity.cpu);
        }
        let others = self.pods.iter().filter(|(other, _)| *other != uid).map(|(_, other)| other.requests);
        let (used, held) = (others.fold(Requests::default(), Requests::plus), entry.requests);
        let resources = [
            ("cpu", asked.cpu, held.cpu, used.cpu, capacity.cpu),
            ("memory", asked.memory, held.memory, used.memory, capacity.memory),
        ];
        // What does not grow fits, whatever the others have: nobody was refused when the node was filled.
        let short = |(_, asked, held, used, capacity): &(_, i64, i64, i64, i64)| {
            asked > held && *asked > capacity.saturating_sub(*used)
        };
        let (resource, asked, _, used, capacity) = resources.into_iter().find(short)?;
        let amounts = format!("{resource}, requested: {asked}, used: {used}, capacity: {capacity}");
        Some((DEFERRED, format!("Node didn't have enough resource: {amounts}")))
    }
}

impl Entry {
    /// Who is looked at first: the lowest.
    fn rank(&self) -> (bool, i64, bool, Option<Timestamp>) {
        let asked = Requests::of(&self.desired);
        let grows = asked.cpu > self.requests.cpu || asked.memory > self.requests.memory;
        let priority = self.desired.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        let since = self.held.pending.as_ref().map(|pending| pending.since);
        (grows, -i64::from(priority), qos_class(&self.desired) != "Guaranteed", since)
    }
}

#[cfg(test)]
mod tests;
