//! Controllers that work on all kinds, with a kind that is served only after they began.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
    core::GroupVersionKind,
    runtime::{conditions::is_deleted, wait::await_condition},
};
use serde_json::{Value, json};

use super::{Cluster, PATIENCE, create};
use crate::kinds::{BuiltIn, Kind};

fn widgets() -> Kind {
    Kind { group: "example.com".into(), kind: "Widget".into(), plural: "widgets".into(), ..Kind::from(&BuiltIn::PLAIN) }
}

fn api(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("example.com", "v1", "Widget");
    Api::namespaced_with(cluster.client.clone(), namespace, &ApiResource::from_gvk_with_plural(&kind, "widgets"))
}

/// Creates a Widget; returns its uid.
async fn widget(cluster: &Cluster, namespace: &str, name: &str, owners: Value) -> String {
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": name, "ownerReferences": owners}});
    let widget = serde_json::from_value(widget).expect("a valid object");
    let created = api(cluster, namespace).create(&PostParams::default(), &widget).await.expect("created");
    created.metadata.uid.expect("a uid")
}

async fn wait_deleted(cluster: &Cluster, namespace: &str, name: &str, uid: &str) {
    let deleted = await_condition(api(cluster, namespace), name, is_deleted(uid));
    tokio::time::timeout(PATIENCE, deleted).await.expect("in time").expect("a watch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_new_kind_are_collected_and_deleted_with_their_namespace() {
    let cluster = Cluster::start(0).await;
    // The collector works before the kind comes.
    let owned_by = |map: &ConfigMap| {
        let (name, uid) = (&map.metadata.name, &map.metadata.uid);
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}])
    };
    let first: ConfigMap = create(&cluster.client, "default", json!({"metadata": {"name": "first"}})).await;
    cluster.kinds.add(widgets()).expect("added");
    let owned = widget(&cluster, "default", "owned", owned_by(&first)).await;
    let kept = widget(&cluster, "default", "kept", json!([])).await;
    cluster.api::<ConfigMap>().delete("first", &DeleteParams::background()).await.expect("deleted");
    wait_deleted(&cluster, "default", "owned", &owned).await;
    let left = api(&cluster, "default").get("kept").await.expect("is there");
    assert_eq!(left.metadata.uid.as_deref(), Some(kept.as_str()));

    create::<Namespace>(&cluster.client, "", json!({"metadata": {"name": "other"}})).await;
    let other = widget(&cluster, "other", "a", json!([])).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("other", &DeleteParams::default()).await.expect("deleted");
    wait_deleted(&cluster, "other", "a", &other).await;
    let gone = await_condition(namespaces, "other", |namespace: Option<&Namespace>| namespace.is_none());
    tokio::time::timeout(PATIENCE, gone).await.expect("in time").expect("a watch");

    // A kind that is no longer served stops neither controller.
    cluster.kinds.remove("example.com", "v1", "widgets").expect("was served");
    let second: ConfigMap = create(&cluster.client, "default", json!({"metadata": {"name": "second"}})).await;
    let dependent = json!({"metadata": {"name": "dependent", "ownerReferences": owned_by(&second)}});
    create::<ConfigMap>(&cluster.client, "default", dependent).await;
    cluster.api::<ConfigMap>().delete("second", &DeleteParams::background()).await.expect("deleted");
    let gone = await_condition(cluster.api::<ConfigMap>(), "dependent", |map: Option<&ConfigMap>| map.is_none());
    tokio::time::timeout(PATIENCE, gone).await.expect("in time").expect("a watch");
    cluster.stop().await;
}
