//! Which objects may select another, or be selected by it: found by the indexes of the informers, so that a selector is
//! tried on few.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::Resource;

use super::informer_index::{labelled, labelled_orphans, orphans_in, selecting, selecting_by_expressions};
use crate::engine::Informer;

/// The objects of a namespace that nothing controls and that `selector` may select: those with the rarest of its
/// labels, or all where it names none.
pub fn orphans_for<K>(informer: &Informer<K>, namespace: &str, selector: Option<&LabelSelector>) -> Vec<Arc<K>>
where
    K: Resource + Send + Sync + 'static,
{
    let labels = selector.and_then(|s| s.match_labels.as_ref()).into_iter().flatten();
    let names = labels.map(|(key, value)| labelled_orphans(namespace, key, value));
    let rarest = names.min_by_key(|name| informer.count(name));
    informer.indexed(&rarest.unwrap_or_else(|| orphans_in(namespace)))
}

/// The pods of a namespace that `selector` may select: those with the rarest of its labels, or all where it names none.
pub fn pods_for(pods: &Informer<Pod>, namespace: &str, selector: &LabelSelector) -> Vec<Arc<Pod>> {
    let labels = selector.match_labels.iter().flatten();
    let names = labels.map(|(key, value)| labelled(namespace, key, value));
    match names.min_by_key(|name| pods.count(name)) {
        Some(rarest) => pods.indexed(&rarest),
        None => pods.in_namespace(namespace),
    }
}

/// The objects of a namespace whose selectors may select an object with `labels`.
pub fn selectors_for<'l, K>(
    informer: &Informer<K>,
    namespace: &str,
    labels: impl IntoIterator<Item = (&'l String, &'l String)>,
) -> Vec<Arc<K>>
where
    K: Resource + Send + Sync + 'static,
{
    let names = labels.into_iter().map(|(key, value)| selecting(namespace, key, value));
    let names = names.chain([selecting_by_expressions(namespace)]);
    names.flat_map(|name| informer.indexed(&name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::{
            fixtures::{list, replica_set},
            informer_index::{owned_by, pod_index, replica_set_index},
        },
        *,
    };

    async fn pods(pods: &[Value]) -> Arc<Informer<Pod>> {
        let informer = Informer::new(Some(pod_index));
        list(&informer, pods.iter().map(|pod| serde_json::from_value(pod.clone()).expect("a valid pod"))).await;
        informer
    }

    fn pod(name: &str, labels: Value, owner: Value) -> Value {
        json!({"metadata": {"namespace": "default", "name": name, "uid": name, "labels": labels,
            "ownerReferences": owner}})
    }

    #[tokio::test]
    async fn orphans_are_found_by_the_rarest_label_without_the_other_pods_of_the_namespace() {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "x", "controller": true}]);
        let informer = pods(&[
            pod("a", json!({"app": "web", "env": "prod"}), json!([])),
            pod("b", json!({"app": "db", "env": "prod"}), json!([])),
            pod("owned", json!({"app": "web", "env": "prod"}), owner),
        ])
        .await;
        let found = |selector: Value| -> Vec<String> {
            let selector: LabelSelector = serde_json::from_value(selector).expect("a valid selector");
            let found = orphans_for(&informer, "default", Some(&selector));
            found.iter().filter_map(|pod| pod.metadata.name.clone()).collect()
        };
        assert_eq!(found(json!({"matchLabels": {"app": "web", "env": "prod"}})), ["a"]);
        assert_eq!(found(json!({"matchLabels": {"app": "cache"}})), [""; 0]);
        assert_eq!(found(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]})), ["a", "b"]);
        assert_eq!(informer.indexed(&owned_by("x")).len(), 1);
    }

    #[tokio::test]
    async fn the_sets_that_may_select_a_pod_are_found_by_its_labels() {
        let informer = Informer::new(Some(replica_set_index));
        let sets = [
            replica_set("web", json!({"matchLabels": {"app": "web"}})),
            replica_set("db", json!({"matchLabels": {"app": "db"}})),
            replica_set("any", json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]})),
        ];
        list(&informer, sets).await;
        let labels = std::collections::BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let found = selectors_for(&informer, "default", &labels);
        let names: Vec<_> = found.iter().filter_map(|set| set.metadata.name.as_deref()).collect();
        assert_eq!(names, ["web", "any"]);
    }
}
