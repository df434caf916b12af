//! What a pod requires of other pods: affinity, anti-affinity and topology spread, over the domains that node labels
//! form.
//!
//! Only pods with such rules pay for it: the placed pods are counted once per attempt, then each node is a look-up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use k8s_openapi::{
    api::core::v1::{Pod, PodAffinityTerm, PodSpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use kube::core::{Selector, SelectorExt};

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

/// One placed pod: its rules and labels, and where it runs.
pub struct Placed<'a> {
    /// The pod's rules and labels.
    pub neighbours: &'a Neighbours,
    /// Of its node: they say in which topology domains the pod is.
    pub node_labels: &'a Labels,
}

/// The domains that a pod must be placed in, and those it must not.
#[derive(Default)]
pub struct Domains {
    wanted: Vec<(String, HashSet<String>)>,
    unwanted: HashSet<(String, String)>,
    /// Domains that pods placed before do not want this one in.
    unwelcome: HashSet<(String, String)>,
    spread: Vec<Counted>,
}

struct Counted {
    topology_key: String,
    counts: HashMap<String, i64>,
    fewest: i64,
    max_skew: i64,
    /// 1 where the pod counts itself.
    own: i64,
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

    /// Counts what is placed. `all` need only hold pods with anti-affinity where this pod has no rules; `nodes` are the
    /// labels of the nodes that the pod's own node affinity admits.
    pub fn domains<'a>(
        &self,
        all: impl Iterator<Item = Placed<'a>>,
        nodes: impl Iterator<Item = &'a Labels>,
        known: &NamespaceLabels,
    ) -> Domains {
        let mut domains = Domains {
            wanted: self.wanted.iter().map(|term| (term.topology_key.clone(), HashSet::new())).collect(),
            spread: self.spread.iter().map(|spread| Counted::new(spread, self, known)).collect(),
            ..Default::default()
        };
        for labels in nodes {
            for counted in &mut domains.spread {
                if let Some(domain) = labels.get(&counted.topology_key) {
                    counted.counts.entry(domain.clone()).or_insert(0);
                }
            }
        }
        for placed in all {
            self.count(&placed, &mut domains, known);
        }
        for (term, (_, found)) in self.wanted.iter().zip(&mut domains.wanted) {
            // The first pod of a group whose affinity selects itself may be placed anywhere.
            if found.is_empty() && term.selects(self, known) {
                found.insert(String::new());
            }
        }
        for counted in &mut domains.spread {
            counted.fewest = counted.counts.values().copied().min().unwrap_or(0);
        }
        domains
    }

    fn count(&self, placed: &Placed, domains: &mut Domains, known: &NamespaceLabels) {
        let domain = |key: &str| placed.node_labels.get(key).map(|value| (key.to_owned(), value.clone()));
        for (term, (_, found)) in self.wanted.iter().zip(&mut domains.wanted) {
            if term.selects(placed.neighbours, known)
                && let Some((_, value)) = domain(&term.topology_key)
            {
                found.insert(value);
            }
        }
        let unwanted = self.unwanted.iter().filter(|term| term.selects(placed.neighbours, known));
        domains.unwanted.extend(unwanted.filter_map(|term| domain(&term.topology_key)));
        let unwelcome = placed.neighbours.unwanted.iter().filter(|term| term.selects(self, known));
        domains.unwelcome.extend(unwelcome.filter_map(|term| domain(&term.topology_key)));
        for (spread, counted) in self.spread.iter().zip(&mut domains.spread) {
            if spread.term.selects(placed.neighbours, known)
                && let Some(count) =
                    placed.node_labels.get(&counted.topology_key).and_then(|d| counted.counts.get_mut(d))
            {
                *count += 1;
            }
        }
    }
}

impl Domains {
    /// Whether a node with these labels is out of the question whatever pods end there: it is in no domain that counts,
    /// or lacks the neighbours that are wanted.
    pub fn is_hopeless(&self, labels: &Labels) -> bool {
        self.spread.iter().any(|counted| !labels.contains_key(&counted.topology_key)) || !self.has_wanted(labels)
    }

    fn has_wanted(&self, labels: &Labels) -> bool {
        self.wanted
            .iter()
            .all(|(key, found)| labels.get(key).is_some_and(|domain| found.contains(domain) || found.contains("")))
    }

    /// Why a node with these labels is out of the question, in Kubernetes' words.
    pub fn refusal(&self, labels: &Labels) -> Option<&'static str> {
        for counted in &self.spread {
            let Some(domain) = labels.get(&counted.topology_key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let count = counted.counts.get(domain).copied().unwrap_or(0);
            if (count + counted.own).saturating_sub(counted.fewest) > counted.max_skew {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        let within = |set: &HashSet<(String, String)>| {
            set.iter().any(|(key, value)| labels.get(key).is_some_and(|own| own == value))
        };
        if !self.has_wanted(labels) {
            return Some("node(s) didn't match pod affinity rules");
        }
        if within(&self.unwanted) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        within(&self.unwelcome).then_some("node(s) didn't satisfy existing pods anti-affinity rules")
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

impl Counted {
    fn new(spread: &Spread, own: &Neighbours, known: &NamespaceLabels) -> Self {
        Self {
            topology_key: spread.term.topology_key.clone(),
            counts: HashMap::new(),
            fewest: 0,
            max_skew: spread.max_skew,
            own: i64::from(spread.term.selects(own, known)),
        }
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
