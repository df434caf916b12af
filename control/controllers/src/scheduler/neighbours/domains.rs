//! Where other pods want a pod, and where they do not: counted by topology domain, so that a single pod can be thought
//! away or added without a look at all the others.

use std::collections::{BTreeMap, HashMap};

use super::{Labels, NamespaceLabels, Neighbours, Spread, Term};

/// One placed pod: its rules and labels, and where it runs.
pub struct Placed<'a> {
    /// The pod's rules and labels.
    pub neighbours: &'a Neighbours,
    /// Of its node: they say in which topology domains the pod is.
    pub node_labels: &'a Labels,
}

/// How many pods there are in each domain: by topology key and its value. Never 0.
type PodsByDomain = BTreeMap<String, HashMap<String, usize>>;

/// What the placed pods mean to one pod, by domain.
#[derive(Clone, Default)]
pub struct Domains {
    wanted: Vec<Wanted>,
    /// How many pods are in each domain that the pod does not want to share.
    unwanted: PodsByDomain,
    /// How many pods in each domain do not want to share it with the pod.
    unwelcome: PodsByDomain,
    spread: Vec<Counted>,
}

#[derive(Clone)]
struct Wanted {
    topology_key: String,
    found: HashMap<String, usize>,
    /// The pod selects itself: the first of such a group may be placed anywhere.
    itself: bool,
}

#[derive(Clone)]
struct Counted {
    topology_key: String,
    counts: HashMap<String, i64>,
    fewest: i64,
    max_skew: i64,
    /// 1 where the pod counts itself.
    own: i64,
}

/// Whether a pod comes or goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Comes,
    Goes,
}

impl Neighbours {
    /// Counts what is placed. `all` need only hold pods with anti-affinity where this pod has no rules; `nodes` are the
    /// labels of the nodes that the pod's own node affinity admits.
    pub fn domains<'a>(
        &self,
        all: impl Iterator<Item = Placed<'a>>,
        nodes: impl Iterator<Item = &'a Labels>,
        known: &NamespaceLabels,
    ) -> Domains {
        let wanted = self.wanted.iter().map(|term| Wanted {
            topology_key: term.topology_key.clone(),
            found: HashMap::new(),
            itself: term.selects(self, known),
        });
        let mut domains = Domains {
            wanted: wanted.collect(),
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
            domains.count(self, &placed, known, Step::Comes);
        }
        domains.settle();
        domains
    }
}

impl Domains {
    /// Counts one more pod, for the pod with the rules `own`.
    pub fn add(&mut self, own: &Neighbours, placed: &Placed, known: &NamespaceLabels) {
        self.count(own, placed, known, Step::Comes);
        self.settle();
    }

    /// Takes away a pod that was counted.
    pub fn remove(&mut self, own: &Neighbours, placed: &Placed, known: &NamespaceLabels) {
        self.count(own, placed, known, Step::Goes);
        self.settle();
    }

    fn count(&mut self, own: &Neighbours, placed: &Placed, known: &NamespaceLabels, step: Step) {
        let domain = |term: &Term| placed.node_labels.get(&term.topology_key);
        for (term, wanted) in own.wanted.iter().zip(&mut self.wanted) {
            if let Some(value) = domain(term).filter(|_| term.selects(placed.neighbours, known)) {
                change(&mut wanted.found, value, step);
            }
        }
        for term in own.unwanted.iter().filter(|term| term.selects(placed.neighbours, known)) {
            if let Some(value) = domain(term) {
                change(self.unwanted.entry(term.topology_key.clone()).or_default(), value, step);
            }
        }
        for term in placed.neighbours.unwanted.iter().filter(|term| term.selects(own, known)) {
            if let Some(value) = domain(term) {
                change(self.unwelcome.entry(term.topology_key.clone()).or_default(), value, step);
            }
        }
        for (spread, counted) in own.spread.iter().zip(&mut self.spread) {
            if spread.term.selects(placed.neighbours, known)
                && let Some(count) =
                    placed.node_labels.get(&counted.topology_key).and_then(|d| counted.counts.get_mut(d))
            {
                *count = count.saturating_add(if step == Step::Comes { 1 } else { -1 });
            }
        }
    }

    fn settle(&mut self) {
        for counted in &mut self.spread {
            counted.fewest = counted.counts.values().copied().min().unwrap_or(0);
        }
    }

    /// Whether a node with these labels is out of the question whatever pods end there: it is in no domain that counts,
    /// or lacks the neighbours that are wanted.
    pub fn is_hopeless(&self, labels: &Labels) -> bool {
        self.spread.iter().any(|counted| !labels.contains_key(&counted.topology_key)) || !self.has_wanted(labels)
    }

    fn has_wanted(&self, labels: &Labels) -> bool {
        self.wanted.iter().all(|wanted| {
            let starts = wanted.itself && wanted.found.is_empty();
            labels.get(&wanted.topology_key).is_some_and(|domain| starts || wanted.found.contains_key(domain))
        })
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
        if !self.has_wanted(labels) {
            return Some("node(s) didn't match pod affinity rules");
        }
        let within = |pods: &PodsByDomain| {
            pods.iter().any(|(key, values)| labels.get(key).is_some_and(|value| values.contains_key(value)))
        };
        if within(&self.unwanted) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        within(&self.unwelcome).then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }
}

/// Entries stay above zero.
fn change(counts: &mut HashMap<String, usize>, value: &str, step: Step) {
    match (step, counts.get_mut(value)) {
        (Step::Comes, Some(count)) => *count = count.saturating_add(1),
        (Step::Comes, None) => {
            counts.insert(value.to_owned(), 1);
        }
        (Step::Goes, Some(count)) if *count > 1 => *count -= 1,
        (Step::Goes, _) => {
            counts.remove(value);
        }
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
