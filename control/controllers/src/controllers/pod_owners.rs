//! Owners that select what they own (DaemonSets, Jobs, Deployments…): their selectors, and which of them are enqueued
//! when an object changes that one of them owns or may adopt.

use fairlead_client::Object;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::core::{Selector, SelectorExt};

use super::expectations::Expectations;
use crate::{
    engine::{Informer, Key, ObjectChange, WorkQueue},
    objects::{candidates::selectors_for, owners::controller_of, pod_state::counts_differently},
};

/// A kind whose objects own what they select.
pub trait SelectingOwner: Object {
    /// What it asks for in the labels of what it owns.
    fn label_selector(&self) -> Option<&LabelSelector>;

    /// The selector; `None` if it is not one, or selects everything.
    fn selector(&self) -> Option<Selector> {
        let selector: Selector = self.label_selector()?.clone().try_into().ok()?;
        (!selector.selects_all()).then_some(selector)
    }
}

/// Kinds whose spec has a selector; that of a Job is optional.
macro_rules! selecting_owners {
    ($($kind:ty: |$spec:ident| $selector:expr,)+) => {$(
        impl SelectingOwner for $kind {
            fn label_selector(&self) -> Option<&LabelSelector> {
                self.spec.as_ref().and_then(|$spec| $selector)
            }
        }
    )+};
}

selecting_owners! {
    DaemonSet: |spec| Some(&spec.selector),
    StatefulSet: |spec| Some(&spec.selector),
    ReplicaSet: |spec| Some(&spec.selector),
    Deployment: |spec| Some(&spec.selector),
    Job: |spec| spec.selector.as_ref(),
}

/// Whether the selector selects an object with this metadata.
pub fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    match &meta.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&Default::default()),
    }
}

/// The object's controller, if that is the one of this kind that exists now: a successor of the same name does not own
/// what was its predecessor's. Source: Kubernetes' `resolveControllerRef`.
pub fn owner_of<O: Object>(owners: &Informer<O>, kind: &str, meta: &ObjectMeta) -> Option<Key> {
    let owner = controller_of(meta).filter(|owner| owner.kind == kind)?;
    let key = Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone());
    let known = owners.get(&key)?;
    (known.meta().uid.as_deref() == Some(&*owner.uid)).then_some(key)
}

/// Those of `owners` that may adopt an object with this metadata: none if it has a controller or is being deleted.
pub fn adopters<O: SelectingOwner>(owners: &Informer<O>, meta: &ObjectMeta) -> Vec<Key> {
    if controller_of(meta).is_some() || meta.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let may_select = selectors_for(owners, namespace, meta.labels.iter().flatten());
    let selecting = may_select.iter().filter(|owner| owner.selector().is_some_and(|s| selects(&s, meta)));
    selecting.map(|owner| Key::of(&**owner)).collect()
}

/// Enqueues the owner of the object, which is of this kind, or those that may adopt it.
pub fn enqueue_owner<O: SelectingOwner>(owners: &Informer<O>, kind: &str, meta: &ObjectMeta, queue: &WorkQueue<Key>) {
    match owner_of(owners, kind, meta) {
        Some(owner) => queue.add(owner),
        None => adopters(owners, meta).into_iter().for_each(|owner| queue.add(owner)),
    }
}

/// Updates the expectations with what a change of a pod shows, and enqueues the sets that count the pod.
pub fn pod_changed<O: SelectingOwner>(
    expectations: &Expectations,
    sets: &Informer<O>,
    kind: &str,
    change: &ObjectChange<Pod>,
    queue: &WorkQueue<Key>,
) {
    expectations.observe(change, |pod| owner_of(sets, kind, &pod.metadata));
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !counts_differently(old, new)
    {
        return;
    }
    for version in [&change.old, &change.new].into_iter().flatten() {
        enqueue_owner(sets, kind, &version.metadata, queue);
    }
    if change.new.is_none() {
        enqueue_successor(sets, kind, &change.latest().metadata, queue);
    }
}

/// A set that replaced another of its name may wait for the name of a pod of that one, which is free now. Kubernetes
/// leaves it to its back-off.
fn enqueue_successor<O: SelectingOwner>(sets: &Informer<O>, kind: &str, gone: &ObjectMeta, queue: &WorkQueue<Key>) {
    let Some(owner) = controller_of(gone).filter(|owner| owner.kind == kind) else { return };
    let key = Key::new(gone.namespace.clone().unwrap_or_default(), owner.name.clone());
    if sets.get(&key).is_some() {
        queue.add(key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        controllers::fixtures::{list, replica_set},
        engine::Taken,
        objects::informers::Informers,
    };

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).expect("valid metadata")
    }

    #[tokio::test]
    async fn an_object_enqueues_its_owner_and_an_orphan_those_that_select_it() {
        let sets = Informers::new().replica_sets;
        let listed = [
            replica_set("web", json!({"matchLabels": {"app": "web"}})),
            replica_set("db", json!({"matchLabels": {"app": "db"}})),
            replica_set("others", json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})),
            replica_set("all", json!({})),
        ];
        list(&sets, listed).await;
        let adopters =
            |value: Value| -> Vec<String> { adopters(&sets, &meta(value)).into_iter().map(|key| key.name).collect() };
        assert_eq!(adopters(json!({"namespace": "default", "labels": {"app": "web"}})), ["web"]);
        assert_eq!(adopters(json!({"namespace": "default"})), ["others"], "without labels it may be selected too");
        assert_eq!(adopters(json!({"namespace": "elsewhere", "labels": {"app": "web"}})), [""; 0]);
        let going =
            json!({"namespace": "default", "labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(adopters(going), [""; 0]);
        let owned = owned_by("db", "db");
        assert_eq!(adopters(owned.clone()), [""; 0]);
        assert_eq!(owner_of(&sets, "ReplicaSet", &meta(owned.clone())), Some(Key::new("default", "db")));
        assert_eq!(owner_of(&sets, "DaemonSet", &meta(owned)), None);
    }

    #[tokio::test]
    async fn the_pods_of_a_set_that_is_gone_are_not_those_of_another_with_its_name() {
        let sets = Informers::new().replica_sets;
        list(&sets, [replica_set("web", json!({"matchLabels": {"app": "web"}}))]).await;
        let pod = |uid: &str, ready: &str| -> Arc<Pod> {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let pod = json!({"metadata": owned_by("web", uid), "status": {"conditions": conditions}});
            Arc::new(serde_json::from_value(pod).expect("a valid pod"))
        };
        let (expectations, queue) = (Expectations::default(), WorkQueue::new("test"));
        let (web, now) = (Key::new("default", "web"), Instant::now());
        let changed = |old: Option<Arc<Pod>>, new: Option<Arc<Pod>>| {
            let change = ObjectChange { key: Key::new("default", "p"), old, new };
            pod_changed(&expectations, &sets, "ReplicaSet", &change, &queue);
            matches!(queue.take(now), Taken::Key(_))
        };
        expectations.expect(&web, 1, []);
        assert!(!changed(None, Some(pod("before", "False"))));
        assert!(!changed(Some(pod("before", "False")), Some(pod("before", "True"))));
        assert!(!expectations.met(&web, now), "its own pod is still to come");
        assert!(changed(None, Some(pod("web", "False"))));
        assert!(expectations.met(&web, now));
        queue.done(&web);
        assert!(changed(Some(pod("before", "True")), None), "its name is free");
    }

    fn owned_by(name: &str, uid: &str) -> Value {
        json!({"namespace": "default", "name": "p", "uid": "p", "labels": {"app": "web"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": uid, "controller": true}]})
    }
}
