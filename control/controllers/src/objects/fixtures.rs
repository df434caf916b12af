//! What the tests of informers and of several controllers make.

use std::sync::Arc;

use futures::stream;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::{
    Resource,
    runtime::watcher::Event::{Init, InitApply, InitDone},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::engine::Informer;

/// Lists `objects` to the informer.
pub async fn list<K>(informer: &Arc<Informer<K>>, objects: impl IntoIterator<Item = K>)
where
    K: Resource + Send + Sync + 'static,
{
    let listed: Vec<_> = objects.into_iter().map(InitApply).collect();
    let events = [Init].into_iter().chain(listed).chain([InitDone]);
    informer.clone().run(stream::iter(events.map(Ok)), CancellationToken::new()).await;
}

/// A set of the namespace `default` with this selector; its uid is its name.
pub fn replica_set(name: &str, selector: Value) -> ReplicaSet {
    let set = json!({"metadata": {"namespace": "default", "name": name, "uid": name}, "spec": {"selector": selector}});
    serde_json::from_value(set).expect("a valid set")
}
