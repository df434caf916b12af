//! What a pod requires of other pods: affinity, anti-affinity and topology spread, over the domains that node labels
//! form.
//!
//! Only pods with such rules pay for it: the placed pods are counted once per attempt, then each node is a look-up.

mod domains;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::{
    api::core::v1::{Pod, PodAffinityTerm, PodSpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use kube::core::{Selector, SelectorExt};

pub use self::domains::{Domains, Placed};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;
/// The labels of each namespace.
pub type NamespaceLabels = HashMap<String, Labels>;

/// A set of pods, and the node label whose values form the topology domains in which they are counted.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    /// `None` selects nothing, as an absent selector does.
    selector: Option<Selector>,
    /// Namespaces whose pods count, by name.
    namespaces: Vec<String>,
    /// Namespaces whose pods count as well, by their labels.
    namespace_selector: Option<Selector>,
    topology_key: String,
}

/// No domain may have more than `max_skew` pods more than the one with the fewest.
#[derive(Clone, Debug, PartialEq)]
struct Spread {
    term: Term,
    max_skew: i64,
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
    spread: Vec<Spread>,
}

impl Neighbours {
    /// Reads a pod's rules and labels.
    pub fn of(pod: &Pod) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let Some(spec) = &pod.spec else { return Self { namespace, labels, ..Default::default() } };
        let affinity = spec.affinity.as_ref();
        let wanted = affinity.and_then(|a| a.pod_affinity.as_ref());
        let wanted = wanted.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref());
        let unwanted = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let unwanted = unwanted.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref());
        let terms = |terms: Option<&[PodAffinityTerm]>| -> Vec<Term> {
            terms.unwrap_or_default().iter().map(|term| Term::read(term, &namespace, &labels)).collect()
        };
        Self {
            wanted: terms(wanted),
            unwanted: terms(unwanted),
            spread: spread(spec, &namespace, &labels),
            namespace,
            labels,
        }
    }

    /// Whether the pod has rules about others.
    pub fn has_rules(&self) -> bool {
        !(self.wanted.is_empty() && self.unwanted.is_empty() && self.spread.is_empty())
    }

    /// Whether the labels of namespaces decide where the pod can run.
    pub fn selects_namespaces(&self) -> bool {
        self.wanted.iter().chain(&self.unwanted).any(|term| term.namespace_selector.is_some())
    }

    /// Whether a pod that was just placed may be what this one waited for.
    pub fn is_helped_by(&self, placed: &Self, known: &NamespaceLabels) -> bool {
        self.wanted.iter().chain(self.spread.iter().map(|spread| &spread.term)).any(|term| term.selects(placed, known))
    }

    /// Whether a pod that just ended may have been in the way of this one.
    pub fn is_freed_by(&self, ended: &Self, known: &NamespaceLabels) -> bool {
        self.unwanted.iter().chain(self.spread.iter().map(|spread| &spread.term)).any(|term| term.selects(ended, known))
    }

    /// The namespaces whose pods matter to this one; `None` is all of them.
    pub fn namespaces<'n>(&'n self, known: &'n NamespaceLabels) -> Option<BTreeSet<&'n str>> {
        let terms = self.wanted.iter().chain(&self.unwanted).chain(self.spread.iter().map(|spread| &spread.term));
        let mut namespaces = BTreeSet::new();
        for term in terms {
            namespaces.extend(term.namespaces.iter().map(String::as_str));
            if let Some(selector) = &term.namespace_selector {
                if selector.selects_all() {
                    return None;
                }
                let selected = known.iter().filter(|(_, labels)| selector.matches(labels));
                namespaces.extend(selected.map(|(name, _)| name.as_str()));
            }
        }
        Some(namespaces)
    }

    /// Whether the pod has required anti-affinity, which keeps matching pods away.
    pub fn has_anti_affinity(&self) -> bool {
        !self.unwanted.is_empty()
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

    fn selects(&self, other: &Neighbours, known: &NamespaceLabels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
            && (self.namespaces.contains(&other.namespace) || self.selects_namespace(&other.namespace, known))
    }

    fn selects_namespace(&self, namespace: &str, known: &NamespaceLabels) -> bool {
        let matches = |selector: &Selector| known.get(namespace).is_some_and(|labels| selector.matches(labels));
        self.namespace_selector.as_ref().is_some_and(|selector| selector.selects_all() || matches(selector))
    }
}

/// Only constraints that must hold (`DoNotSchedule`); the others are left to the score, which spreads pods anyway.
fn spread(spec: &PodSpec, namespace: &str, labels: &Labels) -> Vec<Spread> {
    let constraints = spec.topology_spread_constraints.iter().flatten();
    let hard = constraints.filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule");
    hard.map(|constraint| {
        let mut selector = constraint.label_selector.clone();
        with_own_labels(&mut selector, constraint.match_label_keys.as_deref(), "In", labels);
        let term = Term {
            selector: selector.and_then(|s| s.try_into().ok()),
            namespaces: vec![namespace.to_owned()],
            namespace_selector: None,
            topology_key: constraint.topology_key.clone(),
        };
        Spread { term, max_skew: constraint.max_skew.into() }
    })
    .collect()
}

/// `matchLabelKeys` (operator `In`) and `mismatchLabelKeys` (`NotIn`): the pod's own values of these labels are part of
/// the selector.
fn with_own_labels(selector: &mut Option<LabelSelector>, keys: Option<&[String]>, operator: &str, labels: &Labels) {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn namespaces() -> NamespaceLabels {
        let labels = |team: &str| Labels::from([("team".to_owned(), team.to_owned())]);
        [("default".to_owned(), labels("a")), ("other".to_owned(), labels("b"))].into()
    }

    fn neighbours(app: &str, spec: Value) -> Neighbours {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod = json!({"metadata": {"name": "p", "namespace": "default", "labels": {"app": app}}, "spec": spec});
        Neighbours::of(&serde_json::from_value(pod).expect("a valid pod"))
    }

    fn term(app: &str, key: &str) -> Value {
        json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
    }

    fn required(kind: &str, term: Value) -> Value {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    }

    fn node(zone: &str) -> Labels {
        [("zone".to_owned(), zone.to_owned())].into()
    }

    /// Why `pod` is refused in zones a and b, given where other pods are placed.
    fn refusals(pod: &Neighbours, placed: &[(&Neighbours, &str)]) -> (Option<&'static str>, Option<&'static str>) {
        let (a, b) = (node("a"), node("b"));
        let placed = placed
            .iter()
            .map(|(neighbours, zone)| Placed { neighbours, node_labels: if *zone == "a" { &a } else { &b } });
        let domains = pod.domains(placed, [&a, &b].into_iter(), &namespaces());
        (domains.refusal(&a), domains.refusal(&b))
    }

    #[test]
    fn anti_affinity_keeps_both_apart_whoever_came_first() {
        let loner = neighbours("web", required("podAntiAffinity", term("web", "zone")));
        let plain = neighbours("web", json!({}));
        assert_eq!(refusals(&loner, &[(&plain, "a")]), (Some("node(s) didn't match pod anti-affinity rules"), None));
        let expected = (Some("node(s) didn't satisfy existing pods anti-affinity rules"), None);
        assert_eq!(refusals(&plain, &[(&loner, "a")]), expected);
        assert_eq!(refusals(&neighbours("other", json!({})), &[(&loner, "a")]), (None, None));
    }

    #[test]
    fn affinity_follows_and_the_first_of_a_group_starts_anywhere() {
        let follower = neighbours("web", required("podAffinity", term("db", "zone")));
        let none = Some("node(s) didn't match pod affinity rules");
        assert_eq!(refusals(&follower, &[]), (none, none));
        assert_eq!(refusals(&follower, &[(&neighbours("db", json!({})), "b")]), (none, None));
        let herd = neighbours("web", required("podAffinity", term("web", "zone")));
        assert_eq!(refusals(&herd, &[]), (None, None));
        assert_eq!(refusals(&herd, &[(&herd, "a")]), (None, none));
    }

    #[test]
    fn a_hard_spread_allows_no_more_than_its_skew() {
        let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
        let pod = neighbours("web", spread);
        assert_eq!(refusals(&pod, &[]), (None, None));
        assert_eq!(
            refusals(&pod, &[(&pod, "a")]),
            (Some("node(s) didn't match pod topology spread constraints"), None)
        );
        assert_eq!(refusals(&pod, &[(&pod, "a"), (&pod, "b")]), (None, None));
        let domains = pod.domains(std::iter::empty(), std::iter::empty(), &namespaces());
        assert!(domains.refusal(&Labels::new()).is_some_and(|why| why.ends_with("(missing required label)")));
    }

    #[test]
    fn namespaces_are_named_or_selected_by_their_labels() {
        let (a, b) = (node("a"), node("b"));
        let placed = Neighbours { namespace: "other".into(), ..neighbours("db", json!({})) };
        for (more, is_found) in [
            (json!({}), false),
            (json!({ "namespaces": ["other"] }), true),
            (json!({ "namespaceSelector": {} }), true),
            (json!({ "namespaceSelector": { "matchLabels": { "team": "b" } } }), true),
            (json!({ "namespaceSelector": { "matchLabels": { "team": "a" } } }), false),
            (json!({ "namespaceSelector": { "matchLabels": { "team": "a" } }, "namespaces": ["other"] }), true),
        ] {
            let mut wanted = term("db", "zone");
            wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let follower = neighbours("web", required("podAffinity", wanted));
            let known = namespaces();
            let counts = follower.namespaces(&known).is_none_or(|names| names.contains("other"));
            let placed = Placed { neighbours: &placed, node_labels: &a };
            let domains = follower.domains([placed].into_iter().filter(|_| counts), [&a, &b].into_iter(), &known);
            assert_eq!(domains.refusal(&a).is_none(), is_found, "{more}");
        }
    }

    #[test]
    fn labels_that_must_match_or_differ_are_the_pods_own() {
        let spread_by = |keys: &str| {
            let mut apart = term("web", "zone");
            apart["labelSelector"] = json!({});
            apart[keys] = json!(["app"]);
            neighbours("web", required("podAntiAffinity", apart))
        };
        let (same, other) = (neighbours("web", json!({})), neighbours("db", json!({})));
        let apart = Some("node(s) didn't match pod anti-affinity rules");
        assert_eq!(refusals(&spread_by("matchLabelKeys"), &[(&same, "a"), (&other, "b")]), (apart, None));
        assert_eq!(refusals(&spread_by("mismatchLabelKeys"), &[(&same, "a"), (&other, "b")]), (None, apart));
    }
}
