//! DaemonSet: one pod on each node that its template selects and whose taints it tolerates.
//!
//! - [`placement`]: which nodes run a pod, and the pod for one of them, which the scheduler binds
//! - [`nodes`]: nodes and pods as one pass sees them
//! - [`plan`]: pods that are missing or too many; [`rolling`]: one step of a rollout; [`status`]: what is reported
//! - [`backoff`]: how long a failed pod stays; [`requests`]: what is sent
//!
//! The templates that a set had are ControllerRevisions ([`super::history`]); pods bear the hash of theirs. Source:
//! `pkg/controller/daemon` of Kubernetes.

mod backoff;
#[cfg(test)]
mod fixtures;
mod nodes;
mod placement;
mod plan;
mod requests;
mod rolling;
mod status;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::Client;
use tokio::time::Instant;

use self::{
    backoff::{FailedPods, FailingNode},
    nodes::DaemonNodes,
    placement::{NodeRules, Placement},
    plan::DaemonPlan,
    requests::{DaemonSetRequests, hash_of},
};
use super::{
    Context,
    claiming::Claimer,
    expectations::{self, Expectations},
    history::{self, History, revision_changed},
    pod_owners::{SelectingOwner, pod_changed, selects},
};
use crate::engine::{Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue};

const COMPONENT: &str = "daemonset-controller";
const KIND: &str = "DaemonSet";
const CONCURRENCY: usize = 4;

struct Controller {
    client: Client,
    sets: Arc<Informer<DaemonSet>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    revisions: Arc<Informer<ControllerRevision>>,
    expectations: Expectations,
    failed: FailedPods,
    recorder: Recorder,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        sets: informers.daemon_sets.clone(),
        pods: informers.pods.clone(),
        nodes: informers.nodes.clone(),
        revisions: informers.revisions.clone(),
        expectations: Expectations::default(),
        failed: FailedPods::default(),
        recorder: context.recorder.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.pods, |this, change, queue| {
            pod_changed(&this.expectations, &this.sets, KIND, change, queue);
        })
        .on(&informers.nodes, Controller::node_changed)
        .on(&informers.revisions, |this, change, queue| revision_changed(&this.sets, KIND, change, queue))
        .on(&informers.daemon_sets, |this, change, queue| {
            if let (Some(old), None) = (&change.old, &change.new) {
                this.expectations.forget(&change.key);
                this.failed.forget(old.metadata.uid.as_deref().unwrap_or_default());
            }
            queue.add(change.key.clone());
        })
        .start(tasks, CONCURRENCY, Controller::reconcile);
}

impl Controller {
    /// Enqueues the sets for which the node changed.
    fn node_changed(&self, change: &ObjectChange<Node>, queue: &WorkQueue<Key>) {
        if let (Some(old), Some(new)) = (&change.old, &change.new) {
            let taints = |node: &Node| node.spec.as_ref().and_then(|s| s.taints.clone());
            if old.metadata.labels == new.metadata.labels && taints(old) == taints(new) {
                return;
            }
        }
        for set in self.sets.all() {
            let rules = NodeRules::of(&set);
            let placement = |node: &Option<Arc<Node>>| node.as_ref().map(|node| rules.placement(node));
            let (before, after) = (placement(&change.old), placement(&change.new));
            if before != after && [before, after] != [None, Some(Placement::Refuse)] {
                queue.add(Key::of(&*set));
            }
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(set) = self.sets.get(&key) else { return Ok(Outcome::Done) };
        // Its revisions may be gone before its pods are: nothing could be said of them.
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let Some(selector) = set.selector() else {
            return Err(Failure::Malformed { what: "selector", message: format!("of DaemonSet {key}") });
        };
        let requests = self.requests(&key, &set);
        // Asked before the pods are read: one that comes in between would be counted as neither.
        let caught_up = self.expectations.met(&key, Instant::now());
        let mut claimer = Claimer::new(&*set, requests.sets.clone());
        let revisions = claimer
            .claim(&self.revisions, &requests.history.revisions, |revision| selects(&selector, &revision.metadata))
            .await?;
        let pods = claimer.claim(&self.pods, &requests.pods, |pod| selects(&selector, &pod.metadata)).await?;
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let history = history::plan(&template, &revisions);
        let current = requests.history.current(&history, &template).await?;
        let hash = hash_of(&current.revision);
        requests.merge(&history.duplicates, hash, &pods).await?;
        let nodes = DaemonNodes::new(&set, hash, &self.nodes.all(), &pods, Timestamp::now());
        let (mut retry, mut done) = (None, Ok(()));
        if caught_up {
            let plan = self.plan(&set, &nodes);
            retry = plan.retry;
            done = self.carry_out(&requests, &plan, hash).await;
            if done.is_ok() {
                done = requests.history.delete(&obsolete(&set, &history.old, &pods)).await;
            }
        }
        let (status, timer) = status::desired(&set, &nodes, current.collisions, caught_up);
        let mut reported = Ok(());
        if !set.status.as_ref().is_some_and(|old| status::says_the_same(old, &status)) {
            reported = requests.report(status).await;
        }
        let stale = (!caught_up).then_some(expectations::TIMEOUT);
        let timer = [retry, timer, stale].into_iter().flatten().min();
        Outcome::of(done.and(reported), timer.map(|delay| delay.max(Duration::from_millis(1))))
    }

    /// What is missing or too many, and where nothing is, the next step of a rollout.
    fn plan(&self, set: &DaemonSet, nodes: &DaemonNodes<'_>) -> DaemonPlan {
        let now = Instant::now();
        let plan = plan::plan(nodes, |node| self.failed.wait(&FailingNode::of(set, node), now));
        let plan = if plan.is_empty() { DaemonPlan { retry: plan.retry, ..rolling::step(nodes) } } else { plan };
        plan.within_burst()
    }

    /// Sends what `plan` says. A failed pod that is deleted lets the next one of its node wait longer.
    async fn carry_out(&self, requests: &DaemonSetRequests<'_>, plan: &DaemonPlan, hash: &str) -> Result<(), Failure> {
        let (deleted, result) = requests.carry_out(plan, hash).await;
        let deleted: HashSet<&str> = deleted.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let is_deleted = |pod: &Pod| pod.metadata.uid.as_deref().is_some_and(|uid| deleted.contains(uid));
        let now = Instant::now();
        for (node, _) in plan.failed.iter().filter(|(_, pod)| is_deleted(pod)) {
            self.failed.replaced(FailingNode::of(requests.set, node), now);
        }
        result
    }

    fn requests<'a>(&'a self, key: &'a Key, set: &'a DaemonSet) -> DaemonSetRequests<'a> {
        DaemonSetRequests {
            key,
            set,
            sets: Api::namespaced(self.client.clone(), &key.namespace),
            pods: Api::namespaced(self.client.clone(), &key.namespace),
            history: History { owner: set, revisions: Api::namespaced(self.client.clone(), &key.namespace) },
            view: &self.sets,
            expectations: &self.expectations,
            recorder: &self.recorder,
        }
    }
}

/// The old revisions beyond the limit of the history that no pod runs.
fn obsolete(set: &DaemonSet, old: &[Arc<ControllerRevision>], pods: &[Arc<Pod>]) -> Vec<Arc<ControllerRevision>> {
    let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let labels = pods.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(history::HASH_LABEL));
    let live: BTreeSet<&str> = labels.map(String::as_str).collect();
    history::oldest(old, excess, |revision| live.contains(hash_of(revision)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::fixtures::{api, list},
        fixtures::{daemon_set, nodes, now, pod},
        plan::BURST,
        *,
    };
    use crate::objects::informers::Informers;

    async fn controller(set: &DaemonSet, code: u16) -> Controller {
        let informers = Informers::new();
        list(&informers.daemon_sets, [set.clone()]).await;
        Controller {
            client: api(move |_| code),
            sets: informers.daemon_sets,
            pods: informers.pods,
            nodes: informers.nodes,
            revisions: informers.revisions,
            expectations: Expectations::default(),
            failed: FailedPods::default(),
            recorder: Recorder::silent(),
        }
    }

    #[tokio::test]
    async fn the_next_failed_pod_of_a_node_waits_only_once_the_last_is_deleted() {
        for (code, waits) in [(500, false), (200, true)] {
            let set = daemon_set(json!({}));
            let controller = controller(&set, code).await;
            let (key, failed) = (Key::of(&set), pod("failed", "n1", "False"));
            let plan =
                DaemonPlan { delete: vec![failed.clone()], failed: vec![("n1".into(), failed)], ..Default::default() };
            let done = controller.carry_out(&controller.requests(&key, &set), &plan, "new").await;
            assert_eq!(done.is_ok(), waits, "{code}");
            let wait = controller.failed.wait(&FailingNode::of(&set, "n1"), Instant::now());
            assert_eq!(wait.is_some(), waits, "{code}");
        }
    }

    #[tokio::test]
    async fn one_pass_creates_and_deletes_no_more_than_a_burst() {
        let names: Vec<String> = (0..BURST + 50).map(|at| format!("n{at}")).collect();
        let nodes = nodes(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let pods: Vec<_> = names.iter().map(|node| pod(node, node, "True")).collect();
        let counts = async |set: Value, pods: &[Arc<Pod>]| {
            let set = daemon_set(set);
            let plan = controller(&set, 200).await.plan(&set, &DaemonNodes::new(&set, "new", &nodes, pods, now()));
            (plan.create.len(), plan.delete.len())
        };
        assert_eq!(counts(json!({}), &[]).await, (BURST, 0));
        assert_eq!(counts(json!({}), &pods[..100]).await, (BURST - 50, 0), "the rest");
        let nowhere = json!({"spec": {"template": {"spec": {"nodeName": "other"}}}});
        assert_eq!(counts(nowhere, &pods).await, (0, BURST));
        // A step of a rollout, too, whatever may be unavailable.
        let rollout = json!({"spec": {"updateStrategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "100%"}}}});
        let old: Vec<_> = names.iter().map(|node| fixtures::old_pod(node, node, "True")).collect();
        assert_eq!(counts(rollout, &old).await, (0, BURST));
    }
}
