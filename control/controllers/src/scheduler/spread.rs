//! Topology spread constraints: how evenly the pods of a set are to be placed over the domains that node labels form.
//!
//! Constraints that must hold (`DoNotSchedule`) are filters ([`SpreadDomains`]); the others, and those that pods
//! without any of their own have ([`defaults`]), are a score ([`scores`]). Source: kube-scheduler's
//! `PodTopologySpread`.

mod defaults;
mod domains;
mod score;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use kube::core::{Selector, SelectorExt};

pub use self::{
    defaults::{Selecting, system_constraints},
    domains::{SpreadDomains, live_on},
    score::{Selected, scores},
};
use super::{
    filter::untolerated,
    matching::{PodSet, Scope},
    neighbours::{Labels, with_own_labels},
    node::NodeProperties,
    pod::Needs,
};

/// One constraint of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    /// `None` selects nothing, as an absent selector does.
    selector: Option<Selector>,
    /// The pods that are counted. `None` counts none: so it is for a selector of all pods, too.
    set: Option<PodSet>,
    topology_key: String,
    max_skew: i64,
    /// With fewer domains than this, the fewest pods of a domain count as 0.
    min_domains: usize,
    /// Only nodes count that the pod's node affinity and node selector admit.
    honors_affinity: bool,
    /// Only nodes count whose taints the pod tolerates.
    honors_taints: bool,
}

/// The constraints of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopologySpread {
    /// `DoNotSchedule`.
    pub hard: Vec<Constraint>,
    /// `ScheduleAnyway`.
    pub soft: Vec<Constraint>,
}

impl TopologySpread {
    /// Reads a pod's own constraints.
    pub fn of(pod: &Pod) -> Self {
        let constraints = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let read = |action: &str| -> Vec<Constraint> {
            let of_action = constraints.unwrap_or_default().iter().filter(|c| c.when_unsatisfiable == action);
            of_action.map(|constraint| Constraint::read(constraint, namespace, &labels)).collect()
        };
        Self { hard: read("DoNotSchedule"), soft: read("ScheduleAnyway") }
    }

    /// Whether the pod has constraints: then it has no default ones.
    pub fn is_declared(&self) -> bool {
        !(self.hard.is_empty() && self.soft.is_empty())
    }

    /// Whether a pod counts for a constraint that must hold.
    pub fn selects(&self, own: &Needs, other: &Needs) -> bool {
        own.neighbours.namespace == other.neighbours.namespace
            && self.hard.iter().any(|constraint| constraint.selects(&other.neighbours.labels))
    }
}

impl Constraint {
    fn read(constraint: &TopologySpreadConstraint, namespace: &str, labels: &Labels) -> Self {
        let mut selector = constraint.label_selector.clone();
        with_own_labels(&mut selector, constraint.match_label_keys.as_deref(), "In", labels);
        let selector: Option<Selector> = selector.and_then(|s| s.try_into().ok());
        Self {
            set: set_of(namespace, selector.as_ref()),
            selector,
            topology_key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew.into(),
            min_domains: constraint.min_domains.and_then(|count| usize::try_from(count).ok()).unwrap_or(1),
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// The pods that are counted.
    pub fn set(&self) -> Option<&PodSet> {
        self.set.as_ref()
    }

    fn selects(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether the pods of a node count for the pod `own`.
    fn counts_node(&self, own: &Needs, node: &NodeProperties) -> bool {
        (!self.honors_affinity || own.affinity.admits(&node.name, &node.labels))
            && (!self.honors_taints || untolerated(own, node).is_none())
    }
}

/// The pods of a namespace that `selector` selects, as constraints count them.
fn set_of(namespace: &str, selector: Option<&Selector>) -> Option<PodSet> {
    let selector = selector.filter(|selector| !selector.selects_all())?;
    Some(PodSet::new(vec![(Scope::one(namespace), selector.clone())]))
}

/// Whether a node is in a domain of every constraint.
fn has_all_keys<'c>(node: &NodeProperties, constraints: impl IntoIterator<Item = &'c Constraint>) -> bool {
    constraints.into_iter().all(|constraint| node.labels.contains_key(&constraint.topology_key))
}
