//! Which filters kept a pod from the nodes, by the names of kube-scheduler's plugins. What none of them looks at cannot
//! help the pod ([`super::queueing_hints`]).

use std::collections::BTreeSet;

/// A filter of kube-scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plugin {
    /// Cordoned nodes.
    NodeUnschedulable,
    /// Taints; nodes that are not ready are tainted so a moment later.
    TaintToleration,
    /// `nodeSelector` and node affinity.
    NodeAffinity,
    /// Host ports.
    NodePorts,
    /// Resources, and the number of pods.
    NodeResourcesFit,
    /// Topology spread constraints that must hold.
    PodTopologySpread,
    /// Required affinity and anti-affinity to pods, that of the placed pods included.
    InterPodAffinity,
}

/// Why one node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who refused.
    pub plugin: Plugin,
    /// In Kubernetes' words: `Insufficient cpu`…
    pub reason: String,
}

impl Refusal {
    /// `plugin` refused for this reason.
    pub fn new(plugin: Plugin, reason: impl Into<String>) -> Self {
        Self { plugin, reason: reason.into() }
    }
}

/// The filters that rejected a pod, each on some node. Empty where no node was asked: then any of them may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections(BTreeSet<Plugin>);

impl Rejections {
    /// Notes that `plugin` refused a node.
    pub fn add(&mut self, plugin: Plugin) {
        self.0.insert(plugin);
    }

    /// Whether `plugin` rejected the pod, or may have.
    pub fn may_be_by(&self, plugin: Plugin) -> bool {
        self.0.is_empty() || self.0.contains(&plugin)
    }
}

impl FromIterator<Plugin> for Rejections {
    fn from_iter<I: IntoIterator<Item = Plugin>>(plugins: I) -> Self {
        Self(plugins.into_iter().collect())
    }
}
