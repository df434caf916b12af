//! From changes of pods and nodes to what the scheduler's loop needs of them.
//!
//! Handlers of the shared informers read each change down to a [`PodInfo`] or [`NodeProperties`] and leave it here; the
//! loop takes all that has come at once. Of several changes of one object only the last is kept, so what waits is
//! bounded by what exists.

use std::sync::Arc;

use indexmap::IndexMap;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::core::Selector;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    neighbours::Labels,
    node::NodeProperties,
    pod::{Needs, PodInfo},
    preemption::{Budget, RunningState},
    queue::QueuedPod,
    resources::Resources,
    spread::Selecting,
};
use crate::{
    engine::{Informer, Key, ObjectChange, Synced},
    objects::{informers::Informers, pod_state},
};

/// What came since the loop last took it.
#[derive(Default)]
pub struct PendingChanges {
    /// By uid; `None` for a pod that was deleted. In the order of each pod's first change.
    pub pods: IndexMap<String, Option<PodInfo>>,
    /// The labels of each namespace, by name; `None` for one that was deleted.
    pub namespaces: IndexMap<String, Option<Labels>>,
    /// By name; `None` for a node that was deleted.
    pub nodes: IndexMap<String, Option<NodeProperties>>,
}

/// Collects changes for the loop.
pub struct EventMapper {
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    namespaces: Arc<Informer<Namespace>>,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    selecting: Selecting,
    pending: Mutex<PendingChanges>,
    changed: Notify,
}

impl EventMapper {
    /// Collects from now on.
    pub fn start(informers: &Informers) -> Arc<Self> {
        let mapper = Arc::new(Self {
            pods: informers.pods.clone(),
            nodes: informers.nodes.clone(),
            namespaces: informers.namespaces.clone(),
            budgets: informers.disruption_budgets.clone(),
            selecting: Selecting::new(informers),
            pending: Mutex::default(),
            changed: Notify::new(),
        });
        let this = mapper.clone();
        informers.pods.on_change(move |change| this.pod_changed(change));
        let this = mapper.clone();
        informers.nodes.on_change(move |change| this.node_changed(change));
        let this = mapper.clone();
        informers.namespaces.on_change(move |change| this.namespace_changed(change));
        mapper
    }

    /// The first listings of all that is read.
    pub fn synced(&self) -> impl Iterator<Item = Synced> {
        let own = [self.pods.synced(), self.nodes.synced(), self.namespaces.synced(), self.budgets.synced()];
        own.into_iter().chain(self.selecting.synced())
    }

    /// What selects the pod and its like; `None` for one that asks itself how it is spread, or that nothing selects.
    pub fn siblings_of(&self, pod: &QueuedPod) -> Option<Selector> {
        let asks = pod.needs.spread.is_declared();
        if asks { None } else { self.selecting.selector_of(&pod.needs, pod.owner.as_ref()) }
    }

    /// How a pod fares that the loop knows by name.
    pub fn state_of(&self, pod: &Needs) -> RunningState {
        let key = Key::new(pod.neighbours.namespace.clone(), pod.name.clone());
        self.pods.get(&key).map(|pod| RunningState::of(&pod)).unwrap_or_default()
    }

    /// The budgets of disruption now.
    pub fn budgets(&self) -> Vec<Budget> {
        self.budgets.all().iter().filter_map(|budget| Budget::read(budget)).collect()
    }

    /// Everything that exists now, for a loop that begins without knowing anything.
    pub fn restart(&self) {
        // What changes from here on comes after, in the same place.
        let mut pending = self.pending.lock();
        *pending = PendingChanges::default();
        for pod in self.pods.all() {
            let info = PodInfo::read(&pod);
            pending.pods.insert(info.uid.clone(), Some(info));
        }
        for node in self.nodes.all() {
            let properties = NodeProperties::read(&node);
            pending.nodes.insert(properties.name.clone(), Some(properties));
        }
        for namespace in self.namespaces.all() {
            pending.namespaces.insert(Key::of(&*namespace).name, Some(labels_of(&namespace)));
        }
        drop(pending);
        self.changed.notify_one();
    }

    /// Takes all that has come.
    pub fn take(&self) -> PendingChanges {
        std::mem::take(&mut *self.pending.lock())
    }

    /// Returns when something has come since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn pod_changed(&self, change: &ObjectChange<Pod>) {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && is_same_to_scheduling(old, new)
        {
            return;
        }
        let uid = change.latest().metadata.uid.clone().unwrap_or_default();
        let info = change.new.as_deref().map(PodInfo::read);
        self.pending.lock().pods.insert(uid, info);
        self.changed.notify_one();
    }

    fn namespace_changed(&self, change: &ObjectChange<Namespace>) {
        let labels = change.new.as_deref().map(labels_of);
        self.pending.lock().namespaces.insert(change.key.name.clone(), labels);
        self.changed.notify_one();
    }

    fn node_changed(&self, change: &ObjectChange<Node>) {
        let properties = change.new.as_deref().map(NodeProperties::read);
        self.pending.lock().nodes.insert(change.key.name.clone(), properties);
        self.changed.notify_one();
    }
}

fn labels_of(namespace: &Namespace) -> Labels {
    namespace.metadata.labels.clone().unwrap_or_default()
}

/// Whether the scheduler would read the same from both versions of a pod: most changes are of its status alone.
fn is_same_to_scheduling(old: &Pod, new: &Pod) -> bool {
    old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.owner_references == new.metadata.owner_references
        && pod_state::is_terminating(old) == pod_state::is_terminating(new)
        && pod_state::is_finished(old) == pod_state::is_finished(new)
        && nominated(old) == nominated(new)
        && held(old) == held(new)
        && pod_state::condition(old, "PodScheduled") == pod_state::condition(new, "PodScheduled")
}

/// What the pod holds of its node, which a resize changes in the status alone.
fn held(pod: &Pod) -> Option<Resources> {
    pod.spec.as_ref().map(|spec| Resources::of_pod(spec, pod.status.as_ref()))
}

fn nominated(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref()
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use kube::runtime::watcher::{
        Event,
        Event::{Apply, Delete, Init, InitApply, InitDone},
    };
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn pod(name: &str, revision: &str, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default", "uid": name,
            "resourceVersion": revision}, "spec": {"containers": []}, "status": status}))
        .expect("a valid pod")
    }

    async fn apply(informers: &Informers, events: Vec<Event<Pod>>) {
        let events = stream::iter(events.into_iter().map(Ok));
        informers.pods.clone().run(events, CancellationToken::new()).await;
    }

    #[tokio::test]
    async fn only_the_last_change_of_a_pod_is_kept_and_a_new_loop_sees_all_that_exists() {
        let informers = Informers::default();
        let mapper = EventMapper::start(&informers);
        let ended = pod("a", "3", json!({"phase": "Succeeded"}));
        let events = vec![
            Init,
            InitApply(pod("a", "1", json!({}))),
            InitApply(pod("b", "2", json!({}))),
            InitDone,
            Apply(ended),
            Delete(pod("b", "4", json!({}))),
        ];
        apply(&informers, events).await;
        let pending = mapper.take();
        let seen: Vec<_> =
            pending.pods.iter().map(|(uid, pod)| (uid.as_str(), pod.as_ref().map(|p| p.finished))).collect();
        assert_eq!(seen, [("a", Some(true)), ("b", None)]);
        mapper.restart();
        assert_eq!(mapper.take().pods.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[tokio::test]
    async fn a_change_of_the_status_alone_is_not_news() {
        let informers = Informers::default();
        let mapper = EventMapper::start(&informers);
        apply(&informers, vec![Init, InitApply(pod("a", "1", json!({}))), InitDone]).await;
        mapper.take();
        apply(&informers, vec![Apply(pod("a", "2", json!({"phase": "Running", "podIP": "10.0.0.1"})))]).await;
        assert!(mapper.take().pods.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_resize_is_news_though_the_status_alone_tells_it() {
        let informers = Informers::default();
        let mapper = EventMapper::start(&informers);
        let pod = |revision: &str, cpu: &str, conditions: Value| -> Pod {
            let has = json!({ "name": "c", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
                "resources": { "requests": { "cpu": cpu } }, "allocatedResources": { "cpu": cpu } });
            serde_json::from_value(json!({ "metadata": { "name": "a", "namespace": "default", "uid": "a",
                "resourceVersion": revision },
                "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "2" } } }] },
                "status": { "phase": "Running", "containerStatuses": [has], "conditions": conditions } }))
            .expect("a valid pod")
        };
        let cpu = |mapper: &EventMapper| {
            mapper.take().pods.get("a").and_then(|pod| Some(pod.as_ref()?.needs.requests.cpu_milli))
        };
        apply(&informers, vec![Init, InitApply(pod("1", "4", json!([]))), InitDone]).await;
        assert_eq!(cpu(&mapper), Some(4000), "while it shrinks");
        apply(&informers, vec![Apply(pod("2", "2", json!([])))]).await;
        assert_eq!(cpu(&mapper), Some(2000), "when it has shrunk");
        apply(&informers, vec![Apply(pod("3", "1", json!([])))]).await;
        mapper.take();
        let infeasible = json!([{ "type": "PodResizePending", "status": "True", "reason": "Infeasible" }]);
        apply(&informers, vec![Apply(pod("4", "1", infeasible))]).await;
        assert_eq!(cpu(&mapper), Some(1000), "when it will never grow");
    }
}
