//! What a pod requires of other pods, or prefers: affinity and anti-affinity over the domains that node labels form.
//!
//! Placed pods are counted by node as they come and go, those that a rule selects ([`super::matching`]) as well as
//! those that have rules of their own ([`PlacedTerms`]): an attempt costs by nodes and by rules, not by pods. Source:
//! kube-scheduler's `InterPodAffinity`.

mod domains;
mod placed_terms;
mod score;

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::{
    api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use kube::core::{Selector, SelectorExt};

pub use self::{
    domains::{AffinityDomains, SelectedPods},
    placed_terms::PlacedTerms,
    score::scores,
};
use super::matching::{PodSet, Scope};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;
/// The labels of each namespace.
pub type NamespaceLabels = HashMap<String, Labels>;

/// A set of pods, and the node label whose values form the topology domains in which they are counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// `None` selects nothing, as an absent selector does.
    selector: Option<Selector>,
    /// Namespaces whose pods count, by name.
    namespaces: Vec<String>,
    /// Namespaces whose pods count as well, by their labels.
    namespace_selector: Option<Selector>,
    topology_key: String,
}

/// A pod's rules about other pods, and what the rules of others select it by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbours {
    /// Of the pod: rules without namespaces mean this one.
    pub namespace: String,
    /// Of the pod.
    pub labels: Labels,
    wanted: Vec<Term>,
    unwanted: Vec<Term>,
    /// What is preferred, by weight; what is preferred not to be has a negative one.
    preferred: Vec<(i64, Term)>,
}

impl Neighbours {
    /// Reads a pod's rules and labels.
    pub fn of(pod: &Pod) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let (towards, apart) =
            (affinity.and_then(|a| a.pod_affinity.as_ref()), affinity.and_then(|a| a.pod_anti_affinity.as_ref()));
        let required = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms.into_iter().flatten().map(|term| Term::read(term, &namespace, &labels)).collect()
        };
        let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| -> Vec<(i64, Term)> {
            let weighted = |weighted: &WeightedPodAffinityTerm| {
                let weight = i64::from(weighted.weight).saturating_mul(sign);
                (weight, Term::read(&weighted.pod_affinity_term, &namespace, &labels))
            };
            terms.into_iter().flatten().map(weighted).collect()
        };
        let mut weighed =
            preferred(towards.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1);
        weighed
            .extend(preferred(apart.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), -1));
        Self {
            wanted: required(towards.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            unwanted: required(apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred: weighed,
            namespace,
            labels,
        }
    }

    /// Whether the pod has rules that must hold.
    pub fn has_rules(&self) -> bool {
        !(self.wanted.is_empty() && self.unwanted.is_empty())
    }

    /// Whether the labels of namespaces decide where the pod can run.
    pub fn selects_namespaces(&self) -> bool {
        self.wanted.iter().chain(&self.unwanted).any(|term| term.namespace_selector.is_some())
    }

    /// Whether required affinity looks for `other`: all terms select it.
    pub fn has_wanted(&self, other: &Self, known: &NamespaceLabels) -> bool {
        !self.wanted.is_empty() && self.wants(other, known)
    }

    /// Whether required anti-affinity avoids `other`.
    pub fn avoids(&self, other: &Self, known: &NamespaceLabels) -> bool {
        self.unwanted.iter().any(|term| term.selects(other, known))
    }

    /// Whether the pod has required anti-affinity, which keeps matching pods away.
    pub fn has_anti_affinity(&self) -> bool {
        !self.unwanted.is_empty()
    }

    /// The pods that all required affinity of this one selects. `None` where there is none, or a term selects nothing.
    pub fn wanted_set(&self, known: &NamespaceLabels) -> Option<PodSet> {
        let clauses: Option<Vec<_>> = self.wanted.iter().map(|term| term.clause(known)).collect();
        clauses.filter(|clauses| !clauses.is_empty()).map(PodSet::new)
    }

    /// The pods that each term of required anti-affinity selects.
    pub fn unwanted_sets(&self, known: &NamespaceLabels) -> Vec<Option<PodSet>> {
        self.unwanted.iter().map(|term| term.set(known)).collect()
    }

    /// The pods that each preference selects.
    pub fn preferred_sets(&self, known: &NamespaceLabels) -> Vec<Option<PodSet>> {
        self.preferred.iter().map(|(_, term)| term.set(known)).collect()
    }

    /// Whether all required affinity selects `other`.
    fn wants(&self, other: &Self, known: &NamespaceLabels) -> bool {
        self.wanted.iter().all(|term| term.selects(other, known))
    }
}

impl Term {
    fn read(term: &PodAffinityTerm, own_namespace: &str, own_labels: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        let namespace_selector: Option<Selector> = term.namespace_selector.clone().and_then(|s| s.try_into().ok());
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(own_namespace.to_owned());
        }
        let mut selector = term.label_selector.clone();
        with_own_labels(&mut selector, term.match_label_keys.as_deref(), "In", own_labels);
        with_own_labels(&mut selector, term.mismatch_label_keys.as_deref(), "NotIn", own_labels);
        let selector = selector.and_then(|s| s.try_into().ok());
        Self { selector, namespaces, namespace_selector, topology_key: term.topology_key.clone() }
    }

    /// Whether the pod is one that counts.
    fn selects(&self, other: &Neighbours, known: &NamespaceLabels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
            && (self.namespaces.contains(&other.namespace) || self.selects_namespace(&other.namespace, known))
    }

    fn selects_namespace(&self, namespace: &str, known: &NamespaceLabels) -> bool {
        let matches = |selector: &Selector| known.get(namespace).is_some_and(|labels| selector.matches(labels));
        self.namespace_selector.as_ref().is_some_and(|selector| selector.selects_all() || matches(selector))
    }

    fn set(&self, known: &NamespaceLabels) -> Option<PodSet> {
        Some(PodSet::new(vec![self.clause(known)?]))
    }

    /// The pods that count, with the namespaces as they are labelled now.
    fn clause(&self, known: &NamespaceLabels) -> Option<(Scope, Selector)> {
        let selector = self.selector.clone()?;
        if self.namespace_selector.as_ref().is_some_and(Selector::selects_all) {
            return Some((Scope::All, selector));
        }
        let selects = |name: &&String| self.namespace_selector.is_some() && self.selects_namespace(name, known);
        let selected = known.keys().filter(selects);
        Some((Scope::Names(self.namespaces.iter().chain(selected).cloned().collect()), selector))
    }
}

/// `matchLabelKeys` (operator `In`) and `mismatchLabelKeys` (`NotIn`): the pod's own values of these labels are part of
/// the selector.
pub fn with_own_labels(selector: &mut Option<LabelSelector>, keys: Option<&[String]>, operator: &str, labels: &Labels) {
    let Some(selector) = selector else { return };
    let own = keys.unwrap_or_default().iter().filter_map(|key| Some((key, labels.get(key)?)));
    for (key, value) in own {
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        });
    }
}
