//! Which pods of lower priority make room for a pod that no node can take: pure.
//!
//! On each node where that could help, all pods of lower priority are thought away; then as many as possible get their
//! place back, those that a PodDisruptionBudget protects and the most important ones first. What is left are the node's
//! victims. The node whose victims matter least is taken. Source: kube-scheduler's `DefaultPreemption`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

use k8s_openapi::{
    api::{core::v1::Pod, policy::v1::PodDisruptionBudget},
    jiff::Timestamp,
};
use kube::core::{Selector, SelectorExt};

use super::{
    cluster::{Candidate, Cluster, Unschedulable},
    domains::Domains,
    filter::is_hopeless,
    matching::CountChange,
    node::NodeInfo,
    pod::Needs,
};
use crate::{engine::Key, objects::pod_state};

/// Fewest nodes that are tried in a large cluster; a tenth of its nodes if that is more. Source: `minCandidateNodes*`.
const FEWEST_NODES: usize = 100;
/// Reason of the condition that tells why a pod is deleted. Source: `PodReasonPreemptionByScheduler`.
pub const REASON: &str = "PreemptionByScheduler";

/// Pods that are deleted so that another has a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// Where the pod is to run.
    pub node: String,
    /// The most important first.
    pub victims: Vec<Victim>,
}

/// A pod that makes room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Tells it from a later one of the same name.
    pub uid: String,
    /// Namespace and name.
    pub key: Key,
    /// Its deletion is under way already.
    pub terminating: bool,
}

/// What of a running pod matters to those who would preempt it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningState {
    /// `status.startTime`.
    pub started_at: Option<Timestamp>,
    /// Its deletion is under way.
    pub terminating: bool,
    /// It is being deleted for another pod.
    pub preempted: bool,
}

impl RunningState {
    /// Reads a pod.
    pub fn of(pod: &Pod) -> Self {
        let terminating = pod_state::is_terminating(pod);
        let target = pod_state::condition(pod, "DisruptionTarget");
        Self {
            started_at: pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            terminating,
            preempted: terminating
                && target.is_some_and(|found| found.status == "True" && found.reason.as_deref() == Some(REASON)),
        }
    }
}

/// A PodDisruptionBudget: how many more of the pods it selects may be disrupted.
pub struct Budget {
    namespace: String,
    selector: Selector,
    allowed: i64,
    /// Names of pods that are disrupted already, and counted.
    disrupted: BTreeSet<String>,
}

impl Budget {
    /// Reads a budget; `None` where it selects nothing.
    pub fn read(budget: &PodDisruptionBudget) -> Option<Self> {
        let selector: Selector = budget.spec.as_ref()?.selector.clone()?.try_into().ok()?;
        let status = budget.status.as_ref();
        Some(Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: Some(selector).filter(|selector| !selector.selects_all())?,
            allowed: status.map_or(0, |status| status.disruptions_allowed.into()),
            disrupted: status
                .and_then(|s| s.disrupted_pods.as_ref())
                .into_iter()
                .flatten()
                .map(|(k, _)| k.clone())
                .collect(),
        })
    }

    fn counts(&self, pod: &Needs) -> bool {
        let own = &pod.neighbours;
        self.namespace == own.namespace
            && !own.labels.is_empty()
            && self.selector.matches(&own.labels)
            && !self.disrupted.contains(&pod.name)
    }
}

/// The parts of a decision that are not the cluster's.
pub struct Facts<'f> {
    /// All budgets; read only where somebody could be preempted.
    pub budgets: &'f dyn Deref<Target = Vec<Budget>>,
    /// How a placed pod fares.
    pub state_of: &'f dyn Fn(&Needs) -> RunningState,
}

/// Why nobody makes room for a pod, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPreemption {
    /// It preempts nobody, or did already and waits. A nomination holds.
    NotEligible(&'static str),
    /// Nothing would help: a nomination has lost its point.
    NoCandidates(String),
}

impl NoPreemption {
    /// As it stands in the pod's condition.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotEligible(reason) => reason,
            Self::NoCandidates(reason) => reason,
        }
    }
}

/// Decides who makes room for a pod.
pub fn decide(cluster: &Cluster, pod: Candidate, facts: &Facts) -> Result<Preemption, NoPreemption> {
    if !pod.needs.preempts {
        return Err(NoPreemption::NotEligible("not eligible due to preemptionPolicy=Never."));
    }
    if waits_for_victims(cluster, pod, facts) {
        return Err(NoPreemption::NotEligible("not eligible due to a terminating pod on the nominated node."));
    }
    let all = cluster.nodes().count();
    let domains = cluster.domains(pod.needs);
    let helpful = |node: &&NodeInfo| {
        !is_hopeless(pod.needs, node) && domains.as_ref().is_none_or(|domains| !domains.is_hopeless(&node.node.labels))
    };
    let wanted = (all / 10).max(FEWEST_NODES);
    let mut reasons = BTreeMap::new();
    let mut sacrifices = Vec::new();
    let mut tried = 0;
    for node in cluster.nodes().filter(helpful) {
        tried += 1;
        match sacrifice(cluster, pod, node, domains.as_ref(), facts) {
            Ok(sacrifice) => sacrifices.push(sacrifice),
            Err(refused) => refused.into_iter().for_each(|reason| *reasons.entry(reason).or_insert(0) += 1),
        }
        // One that breaks no budget must be among those that are enough.
        if sacrifices.len() >= wanted && sacrifices.iter().any(|sacrifice| sacrifice.violations == 0) {
            break;
        }
    }
    match sacrifices.into_iter().min_by_key(Sacrifice::cost) {
        Some(least) => {
            Ok(Preemption { node: least.node, victims: least.victims.into_iter().map(|v| v.victim).collect() })
        }
        None => {
            if tried < all {
                reasons.insert("Preemption is not helpful for scheduling".to_owned(), all - tried);
            }
            let refused = Unschedulable { nodes: all, reasons, ..Unschedulable::default() };
            Err(NoPreemption::NoCandidates(refused.message()))
        }
    }
}

/// Whether a pod on the node that `pod` is nominated to is already on its way out for it.
fn waits_for_victims(cluster: &Cluster, pod: Candidate, facts: &Facts) -> bool {
    let nominated = cluster.nominated().node_of(pod.uid).and_then(|name| cluster.node(name));
    nominated.filter(|node| !is_hopeless(pod.needs, node)).is_some_and(|node| {
        cluster
            .placed_on(node)
            .any(|(_, other)| other.priority < pod.needs.priority && (facts.state_of)(other).preempted)
    })
}

/// What it costs to give the pod one node.
struct Sacrifice {
    node: String,
    /// The most important first; never empty.
    victims: Vec<RankedVictim>,
    /// How many of them a budget protects.
    violations: usize,
}

struct RankedVictim {
    rank: Importance,
    victim: Victim,
}

/// Orders pods: the most important first. One that has run for longer is more important than another of its priority.
type Importance = (Reverse<i32>, Timestamp);

impl Sacrifice {
    /// Less is better. In this order: budgets broken, the highest priority among the victims, the sum of priorities
    /// (each counted from the lowest there is), the number of victims, how long the most important one ran.
    fn cost(&self) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
        let priority = |victim: &RankedVictim| victim.rank.0.0;
        let highest = self.victims.iter().map(priority).max().unwrap_or(i32::MIN);
        let from_zero = |priority: i32| i64::from(priority).saturating_add(i64::from(i32::MAX) + 1);
        let sum = self.victims.iter().fold(0i64, |sum, victim| sum.saturating_add(from_zero(priority(victim))));
        let earliest = self.victims.iter().filter(|v| priority(v) == highest).map(|v| v.rank.1).min();
        (self.violations, highest, sum, self.victims.len(), Reverse(earliest.unwrap_or(Timestamp::MIN)))
    }
}

/// Who would have to go from `node`, or why that would not help. `domains` are the cluster's as it is.
fn sacrifice(
    cluster: &Cluster,
    pod: Candidate,
    node: &NodeInfo,
    domains: Option<&Domains>,
    facts: &Facts,
) -> Result<Sacrifice, Vec<String>> {
    let nobody = || vec!["No preemption victims found for incoming pod".to_owned()];
    if !node.has_below(pod.needs.priority) {
        return Err(nobody());
    }
    let mut left = Left { cluster, pod, here: node, node: node.clone(), domains: domains.cloned() };
    let lower: Vec<(&str, &Needs)> =
        cluster.placed_on(node).filter(|(_, other)| other.priority < pod.needs.priority).collect();
    lower.iter().for_each(|(_, needs)| left.remove(needs));
    let refused = left.refusals();
    if !refused.is_empty() {
        return Err(refused);
    }
    let mut lower: Vec<Ranked> = lower
        .into_iter()
        .map(|(uid, needs)| {
            let state = (facts.state_of)(needs);
            ((Reverse(needs.priority), state.started_at.unwrap_or(Timestamp::MAX)), uid, needs, state)
        })
        .collect();
    lower.sort_by_key(|(rank, uid, ..)| (*rank, *uid));
    let (protected, others) = split_by_budgets(lower, facts.budgets);
    let mut victims = Vec::new();
    let mut violations = 0;
    let in_order = protected.into_iter().map(|pod| (pod, 1)).chain(others.into_iter().map(|pod| (pod, 0)));
    for ((rank, uid, needs, state), violated) in in_order {
        left.add(needs);
        if left.refusals().is_empty() {
            continue;
        }
        left.remove(needs);
        violations += violated;
        let key = Key::new(needs.neighbours.namespace.clone(), needs.name.clone());
        victims
            .push(RankedVictim { rank, victim: Victim { uid: uid.to_owned(), key, terminating: state.terminating } });
    }
    victims.sort_by(|a, b| (a.rank, &a.victim.uid).cmp(&(b.rank, &b.victim.uid)));
    match victims.is_empty() {
        // It fits beside all of them: what refused it has changed meanwhile.
        true => Err(nobody()),
        false => Ok(Sacrifice { node: node.node.name.clone(), victims, violations }),
    }
}

/// A node, and the domains of a pod, without some of the node's pods.
struct Left<'c> {
    cluster: &'c Cluster,
    pod: Candidate<'c>,
    /// As it is.
    here: &'c NodeInfo,
    node: NodeInfo,
    domains: Option<Domains>,
}

impl Left<'_> {
    fn remove(&mut self, needs: &Needs) {
        self.node.give_back(needs);
        if let Some(domains) = &mut self.domains {
            domains.change(self.pod.needs, needs, &self.here.node, CountChange::Goes, self.cluster.namespaces());
        }
    }

    fn add(&mut self, needs: &Needs) {
        self.node.take(needs);
        if let Some(domains) = &mut self.domains {
            domains.change(self.pod.needs, needs, &self.here.node, CountChange::Comes, self.cluster.namespaces());
        }
    }

    fn refusals(&self) -> Vec<String> {
        let refused = self.cluster.refusals(self.pod, &self.node, self.domains.as_ref());
        refused.into_iter().map(|refusal| refusal.reason).collect()
    }
}

type Ranked<'c> = (Importance, &'c str, &'c Needs, RunningState);

/// Those that a budget protects from being disrupted, and the others. The most important ones use a budget up first.
fn split_by_budgets<'c>(pods: Vec<Ranked<'c>>, budgets: &[Budget]) -> (Vec<Ranked<'c>>, Vec<Ranked<'c>>) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|(_, _, needs, _)| {
        let mut protected = false;
        for (at, _) in budgets.iter().enumerate().filter(|(_, budget)| budget.counts(needs)) {
            left[at] = left[at].saturating_sub(1);
            protected |= left[at] < 0;
        }
        protected
    })
}

#[cfg(test)]
mod tests;
