//! Where the other pods allow one, by topology domain: the rules that must hold, of both kinds.

use super::{
    matching::CountChange,
    neighbours::{AffinityDomains, Labels, NamespaceLabels},
    node::NodeProperties,
    pod::Needs,
    rejection::{Plugin, Refusal},
    spread::SpreadDomains,
};

/// What the placed pods mean to one pod.
#[derive(Clone, Default)]
pub struct Domains {
    /// Topology spread constraints.
    pub spread: SpreadDomains,
    /// Affinity and anti-affinity.
    pub affinity: AffinityDomains,
}

impl Domains {
    /// Counts a pod on `node` that comes or goes, for the pod `own`.
    pub fn change(
        &mut self,
        own: &Needs,
        placed: &Needs,
        node: &NodeProperties,
        step: CountChange,
        known: &NamespaceLabels,
    ) {
        self.spread.change(own, placed, node, step);
        self.affinity.change(&own.neighbours, &placed.neighbours, &node.labels, step, known);
    }

    /// Whether a node with these labels is out of the question whatever pods end there: it is in no domain that counts,
    /// or lacks the neighbours that are wanted.
    pub fn is_hopeless(&self, labels: &Labels) -> bool {
        self.spread.is_hopeless(labels) || !self.affinity.has_wanted(labels)
    }

    /// Why a node with these labels is out of the question.
    pub fn refusal(&self, labels: &Labels) -> Option<Refusal> {
        let by = |plugin: Plugin| move |reason: &'static str| Refusal::new(plugin, reason);
        let spread = self.spread.refusal(labels).map(by(Plugin::PodTopologySpread));
        spread.or_else(|| self.affinity.refusal(labels).map(by(Plugin::InterPodAffinity)))
    }

    /// As [`Self::refusal`], without the words.
    pub fn admits(&self, labels: &Labels) -> bool {
        self.spread.refusal(labels).is_none() && self.affinity.refusal(labels).is_none()
    }
}
