//! How many placed pods the selectors of pods match, by node: counted once, then kept as pods come and go, so that an
//! attempt costs by nodes, not by pods.

use std::collections::{BTreeSet, HashMap};

use kube::core::{Selector, SelectorExt};

use super::pod::Needs;

/// Most sets that are kept; the one that was not asked for longest makes room.
const KEPT_SETS: usize = 1024;

/// Namespaces whose pods count.
#[derive(Clone, Debug, PartialEq)]
pub enum Scope {
    /// Every namespace.
    All,
    /// Those of these names.
    Names(BTreeSet<String>),
}

/// Those pods that all clauses select.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSet {
    clauses: Vec<(Scope, Selector)>,
    /// Equal for equal clauses.
    key: String,
}

/// How many pods of a set a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchCount {
    /// All of them.
    pub all: i64,
    /// Those that are not terminating: only they are spread.
    pub live: i64,
}

/// The nodes that have pods of a set, by their position in the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeCounts {
    nodes: HashMap<usize, MatchCount>,
}

/// The sets that were asked for lately.
#[derive(Default)]
pub struct MatchCounts {
    sets: HashMap<String, KeptSet>,
    asked: u64,
}

struct KeptSet {
    set: PodSet,
    counts: NodeCounts,
    /// The higher, the later.
    asked_at: u64,
}

/// Whether a pod comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountChange {
    /// It is placed.
    Comes,
    /// It leaves its node.
    Goes,
}

impl CountChange {
    /// 1 or -1.
    pub fn sign(self) -> i64 {
        match self {
            Self::Comes => 1,
            Self::Goes => -1,
        }
    }
}

impl Scope {
    /// One namespace.
    pub fn one(namespace: &str) -> Self {
        Self::Names(BTreeSet::from([namespace.to_owned()]))
    }

    fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(namespace),
        }
    }

    /// `*` is no namespace's name.
    fn key(&self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::Names(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        }
    }
}

impl PodSet {
    /// The pods that each clause selects.
    pub fn new(clauses: Vec<(Scope, Selector)>) -> Self {
        let key = clauses.iter().map(|(scope, selector)| format!("{}/{selector};", scope.key())).collect();
        Self { clauses, key }
    }

    /// The namespaces in which its pods can be; `None` is all of them.
    pub fn namespaces(&self) -> Option<&BTreeSet<String>> {
        self.clauses.iter().find_map(|(scope, _)| match scope {
            Scope::All => None,
            Scope::Names(names) => Some(names),
        })
    }

    fn contains(&self, pod: &Needs) -> bool {
        let own = &pod.neighbours;
        self.clauses.iter().all(|(scope, selector)| scope.contains(&own.namespace) && selector.matches(&own.labels))
    }
}

impl NodeCounts {
    /// Counts those of `pods` that are in `set`.
    pub fn of<'p>(set: &PodSet, pods: impl Iterator<Item = (usize, &'p Needs)>) -> Self {
        let mut counts = Self::default();
        pods.filter(|(_, pod)| set.contains(pod)).for_each(|(node, pod)| counts.change(node, pod, CountChange::Comes));
        counts
    }

    /// The pods on one node.
    pub fn on(&self, node: usize) -> MatchCount {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    /// The nodes that have any.
    pub fn iter(&self) -> impl Iterator<Item = (usize, MatchCount)> {
        self.nodes.iter().map(|(node, count)| (*node, *count))
    }

    fn change(&mut self, node: usize, pod: &Needs, step: CountChange) {
        let count = self.nodes.entry(node).or_default();
        count.all = count.all.saturating_add(step.sign());
        if !pod.terminating {
            count.live = count.live.saturating_add(step.sign());
        }
        if count.all <= 0 {
            self.nodes.remove(&node);
        }
    }
}

impl MatchCounts {
    /// The counts of a set, if they are kept.
    pub fn get(&self, set: &PodSet) -> Option<&NodeCounts> {
        self.sets.get(&set.key).map(|kept| &kept.counts)
    }

    /// Notes that a set is asked for. Returns whether it is kept.
    pub fn ask(&mut self, set: &PodSet) -> bool {
        self.asked = self.asked.saturating_add(1);
        let Some(kept) = self.sets.get_mut(&set.key) else { return false };
        kept.asked_at = self.asked;
        true
    }

    /// Keeps the counts of a set from now on.
    pub fn keep(&mut self, set: PodSet, counts: NodeCounts) {
        if self.sets.len() >= KEPT_SETS {
            let longest = self.sets.iter().min_by_key(|(_, kept)| kept.asked_at).map(|(key, _)| key.clone());
            longest.and_then(|key| self.sets.remove(&key));
        }
        self.sets.insert(set.key.clone(), KeptSet { set, counts, asked_at: self.asked });
    }

    /// Counts a pod that comes or goes.
    pub fn change(&mut self, node: usize, pod: &Needs, step: CountChange) {
        for kept in self.sets.values_mut().filter(|kept| kept.set.contains(pod)) {
            kept.counts.change(node, pod, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::neighbours::Neighbours;

    fn pod(namespace: &str, app: &str, terminating: bool) -> Needs {
        let pod = serde_json::json!({"metadata": {"namespace": namespace, "labels": {"app": app}}});
        let neighbours = Neighbours::of(&serde_json::from_value(pod).expect("a valid pod"));
        Needs { neighbours, terminating, ..Default::default() }
    }

    fn set(scope: Scope, app: &str) -> PodSet {
        PodSet::new(vec![(scope, [("app".to_owned(), app.to_owned())].into_iter().collect())])
    }

    #[test]
    fn kept_counts_are_those_of_a_fresh_count() {
        let (web, all) = (set(Scope::one("a"), "web"), set(Scope::All, "web"));
        let mut kept = MatchCounts::default();
        let mut placed = vec![(0, pod("a", "web", false)), (1, pod("b", "web", false))];
        let fresh = |set: &PodSet, placed: &[(usize, Needs)]| NodeCounts::of(set, placed.iter().map(|(n, p)| (*n, p)));
        for set in [&web, &all] {
            assert!(!kept.ask(set));
            kept.keep(set.clone(), fresh(set, &placed));
            assert!(kept.ask(set));
        }
        for new in [(1, pod("a", "web", true)), (1, pod("a", "db", false)), (2, pod("a", "web", false))] {
            kept.change(new.0, &new.1, CountChange::Comes);
            placed.push(new);
        }
        let (node, gone) = placed.remove(0);
        kept.change(node, &gone, CountChange::Goes);
        for set in [&web, &all] {
            assert_eq!(kept.get(set), Some(&fresh(set, &placed)));
        }
        let counts = kept.get(&web).expect("kept");
        assert_eq!((counts.on(0), counts.on(1)), (MatchCount::default(), MatchCount { all: 1, live: 0 }));
    }

    #[test]
    fn the_set_that_was_not_asked_for_longest_makes_room() {
        let mut kept = MatchCounts::default();
        let sets: Vec<PodSet> = (0..=KEPT_SETS).map(|n| set(Scope::All, &n.to_string())).collect();
        for set in &sets {
            kept.ask(set);
            kept.keep(set.clone(), NodeCounts::default());
            kept.ask(&sets[0]);
        }
        assert_eq!(kept.sets.len(), KEPT_SETS);
        assert!(kept.get(&sets[0]).is_some() && kept.get(&sets[1]).is_none() && kept.get(&sets[2]).is_some());
    }
}
