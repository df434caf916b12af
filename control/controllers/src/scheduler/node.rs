//! A node as the scheduler sees it: what it has, what is taken, what it refuses.

use std::collections::{BTreeMap, HashSet};

use fairlead_client::placement::HostPort;
use fairlead_kinds::kinds::quantity;
use k8s_openapi::api::core::v1::{Node, Taint};

use super::{
    pod::Needs,
    resources::{Amount, Resources},
};

/// What the scheduler reads of a Node object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeProperties {
    /// Of the Node object.
    pub name: String,
    /// Selectors and affinities ask for them.
    pub labels: BTreeMap<String, String>,
    /// Keep pods away that do not tolerate them.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`: the node is cordoned.
    pub unschedulable: bool,
    /// Its condition `Ready` is true.
    pub ready: bool,
    /// `status.allocatable`.
    pub allocatable: Resources,
    /// Most pods it takes.
    pub pods: i64,
}

/// A node and what its pods take of it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// What the Node object says.
    pub node: NodeProperties,
    /// Sum of what its pods ask for.
    pub requested: Resources,
    /// As `requested`, with a small share for pods that ask for nothing: it only spreads them.
    pub load: (Amount, Amount),
    /// How many pods it has.
    pub pods: i64,
    /// How many of them have each priority. Never 0.
    pub priorities: BTreeMap<i32, usize>,
    /// uids of the pods placed here.
    pub placed: HashSet<String>,
    /// Those that its pods take.
    pub host_ports: Vec<HostPort>,
}

/// Share of a pod that asks for no CPU, in thousandths of a core. Source: `DefaultMilliCPURequest`.
const LOAD_CPU_MILLI: Amount = 100;
/// Share of a pod that asks for no memory, in bytes. Source: `DefaultMemoryRequest`.
const LOAD_MEMORY: Amount = 200 << 20;

impl NodeProperties {
    /// Reads a Node object.
    pub fn read(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let pods = allocatable.and_then(|a| a.get("pods")).and_then(|q| quantity::units(&q.0));
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            allocatable: Resources::read(allocatable),
            pods: pods.unwrap_or(110),
            labels,
        }
    }
}

/// What a pod weighs in the scores: CPU and memory.
pub fn load_of(needs: &Needs) -> (Amount, Amount) {
    let or = |amount: Amount, default: Amount| if amount > 0 { amount } else { default };
    (or(needs.requests.cpu_milli, LOAD_CPU_MILLI), or(needs.requests.memory, LOAD_MEMORY))
}

impl NodeInfo {
    /// Whether a pod of a priority below this one runs here.
    pub fn has_below(&self, priority: i32) -> bool {
        self.priorities.first_key_value().is_some_and(|(lowest, _)| *lowest < priority)
    }

    /// Counts a pod that is placed here.
    pub fn take(&mut self, needs: &Needs) {
        let load = load_of(needs);
        self.requested.add(&needs.requests);
        self.load = (self.load.0 + load.0, self.load.1 + load.1);
        self.pods += 1;
        let of_priority = self.priorities.entry(needs.priority).or_default();
        *of_priority = of_priority.saturating_add(1);
        self.host_ports.extend(needs.host_ports.iter().cloned());
    }

    /// Takes back what [`Self::take`] counted.
    pub fn give_back(&mut self, needs: &Needs) {
        let load = load_of(needs);
        self.requested.subtract(&needs.requests);
        self.load = (self.load.0 - load.0, self.load.1 - load.1);
        self.pods -= 1;
        if let Some(count) = self.priorities.get_mut(&needs.priority) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.priorities.remove(&needs.priority);
            }
        }
        for port in &needs.host_ports {
            if let Some(at) = self.host_ports.iter().position(|taken| taken == port) {
                self.host_ports.swap_remove(at);
            }
        }
    }
}
