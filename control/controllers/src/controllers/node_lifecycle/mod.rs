//! Node lifecycle: a node that stops renewing its Lease becomes Unknown, its taints follow, and its pods are not ready.
//!
//! Taints that keep new pods away come at once; those that evict pods come at the pace that [`disruption`] permits.
//! Silence is measured by this process's own clock, from when the last heartbeat arrived ([`heartbeats`]); the node's
//! clock is not trusted.

mod disruption;
mod health;
mod heartbeats;
mod taints;

pub use self::{
    health::{Readiness, readiness},
    heartbeats::Heartbeats,
};

use std::{collections::HashSet, sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use self::{
    disruption::{Disruption, Eviction, Transition},
    health::unknown_conditions,
    heartbeats::{Silence, is_renewal, shows_life},
    taints::NoExecute,
};
use super::{Context, pod_requests::several};
use crate::{
    engine::{
        EventType, Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue, api_code,
        reference,
    },
    objects::{informer_index::on_node, informers::LEASE_NAMESPACE, pod_state::is_ready},
};

const COMPONENT: &str = "node-controller";
/// Lease that the controller renews while no node renews one: it shows whether heartbeats can be written.
const OWN_LEASE: &str = "fairlead-node-lifecycle";

struct Controller {
    client: Client,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    recorder: Recorder,
    grace: Duration,
    heartbeats: Arc<Mutex<Heartbeats>>,
    disruption: Mutex<Disruption>,
    /// Nodes that ceased to be ready, and whose pods are not marked yet.
    ceased: Mutex<HashSet<Key>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        nodes: informers.nodes.clone(),
        pods: informers.pods.clone(),
        recorder: context.recorder.clone(),
        grace: context.config.node_monitor_grace_period,
        heartbeats: context.heartbeats.clone(),
        disruption: Mutex::default(),
        ceased: Mutex::default(),
    };
    let startup = Startup::new(COMPONENT, controller)
        .on(&informers.nodes, Controller::node_changed)
        .on(&informers.leases, Controller::lease_changed)
        .reads(&informers.pods);
    startup.queue().add(own_key());
    startup.start(tasks, 16, Controller::reconcile);
}

/// Key in the queue for the controller's own heartbeat. No node can have this name.
fn own_key() -> Key {
    Key::default()
}

impl Controller {
    fn node_changed(&self, change: &ObjectChange<Node>, queue: &WorkQueue<Key>) {
        let now = Instant::now();
        let Some(new) = &change.new else {
            self.heartbeats.lock().forget(&change.key);
            self.ceased.lock().remove(&change.key);
            let transition = self.disruption.lock().forget(&change.key, now);
            self.pace_changed(transition, queue);
            return;
        };
        let old = change.old.as_deref();
        if shows_life(old, new) {
            self.heartbeats.lock().reported(&change.key, now);
        }
        match (old.map(readiness), readiness(new)) {
            (_, Readiness::Ready) => drop(self.ceased.lock().remove(&change.key)),
            (Some(Readiness::Ready), _) => drop(self.ceased.lock().insert(change.key.clone())),
            _ => {}
        }
        if old.is_none_or(|old| old.spec != new.spec || conditions_differ(old, new)) {
            queue.add(change.key.clone());
        }
        let transition = self.disruption.lock().observe(new, now);
        self.pace_changed(transition, queue);
    }

    /// Whether the pods of a lost node may be evicted depends on the other nodes.
    fn pace_changed(&self, transition: Transition, queue: &WorkQueue<Key>) {
        if transition == Transition::Recovered {
            self.heartbeats.lock().restart(Instant::now());
        }
        if transition != Transition::None {
            let lost = self.nodes.all().into_iter().filter(|node| readiness(node) != Readiness::Ready);
            lost.for_each(|node| queue.add(Key::of(&*node)));
        }
    }

    fn lease_changed(&self, change: &ObjectChange<Lease>, queue: &WorkQueue<Key>) {
        let Some(new) = change.new.as_deref() else { return };
        if !is_renewal(change.old.as_deref(), new) {
            return;
        }
        let node = Key::cluster(&change.key.name);
        // A Lease may exist without its Node: after the Node was deleted, before it was created, or as the controller's
        // own.
        let is_node = self.nodes.get(&node).is_some();
        self.heartbeats.lock().renewed(is_node.then_some(&node), Instant::now());
        if is_node {
            queue.add_after(node, self.grace);
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        if key == own_key() {
            return Ok(self.send_own_heartbeat().await);
        }
        let Some(node) = self.nodes.get(&key) else { return Ok(Outcome::Done) };
        let silence = self.heartbeats.lock().silence(&key, Instant::now());
        let left = match silence {
            // The event of what is written enqueues the node again, counted as lost.
            Silence::Lost if self.mark_unknown(&node).await? => return Ok(Outcome::Done),
            Silence::Lost => None,
            Silence::Left(left) | Silence::NothingArrives(left) => Some(left),
        };
        let (no_execute, ask_again) = self.request_eviction(&node);
        let timer = left.into_iter().chain(ask_again).min();
        let mut done = Ok(());
        if let Some(taints) = taints::desired(&node, no_execute, Timestamp::now()) {
            done = self.set_taints(&node, &taints).await;
        }
        // Services must stop sending to the node even while it cannot be tainted.
        let told = self.tell_pods(&key, &node).await;
        Outcome::of(done.and(told), timer)
    }

    /// Renews the controller's own Lease where nothing else shows that heartbeats arrive. Its event counts as one.
    async fn send_own_heartbeat(&self) -> Outcome {
        let (left, interval) = {
            let heartbeats = self.heartbeats.lock();
            (heartbeats.until_own(Instant::now()), heartbeats.own_interval())
        };
        if let Some(left) = left {
            return Outcome::After(left);
        }
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": OWN_LEASE},
            "spec": {"holderIdentity": COMPONENT, "renewTime": format!("{:.6}", Timestamp::now())}});
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASE_NAMESPACE);
        let (params, lease) = (PatchParams::apply(COMPONENT).force(), Patch::Apply(lease));
        match tokio::time::timeout(interval, api.patch(OWN_LEASE, &params, &lease)).await {
            Ok(Ok(_)) => {}
            // No node is declared lost meanwhile, and the next attempt is near.
            Ok(Err(error)) => {
                tracing::warn!(%error, "heartbeats cannot be written: the silence of nodes does not count")
            }
            Err(_) => tracing::warn!("a heartbeat is not written in time: the silence of nodes does not count"),
        }
        Outcome::After(interval)
    }

    /// The pods of a node that ceased to be ready are not ready, so that Services stop sending to them. An agent that
    /// reports on its pods again may say otherwise, unless the node is lost.
    async fn tell_pods(&self, key: &Key, node: &Node) -> Result<(), Failure> {
        let readiness = readiness(node);
        if readiness == Readiness::Ready {
            return Ok(());
        }
        let has_ceased = self.ceased.lock().remove(key);
        if !has_ceased && readiness == Readiness::NotReady {
            return Ok(());
        }
        if let Err(failure) = self.mark_pods_not_ready(key).await {
            if has_ceased {
                self.ceased.lock().insert(key.clone());
            }
            return Err(failure);
        }
        if has_ceased {
            let message = format!("Node {key} status is now: NodeNotReady");
            self.recorder.record(COMPONENT, reference(node), EventType::Normal, "NodeNotReady", message);
        }
        Ok(())
    }

    /// Whether the pods of the node may be evicted now, and when to ask again if not.
    fn request_eviction(&self, node: &Node) -> (NoExecute, Option<Duration>) {
        if readiness(node) == Readiness::Ready {
            return (NoExecute::Remove, None);
        }
        let now = Instant::now();
        let mut disruption = self.disruption.lock();
        if taints::is_evicting(node) {
            let keep = if disruption.is_all_lost() { NoExecute::Remove } else { NoExecute::Keep };
            return (keep, None);
        }
        match disruption.request(node, now) {
            Eviction::Permitted => (NoExecute::Add, None),
            Eviction::Cancelled => (NoExecute::Remove, None),
            Eviction::Wait(until) => (NoExecute::Keep, until.instant().map(|at| at.saturating_duration_since(now))),
        }
    }

    /// Writes the conditions of a silent node. Returns whether there was anything to write.
    async fn mark_unknown(&self, node: &Node) -> Result<bool, Failure> {
        let conditions = unknown_conditions(node, Timestamp::now());
        if conditions.is_empty() {
            return Ok(false);
        }
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions}});
        let api: Api<Node> = Api::all(self.client.clone());
        match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if api_code(&error) == Some(404) => Ok(false),
            Err(error) => Err(Failure::request("mark a silent node")(error)),
        }
    }

    async fn set_taints(&self, node: &Node, taints: &[k8s_openapi::api::core::v1::Taint]) -> Result<(), Failure> {
        let patch = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": if taints.is_empty() { None } else { Some(taints) }}});
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Node> = Api::all(self.client.clone());
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if api_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(Failure::request("taint a node")(error)),
        }
    }

    /// Goes on where one pod is refused: the others must not get traffic for its sake.
    async fn mark_pods_not_ready(&self, node: &Key) -> Result<(), Failure> {
        let mut failures = Vec::new();
        for pod in self.pods.indexed(&on_node(&node.name)).iter().filter(|pod| is_ready(pod)) {
            failures.extend(self.mark_pod_not_ready(pod).await.err());
        }
        several(failures).map_or(Ok(()), Err)
    }

    async fn mark_pod_not_ready(&self, pod: &Pod) -> Result<(), Failure> {
        let key = Key::of(pod);
        let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": Timestamp::now()});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {
                let message = "Node is not ready";
                self.recorder.record(COMPONENT, reference(pod), EventType::Warning, "NodeNotReady", message);
                Ok(())
            }
            Err(error) if matches!(api_code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(Failure::request("mark a pod of a node that is not ready")(error)),
        }
    }
}

/// Whether the node's conditions differ in more than their times.
fn conditions_differ(old: &Node, new: &Node) -> bool {
    let statuses = |node: &Node| -> Vec<(String, String)> {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        conditions.iter().map(|c| (c.type_.clone(), c.status.clone())).collect()
    };
    statuses(old) != statuses(new)
}

#[cfg(test)]
mod tests;
