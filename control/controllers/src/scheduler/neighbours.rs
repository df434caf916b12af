//! What a pod requires of other pods: affinity, anti-affinity and topology spread, over the domains that node labels
//! form.
//!
//! Only pods with such rules pay for it: the placed pods are counted once per attempt, then each node is a look-up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec};
use kube::core::{Selector, SelectorExt};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A set of pods, and the node label whose values form the topology domains in which they are counted.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    /// `None` selects nothing, as an absent selector does.
    selector: Option<Selector>,
    /// Namespaces whose pods count; `None` is all of them.
    namespaces: Option<Vec<String>>,
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

    /// Whether a pod that was just placed may be what this one waited for.
    pub fn is_helped_by(&self, placed: &Self) -> bool {
        self.wanted.iter().chain(self.spread.iter().map(|spread| &spread.term)).any(|term| term.selects(placed))
    }

    /// Whether a pod that just ended may have been in the way of this one.
    pub fn is_freed_by(&self, ended: &Self) -> bool {
        self.unwanted.iter().chain(self.spread.iter().map(|spread| &spread.term)).any(|term| term.selects(ended))
    }

    /// The namespaces whose pods matter to this one; `None` is all of them.
    pub fn namespaces(&self) -> Option<BTreeSet<&str>> {
        let terms = self.wanted.iter().chain(&self.unwanted).chain(self.spread.iter().map(|spread| &spread.term));
        let mut namespaces = BTreeSet::new();
        for term in terms {
            namespaces.extend(term.namespaces.as_ref()?.iter().map(String::as_str));
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
    ) -> Domains {
        let mut domains = Domains {
            wanted: self.wanted.iter().map(|term| (term.topology_key.clone(), HashSet::new())).collect(),
            spread: self.spread.iter().map(|spread| Counted::new(spread, self)).collect(),
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
            self.count(&placed, &mut domains);
        }
        for (term, (_, found)) in self.wanted.iter().zip(&mut domains.wanted) {
            // The first pod of a group whose affinity selects itself may be placed anywhere.
            if found.is_empty() && term.selects(self) {
                found.insert(String::new());
            }
        }
        for counted in &mut domains.spread {
            counted.fewest = counted.counts.values().copied().min().unwrap_or(0);
        }
        domains
    }

    fn count(&self, placed: &Placed, domains: &mut Domains) {
        let domain = |key: &str| placed.node_labels.get(key).map(|value| (key.to_owned(), value.clone()));
        for (term, (_, found)) in self.wanted.iter().zip(&mut domains.wanted) {
            if term.selects(placed.neighbours)
                && let Some((_, value)) = domain(&term.topology_key)
            {
                found.insert(value);
            }
        }
        let unwanted = self.unwanted.iter().filter(|term| term.selects(placed.neighbours));
        domains.unwanted.extend(unwanted.filter_map(|term| domain(&term.topology_key)));
        let unwelcome = placed.neighbours.unwanted.iter().filter(|term| term.selects(self));
        domains.unwelcome.extend(unwelcome.filter_map(|term| domain(&term.topology_key)));
        for (spread, counted) in self.spread.iter().zip(&mut domains.spread) {
            if spread.term.selects(placed.neighbours)
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
        let named = term.namespaces.clone().unwrap_or_default();
        // An empty namespace selector is all namespaces. One that names labels is not known here, and counts its own
        // namespace.
        let everywhere = term.namespace_selector.as_ref().is_some_and(|s| {
            s.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
                && s.match_expressions.as_ref().is_none_or(Vec::is_empty)
        });
        let namespaces = match (everywhere, named.is_empty()) {
            (true, _) => None,
            (false, true) => Some(vec![own_namespace.to_owned()]),
            (false, false) => Some(named),
        };
        let mut selector = term.label_selector.clone();
        with_own_labels(&mut selector, term.match_label_keys.as_deref(), own_labels);
        Self { selector: selector.and_then(|s| s.try_into().ok()), namespaces, topology_key: term.topology_key.clone() }
    }

    fn selects(&self, other: &Neighbours) -> bool {
        self.namespaces.as_ref().is_none_or(|namespaces| namespaces.contains(&other.namespace))
            && self.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
    }
}

/// Only constraints that must hold (`DoNotSchedule`); the others are left to the score, which spreads pods anyway.
fn spread(spec: &PodSpec, namespace: &str, labels: &Labels) -> Vec<Spread> {
    let constraints = spec.topology_spread_constraints.iter().flatten();
    let hard = constraints.filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule");
    hard.map(|constraint| {
        let mut selector = constraint.label_selector.clone();
        with_own_labels(&mut selector, constraint.match_label_keys.as_deref(), labels);
        let term = Term {
            selector: selector.and_then(|s| s.try_into().ok()),
            namespaces: Some(vec![namespace.to_owned()]),
            topology_key: constraint.topology_key.clone(),
        };
        Spread { term, max_skew: constraint.max_skew.into() }
    })
    .collect()
}

/// `matchLabelKeys`: the pod's own values of these labels are part of the selector.
fn with_own_labels(
    selector: &mut Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    keys: Option<&[String]>,
    labels: &Labels,
) {
    let Some(selector) = selector else { return };
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
}

impl Counted {
    fn new(spread: &Spread, own: &Neighbours) -> Self {
        Self {
            topology_key: spread.term.topology_key.clone(),
            counts: HashMap::new(),
            fewest: 0,
            max_skew: spread.max_skew,
            own: i64::from(spread.term.selects(own)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
        let domains = pod.domains(placed, [&a, &b].into_iter());
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
        let domains = pod.domains(std::iter::empty(), std::iter::empty());
        assert!(domains.refusal(&Labels::new()).is_some_and(|why| why.ends_with("(missing required label)")));
    }
}
