//! The nodes of the cluster as one DaemonSet sees them: what each should run, and which of its pods it has.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};

use super::{
    super::history::HASH_LABEL,
    placement::{GENERATION_LABEL, NodeRules, Placement, target_node, template_generation},
};
use crate::objects::{
    int_or_percent::{Rounding, resolve},
    pod_state::{Availability, availability, is_finished, is_terminating, node_name},
};

/// What one pass over a DaemonSet decides on.
pub struct DaemonNodes<'a> {
    /// Names the template that the pods should run.
    pub hash: &'a str,
    /// The moment at which pods are available or not.
    pub now: Timestamp,
    /// What each node should run.
    pub placements: BTreeMap<String, Placement>,
    /// The set's pods by the node that they run on or are meant for, the oldest first; on nodes that are gone as well.
    pub pods: BTreeMap<String, Vec<Arc<Pod>>>,
    generation: Option<String>,
    min_ready_seconds: i32,
    rolling: Option<(IntOrString, IntOrString)>,
}

/// How far a rollout may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollingLimits {
    /// Nodes that may have a second pod.
    pub surge: usize,
    /// Nodes whose pod may be missing.
    pub unavailable: usize,
}

impl<'a> DaemonNodes<'a> {
    /// Reads the nodes and the pods of `set`.
    pub fn new(set: &DaemonSet, hash: &'a str, nodes: &[Arc<Node>], pods: &[Arc<Pod>], now: Timestamp) -> Self {
        let rules = NodeRules::of(set);
        let placed = nodes.iter().map(|node| (node.metadata.name.clone().unwrap_or_default(), rules.placement(node)));
        let spec = set.spec.as_ref();
        Self {
            hash,
            now,
            placements: placed.collect(),
            pods: by_node(pods),
            generation: template_generation(set).map(|generation| generation.to_string()),
            min_ready_seconds: spec.and_then(|s| s.min_ready_seconds).unwrap_or(0),
            rolling: rolling_update(set),
        }
    }

    /// What the node should run; nodes that are gone run nothing.
    pub fn placement(&self, node: &str) -> Placement {
        self.placements.get(node).copied().unwrap_or(Placement::Refuse)
    }

    /// Whether the pod says by its hash that it runs the present template.
    pub fn has_hash(&self, pod: &Pod) -> bool {
        label(pod, HASH_LABEL).is_some_and(|hash| hash == self.hash)
    }

    /// Whether the pod runs the present template, by its hash or by the generation of the template.
    pub fn is_updated(&self, pod: &Pod) -> bool {
        self.has_hash(pod) || (self.generation.is_some() && label(pod, GENERATION_LABEL) == self.generation.as_ref())
    }

    /// Whether, and from when, the pod is available.
    pub fn availability(&self, pod: &Pod) -> Availability {
        availability(pod, self.min_ready_seconds, self.now)
    }

    /// Whether the pod is available now.
    pub fn is_available(&self, pod: &Pod) -> bool {
        self.availability(pod) == Availability::Available
    }

    /// How many nodes should run a pod.
    pub fn wanted(&self) -> usize {
        self.placements.values().filter(|placement| **placement == Placement::Run).count()
    }

    /// Whether a node may have two pods during a rollout.
    pub fn allows_surge(&self) -> bool {
        self.rolling.as_ref().is_some_and(|(surge, _)| resolve(surge, 1, Rounding::Up) > 0)
    }

    /// `None` where pods are replaced only when somebody deletes them.
    pub fn limits(&self) -> Option<RollingLimits> {
        let (surge, unavailable) = self.rolling.as_ref()?;
        let wanted = i32::try_from(self.wanted()).unwrap_or(i32::MAX);
        let count = |value| usize::try_from(resolve(value, wanted, Rounding::Up)).unwrap_or(0);
        let (surge, unavailable) = (count(surge), count(unavailable));
        // Neither would let no rollout take a step.
        let unavailable = if wanted > 0 && surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Some(RollingLimits { surge, unavailable })
    }
}

fn label<'p>(pod: &'p Pod, key: &str) -> Option<&'p String> {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(key))
}

/// Surge and unavailability of a set that rolls its updates out.
fn rolling_update(set: &DaemonSet) -> Option<(IntOrString, IntOrString)> {
    let strategy = set.spec.as_ref()?.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = rolling.and_then(|r| r.max_surge.clone()).unwrap_or(IntOrString::Int(0));
    let unavailable = rolling.and_then(|r| r.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
    Some((surge, unavailable))
}

/// Leaves out those that have ended and are being deleted: nothing is left to do about them.
fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !(is_finished(pod) && is_terminating(pod))) {
        if let Some(node) = target_node(pod) {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by_cached_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (node_name(pod).is_none(), created, pod.metadata.name.clone())
        });
    }
    by_node
}
