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
    objects::{informers::selectors_for, owners::controller_of, pod_state::counts_differently},
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

impl SelectingOwner for DaemonSet {
    fn label_selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }
}

impl SelectingOwner for StatefulSet {
    fn label_selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }
}

impl SelectingOwner for ReplicaSet {
    fn label_selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }
}

impl SelectingOwner for Deployment {
    fn label_selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }
}

impl SelectingOwner for Job {
    fn label_selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref()?.selector.as_ref()
    }
}

/// Whether the selector selects an object with this metadata.
pub fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    match &meta.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&Default::default()),
    }
}

/// The name of the object's controller, if that is of this kind.
pub fn owner_of(kind: &str, meta: &ObjectMeta) -> Option<Key> {
    let owner = controller_of(meta).filter(|owner| owner.kind == kind)?;
    Some(Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
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
    match owner_of(kind, meta) {
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
    expectations.observe(change, |pod| owner_of(kind, &pod.metadata));
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !counts_differently(old, new)
    {
        return;
    }
    for version in [&change.old, &change.new].into_iter().flatten() {
        enqueue_owner(sets, kind, &version.metadata, queue);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{controllers::fixtures::list, objects::informers::Informers};

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).expect("valid metadata")
    }

    #[tokio::test]
    async fn an_object_enqueues_its_owner_and_an_orphan_those_that_select_it() {
        let set = |name: &str, selector: Value| -> ReplicaSet {
            serde_json::from_value(json!({"metadata": {"namespace": "default", "name": name, "uid": name},
                "spec": {"selector": selector}}))
            .expect("a valid set")
        };
        let sets = Informers::new().replica_sets;
        let listed = [
            set("web", json!({"matchLabels": {"app": "web"}})),
            set("others", json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})),
            set("all", json!({})),
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
        let owned = json!({"namespace": "default", "labels": {"app": "web"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "db", "uid": "db", "controller": true}]});
        assert_eq!(adopters(owned.clone()), [""; 0]);
        assert_eq!(owner_of("ReplicaSet", &meta(owned.clone())), Some(Key::new("default", "db")));
        assert_eq!(owner_of("DaemonSet", &meta(owned)), None);
    }
}
