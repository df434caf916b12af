//! What the pods of a node hold of it (CPU, memory, host ports), and who may have more. Pure: no I/O, no clock.
//!
//! A new pod is admitted where what it requests fits beside the others, and by the rules of `admission`. It holds that
//! until it ends, or until a resize of it fits. Resizes that do not fit now wait, and are looked at again whenever
//! another pod leaves or shrinks: first who asks for less than it has, then by priority, by QoS class, and by how long
//! they wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use fairlead_client::placement::HostPort;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use super::{Amounts, Requests};
use crate::pods::{
    admission::{self, AdmittingNode, Rejection},
    spec,
    status::qos_class,
};

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

    /// What a pod holds that an agent admitted and of which nothing is kept: of each container what it was created
    /// with, by `label`, or else what the status says.
    fn of_admitted(pod: &Pod, label: impl Fn(&str) -> Option<Amounts>) -> Self {
        let Self(mut all) = Self::of(pod);
        let status = pod.status.as_ref();
        let lists = status.map(|status| [&status.init_container_statuses, &status.container_statuses]);
        let statuses: Vec<_> = lists.into_iter().flatten().flatten().flatten().collect();
        for (name, resources) in &mut all {
            let reported = || {
                let status = statuses.iter().find(|status| status.name == *name)?;
                let limits = status.resources.as_ref().and_then(|resources| resources.limits.clone());
                let requests = Some(status.allocated_resources.clone()?);
                let limits = limits.or_else(|| resources.limits.clone());
                Some(Amounts::of(Some(&ResourceRequirements { requests, limits, ..ResourceRequirements::default() })))
            };
            if let Some(amounts) = label(name).or_else(reported) {
                *resources = amounts.shown_in(resources);
            }
        }
        Self(all)
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
pub struct PodGrant {
    /// What it was granted.
    pub allocated: Allocation,
    /// What it asks for besides, and why it has not got it.
    pub pending: Option<Pending>,
    /// The generation whose resources were granted by the latest resize; `None` before the first.
    pub generation: Option<i64>,
}

/// A resource of which the node has not enough left; shown in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// `cpu` (in thousandths of a core), `memory` (in bytes) or `pods`.
    resource: &'static str,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Shortage {
    /// Why a new pod is not admitted.
    pub fn reason(&self) -> &'static str {
        match self.resource {
            "cpu" => "OutOfcpu",
            "memory" => "OutOfmemory",
            _ => "OutOfpods",
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, requested, used, capacity } = self;
        write!(f, "Node didn't have enough resource: {resource}, ")?;
        write!(f, "requested: {requested}, used: {used}, capacity: {capacity}")
    }
}

/// What a node has for its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPU and memory.
    pub resources: Requests,
    /// How many pods there may be.
    pub pods: usize,
}

/// Everything that the node's pods hold.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    capacity: Capacity,
    pods: BTreeMap<String, Entry>,
    /// What an earlier agent granted to pods that have not been seen yet.
    earlier: BTreeMap<String, Allocation>,
}

#[derive(Clone, Debug)]
struct Entry {
    desired: Arc<Pod>,
    grant: PodGrant,
    requests: Requests,
    host_ports: Vec<HostPort>,
}

impl Ledger {
    /// For a node of this capacity, on which an earlier agent granted `earlier` by uid.
    pub fn new(capacity: Capacity, earlier: BTreeMap<String, Allocation>) -> Self {
        Self { capacity, earlier, ..Self::default() }
    }

    /// All pods of the node are these. First each that an agent has admitted gets what it held, and only then those
    /// that ask for more are decided on: in which order the pods are listed makes no difference. `label` tells by uid
    /// and name what a container was created with. Returns the pods that got more.
    pub fn adopt(
        &mut self,
        pods: &[Arc<Pod>],
        label: impl Fn(&str, &str) -> Option<Amounts>,
        now: Timestamp,
    ) -> BTreeSet<String> {
        let mut earlier = std::mem::take(&mut self.earlier);
        for pod in pods {
            let Some(uid) = pod.metadata.uid.as_ref().filter(|uid| !self.pods.contains_key(*uid)) else { continue };
            if spec::phase_is_final(pod) {
                continue;
            }
            let containers = || spec::containers(pod).any(|container| label(uid, &container.name).is_some());
            let kept = earlier.remove(uid);
            let is_admitted = || was_admitted(pod) || containers();
            let admitted = || is_admitted().then(|| Allocation::of_admitted(pod, |name| label(uid, name)));
            if let Some(allocated) = kept.or_else(admitted) {
                self.insert(uid, pod, allocated);
            }
        }
        self.retry(|entry| !Allocation::of(&entry.desired).is_same(&entry.grant.allocated), now)
    }

    /// Takes in a version of the Pod `uid`, and decides on its admission to `node`, or on its resize. Returns the other
    /// pods that got more by that.
    pub fn put(
        &mut self,
        uid: &str,
        pod: &Arc<Pod>,
        node: AdmittingNode<'_>,
        now: Timestamp,
    ) -> Result<BTreeSet<String>, Rejection> {
        if !self.pods.contains_key(uid) {
            let earlier = self.earlier.remove(uid);
            let admitted = || was_admitted(pod).then(|| Allocation::of_admitted(pod, |_| None));
            let allocated = match earlier.or_else(admitted) {
                Some(allocated) => allocated,
                None => {
                    self.admit(pod, node)?;
                    Allocation::of(pod)
                }
            };
            self.insert(uid, pod, allocated);
        }
        Ok(self.update(uid, pod, now))
    }

    /// As [`Self::put`] for a pod that holds something; nothing for another.
    pub fn update(&mut self, uid: &str, pod: &Arc<Pod>, now: Timestamp) -> BTreeSet<String> {
        let Some(entry) = self.pods.get_mut(uid) else { return BTreeSet::new() };
        entry.desired = pod.clone();
        if self.decide(uid, now) { self.retry_deferred(now) } else { BTreeSet::new() }
    }

    /// The pod needs nothing any more. Returns the pods that got more by that.
    pub fn remove(&mut self, uid: &str, now: Timestamp) -> BTreeSet<String> {
        self.earlier.remove(uid);
        if self.pods.remove(uid).is_some() { self.retry_deferred(now) } else { BTreeSet::new() }
    }

    fn insert(&mut self, uid: &str, pod: &Arc<Pod>, allocated: Allocation) {
        let requests = Requests::of(&allocated.applied_to(pod));
        let grant = PodGrant { allocated, ..PodGrant::default() };
        let host_ports = pod.spec.as_ref().map(HostPort::all_of).unwrap_or_default();
        self.pods.insert(uid.to_owned(), Entry { desired: pod.clone(), grant, requests, host_ports });
    }

    /// Whether the node takes a new pod. Static and critical ones need no room: the kubelet makes it by ending others.
    fn admit(&self, pod: &Pod, node: AdmittingNode<'_>) -> Result<(), Rejection> {
        admission::check_pod(pod)?;
        if !spec::is_static(pod) && !is_critical(pod) {
            self.check_room(pod).map_err(Rejection::Resource)?;
        }
        admission::check_node(pod, node, self.pods.values().flat_map(|entry| &entry.host_ports))
    }

    /// Whether a new pod fits. Source: `fitsRequest` of the scheduler's NodeResourcesFit.
    fn check_room(&self, pod: &Pod) -> Result<(), Shortage> {
        let (used, capacity) = (self.pods.len(), self.capacity.pods);
        if used >= capacity {
            let count = |pods| i64::try_from(pods).unwrap_or(i64::MAX);
            return Err(Shortage { resource: "pods", requested: 1, used: count(used), capacity: count(capacity) });
        }
        self.short(None, Requests::of(pod), Requests::default()).map_or(Ok(()), Err)
    }

    /// The resource of which `uid`, that holds `held`, asks for more than the others leave.
    fn short(&self, uid: Option<&str>, asked: Requests, held: Requests) -> Option<Shortage> {
        let others = self.pods.iter().filter(|(other, _)| Some(other.as_str()) != uid).map(|(_, other)| other.requests);
        let (used, capacity) = (others.fold(Requests::default(), Requests::plus), self.capacity.resources);
        let shortage = |resource, asked: i64, held, used, capacity: i64| {
            // What does not grow fits, whatever the others have.
            let is_short = asked > held && asked > capacity.saturating_sub(used);
            is_short.then_some(Shortage { resource, requested: asked, used, capacity })
        };
        shortage("cpu", asked.cpu, held.cpu, used.cpu, capacity.cpu)
            .or_else(|| shortage("memory", asked.memory, held.memory, used.memory, capacity.memory))
    }

    /// What the pod was granted.
    pub fn grant(&self, uid: &str) -> Option<&PodGrant> {
        self.pods.get(uid).map(|entry| &entry.grant)
    }

    /// All allocations, by uid.
    pub fn allocations(&self) -> BTreeMap<String, Allocation> {
        let now = self.pods.iter().map(|(uid, entry)| (uid.clone(), entry.grant.allocated.clone()));
        self.earlier.clone().into_iter().chain(now).collect()
    }

    /// Looks at all that were deferred once more.
    fn retry_deferred(&mut self, now: Timestamp) -> BTreeSet<String> {
        self.retry(|entry| entry.grant.pending.as_ref().is_some_and(Pending::is_deferred), now)
    }

    /// Decides on all that wait, in their order, until none gets more. Returns those that got more: another number in a
    /// message is nothing that its pod must be told of.
    fn retry(&mut self, waits: impl Fn(&Entry) -> bool, now: Timestamp) -> BTreeSet<String> {
        let mut granted = BTreeSet::new();
        loop {
            let waiting = self.pods.iter().filter(|(_, entry)| waits(entry));
            let mut waiting: Vec<_> = waiting.map(|(uid, entry)| (entry.rank(), uid.clone())).collect();
            waiting.sort();
            let fit: Vec<_> = waiting.into_iter().map(|(_, uid)| uid).filter(|uid| self.decide(uid, now)).collect();
            if fit.is_empty() {
                return granted;
            }
            granted.extend(fit);
        }
    }

    /// Grants what the pod asks for, or notes why not. Returns whether its resources were changed.
    fn decide(&mut self, uid: &str, now: Timestamp) -> bool {
        let Some(entry) = self.pods.get(uid) else { return false };
        let desired = Allocation::of(&entry.desired);
        let is_ending = entry.desired.metadata.deletion_timestamp.is_some();
        let refusal = if desired.is_same(&entry.grant.allocated) {
            Ok(false)
        } else {
            self.refusal(uid, entry).map_or(Ok(true), Err)
        };
        let Some(entry) = self.pods.get_mut(uid) else { return false };
        let generation = entry.desired.metadata.generation;
        match refusal {
            // What a pod that ends has is what it keeps.
            _ if is_ending => entry.grant.pending = None,
            Ok(is_resize) => {
                entry.grant.pending = None;
                entry.grant.allocated = desired;
                if is_resize {
                    entry.grant.generation = generation.or(Some(0));
                    entry.requests = Requests::of(&entry.desired);
                }
                return is_resize;
            }
            Err((reason, message)) => {
                let before = entry.grant.pending.as_ref().filter(|before| before.reason == reason);
                let since = before.map_or(now, |before| before.since);
                entry.grant.pending = Some(Pending { reason, message, generation, since });
            }
        }
        false
    }

    /// Why the node cannot grant what the pod asks for.
    fn refusal(&self, uid: &str, entry: &Entry) -> Option<(&'static str, String)> {
        if spec::is_static(&entry.desired) {
            return Some((INFEASIBLE, "In-place resize of static-pods is not supported".to_owned()));
        }
        let (asked, capacity) = (Requests::of(&entry.desired), self.capacity.resources);
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
        let shortage = self.short(Some(uid), asked, entry.requests)?;
        Some((DEFERRED, shortage.to_string()))
    }
}

/// An agent has admitted the pod: the first status that it writes of one says since when.
fn was_admitted(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
}

/// Of the priority that the cluster's own classes have, or more.
fn is_critical(pod: &Pod) -> bool {
    const SYSTEM_CRITICAL: i32 = 2_000_000_000;
    pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}

impl Entry {
    /// Who is looked at first: the lowest.
    fn rank(&self) -> (bool, i64, bool, Option<Timestamp>) {
        let asked = Requests::of(&self.desired);
        let grows = asked.cpu > self.requests.cpu || asked.memory > self.requests.memory;
        let priority = self.desired.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        let since = self.grant.pending.as_ref().map(|pending| pending.since);
        (grows, -i64::from(priority), qos_class(&self.desired) != "Guaranteed", since)
    }
}

#[cfg(test)]
mod tests;
