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

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Client, Resource,
    core::{Selector, SelectorExt},
};
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
    history,
};
use crate::{
    engine::{Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue},
    objects::{
        informers::{orphans_for, owned_by, selectors_for},
        owners::controller_of,
        pod_state::counts_differently,
    },
};

const COMPONENT: &str = "daemonset-controller";
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
        .on(&informers.pods, Controller::pod_changed)
        .on(&informers.nodes, Controller::node_changed)
        .on(&informers.revisions, |this, change, queue| {
            // One that a set's own pass made, or somebody with its name: the next change of the set reads it.
            if change.old.is_none() && controller_of(&change.latest().metadata).is_some() {
                return;
            }
            for version in [&change.old, &change.new].into_iter().flatten() {
                this.enqueue_owner(&version.metadata, queue);
            }
        })
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
    /// Updates the expectations with what was seen, and enqueues the sets that count the pod.
    fn pod_changed(&self, change: &ObjectChange<Pod>, queue: &WorkQueue<Key>) {
        self.expectations.observe(change, |pod| owner_of(&pod.metadata));
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !counts_differently(old, new)
        {
            return;
        }
        for version in [&change.old, &change.new].into_iter().flatten() {
            self.enqueue_owner(&version.metadata, queue);
        }
    }

    /// Enqueues the set that owns the object, or those that may adopt it.
    fn enqueue_owner(&self, meta: &ObjectMeta, queue: &WorkQueue<Key>) {
        if let Some(set) = owner_of(meta) {
            return queue.add(set);
        }
        if controller_of(meta).is_some() || meta.deletion_timestamp.is_some() {
            return;
        }
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        for set in selectors_for(&self.sets, namespace, meta.labels.iter().flatten()) {
            if selector(&set).is_some_and(|selector| selects(&selector, meta)) {
                queue.add(Key::of(&*set));
            }
        }
    }

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
        let Some(selector) = selector(&set) else {
            return Err(Failure::Malformed { what: "selector", message: format!("of DaemonSet {key}") });
        };
        let requests = self.requests(&key, &set);
        // Asked before the pods are read: one that comes in between would be counted as neither.
        let caught_up = self.expectations.met(&key, Instant::now());
        let (revisions, pods) = self.claim(&set, &selector, &requests).await?;
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let history = history::plan(&template, &revisions);
        let current = requests.current(&history).await?;
        let hash = hash_of(&current.revision);
        requests.merge(&history.duplicates, hash, &pods).await?;
        let nodes = DaemonNodes::new(&set, hash, &self.nodes.all(), &pods, Timestamp::now());
        let mut retry = None;
        let mut failure = None;
        if caught_up {
            let plan = self.plan(&set, &nodes);
            retry = plan.retry;
            failure = requests.carry_out(&plan, hash).await.err();
            if failure.is_none() {
                requests.forget(&obsolete(&set, &history.old, &pods)).await?;
            }
        }
        let (status, timer) = status::desired(&set, &nodes, current.collisions, caught_up);
        if !set.status.as_ref().is_some_and(|old| status::says_the_same(old, &status)) {
            requests.report(status).await?;
        }
        let stale = (!caught_up).then_some(expectations::TIMEOUT);
        match (failure, [retry, timer, stale].into_iter().flatten().min()) {
            (Some(failure), _) => Err(failure),
            (None, Some(delay)) => Ok(Outcome::After(delay.max(Duration::from_millis(1)))),
            (None, None) => Ok(Outcome::Done),
        }
    }

    /// The set's revisions and pods, after adopting and releasing.
    async fn claim(
        &self,
        set: &DaemonSet,
        selector: &Selector,
        requests: &DaemonSetRequests<'_>,
    ) -> Result<(Vec<Arc<ControllerRevision>>, Vec<Arc<Pod>>), Failure> {
        let uid = owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let asked = set.spec.as_ref().map(|s| &s.selector);
        let mut claimer = Claimer::new(set, requests.sets.clone());
        let mut revisions = self.revisions.indexed(&uid);
        revisions.extend(orphans_for(&self.revisions, namespace, asked));
        let revisions =
            claimer.claim(&requests.revisions, revisions, |revision| selects(selector, revision.meta())).await?;
        let mut pods = self.pods.indexed(&uid);
        pods.extend(orphans_for(&self.pods, namespace, asked));
        let pods = claimer.claim(&requests.pods, pods, |pod| selects(selector, pod.meta())).await?;
        Ok((revisions, pods))
    }

    /// What is missing or too many, and where nothing is, the next step of a rollout.
    fn plan(&self, set: &DaemonSet, nodes: &DaemonNodes<'_>) -> DaemonPlan {
        let now = Instant::now();
        let failing = |node: &str| FailingNode {
            uid: set.metadata.uid.clone().unwrap_or_default(),
            generation: set.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0),
            node: node.to_owned(),
        };
        let plan = plan::plan(nodes, |node| self.failed.wait(&failing(node), now));
        for (node, _) in &plan.failed {
            self.failed.replaced(failing(node), now);
        }
        if plan.is_empty() { DaemonPlan { retry: plan.retry, ..rolling::step(nodes) } } else { plan }
    }

    fn requests<'a>(&'a self, key: &'a Key, set: &'a DaemonSet) -> DaemonSetRequests<'a> {
        DaemonSetRequests {
            key,
            set,
            sets: Api::namespaced(self.client.clone(), &key.namespace),
            pods: Api::namespaced(self.client.clone(), &key.namespace),
            revisions: Api::namespaced(self.client.clone(), &key.namespace),
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

fn owner_of(meta: &ObjectMeta) -> Option<Key> {
    let owner = controller_of(meta).filter(|owner| owner.kind == "DaemonSet")?;
    Some(Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// The set's selector; `None` if it is not one, or selects everything.
fn selector(set: &DaemonSet) -> Option<Selector> {
    let selector: Selector = set.spec.as_ref()?.selector.clone().try_into().ok()?;
    (!selector.selects_all()).then_some(selector)
}

fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().is_some_and(|labels| selector.matches(labels))
}
