//! The constraints of pods that have none of their own: the pods of a workload, or behind a Service, are spread over
//! nodes and zones where that is possible.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, StatefulSet},
        core::v1::Service,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::Selector;

use super::{Constraint, set_of};
use crate::{
    engine::{Informer, Key, Synced},
    objects::{candidates::selectors_for, informers::Informers},
    scheduler::pod::{Needs, PodController},
};

/// Topology key and maximum skew of the constraints. Source: `systemDefaultConstraints`.
const SYSTEM: [(&str, i64); 2] = [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)];

/// What selects pods: the default constraints spread those that are selected together.
pub struct Selecting {
    services: Arc<Informer<Service>>,
    replica_sets: Arc<Informer<ReplicaSet>>,
    replication_controllers: Arc<Informer<ReplicaSet>>,
    stateful_sets: Arc<Informer<StatefulSet>>,
}

impl Selecting {
    /// Reads from these informers.
    pub fn new(informers: &Informers) -> Self {
        Self {
            services: informers.services.clone(),
            replica_sets: informers.replica_sets.clone(),
            replication_controllers: informers.replication_controllers.clone(),
            stateful_sets: informers.stateful_sets.clone(),
        }
    }

    /// The first listings of all that is read.
    pub fn synced(&self) -> [Synced; 4] {
        [
            self.services.synced(),
            self.replica_sets.synced(),
            self.replication_controllers.synced(),
            self.stateful_sets.synced(),
        ]
    }

    /// What the Services that select a pod and the workload that owns it have in common; `None` where there are none.
    /// Source: `helper.DefaultSelector`.
    pub fn selector_of(&self, pod: &Needs, owner: Option<&PodController>) -> Option<Selector> {
        let (namespace, labels) = (&pod.neighbours.namespace, &pod.neighbours.labels);
        let mut merged: BTreeMap<String, String> = BTreeMap::new();
        for service in selectors_for(&self.services, namespace, labels) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            if let Some(selector) = selector.filter(|s| s.iter().all(|(key, value)| labels.get(key) == Some(value))) {
                merged.extend(selector.clone());
            }
        }
        let mut expressions: Option<Selector> = None;
        if let Some(owner) = owner {
            let key = Key::new(namespace.clone(), owner.name.clone());
            let read = |selector: LabelSelector| -> Option<Selector> { selector.try_into().ok() };
            match (owner.api_version.as_str(), owner.kind.as_str()) {
                ("v1", "ReplicationController") => {
                    let found = self.replication_controllers.get(&key).and_then(|found| found.spec.clone());
                    merged.extend(found.and_then(|spec| spec.selector.match_labels).unwrap_or_default());
                }
                ("apps/v1", "ReplicaSet") => {
                    let found = self.replica_sets.get(&key).and_then(|found| found.spec.clone());
                    expressions = found.and_then(|spec| read(spec.selector));
                }
                ("apps/v1", "StatefulSet") => {
                    let found = self.stateful_sets.get(&key).and_then(|found| found.spec.clone());
                    expressions = found.and_then(|spec| read(spec.selector));
                }
                _ => {}
            }
        }
        let mut selector: Selector = merged.into_iter().collect();
        selector.extend(expressions.into_iter().flatten());
        (!selector.selects_all()).then_some(selector)
    }
}

/// The default constraints of a pod whose like are selected by `selector`.
pub fn system_constraints(namespace: &str, selector: &Selector) -> Vec<Constraint> {
    let constraint = |(key, max_skew): (&str, i64)| Constraint {
        selector: Some(selector.clone()),
        set: set_of(namespace, Some(selector)),
        topology_key: key.to_owned(),
        max_skew,
        min_domains: 1,
        honors_affinity: true,
        honors_taints: false,
    };
    SYSTEM.into_iter().map(constraint).collect()
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use kube::{Resource, runtime::watcher::Event};
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::scheduler::pod::PodInfo;

    async fn list<K>(informer: &Arc<Informer<K>>, objects: &[Value])
    where
        K: Resource + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let read = |object: &Value| serde_json::from_value(object.clone()).expect("a valid object");
        let objects = objects.iter().map(|object| Event::InitApply(read(object)));
        let events = [Event::Init].into_iter().chain(objects).chain([Event::InitDone]);
        informer.clone().run(stream::iter(events.map(Ok)), CancellationToken::new()).await;
    }

    fn named(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec})
    }

    #[tokio::test]
    async fn pods_are_selected_by_their_services_and_their_workload() {
        let informers = Informers::default();
        let services = [
            named("web", json!({"selector": {"app": "web"}})),
            named("both", json!({"selector": {"app": "web", "tier": "front"}})),
            named("other", json!({"selector": {"app": "web", "tier": "back"}})),
            named("external", json!({})),
        ];
        list(&informers.services, &services).await;
        let selector = json!({"matchLabels": {"app": "web", "hash": "1"}});
        let template = json!({"metadata": {"labels": {"app": "web", "hash": "1"}}, "spec": {"containers": []}});
        let set = json!({"selector": selector, "template": template, "serviceName": ""});
        list(&informers.replica_sets, &[named("rs", set.clone())]).await;
        list(&informers.stateful_sets, &[named("sts", set)]).await;
        let by_labels = json!({"selector": {"matchLabels": {"app": "web"}}});
        list(&informers.replication_controllers, &[named("rc", by_labels)]).await;
        let selecting = Selecting::new(&informers);
        let selector = |labels: Value, owner: Option<(&str, &str, &str)>| -> Option<String> {
            let owners = owner.map(|(version, kind, name)| {
                json!([{"apiVersion": version, "kind": kind, "name": name, "uid": name, "controller": true}])
            });
            let pod = json!({"metadata": {"name": "p", "namespace": "default", "labels": labels,
                "ownerReferences": owners.unwrap_or(json!([]))}, "spec": {"containers": []}});
            let pod = PodInfo::read(&serde_json::from_value(pod).expect("a valid pod"));
            Some(selecting.selector_of(&pod.needs, pod.owner.as_ref())?.to_string())
        };
        let (web, front) = (json!({"app": "web"}), json!({"app": "web", "tier": "front"}));
        assert_eq!(selector(web.clone(), None).as_deref(), Some("app=web"));
        assert_eq!(selector(front, None).as_deref(), Some("app=web,tier=front"));
        let of = |version, kind, name| selector(web.clone(), Some((version, kind, name)));
        assert_eq!(of("apps/v1", "ReplicaSet", "rs").as_deref(), Some("app=web,app=web,hash=1"));
        assert_eq!(of("apps/v1", "StatefulSet", "sts").as_deref(), Some("app=web,app=web,hash=1"));
        assert_eq!(of("v1", "ReplicationController", "rc").as_deref(), Some("app=web"));
        assert_eq!(of("batch/v1", "Job", "job").as_deref(), Some("app=web"), "the Service's alone");
        assert_eq!(selector(json!({"app": "db"}), Some(("batch/v1", "Job", "job"))), None);
    }
}
