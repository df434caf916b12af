//! kube-rs against the cluster of `KUBECONFIG`, in the namespace of the first argument: a watcher and its store, pages,
//! patches, apply, conflicts, and a custom resource through the dynamic API.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
    },
    core::GroupVersionKind,
    runtime::{WatchStreamExt, conditions, reflector, wait::await_condition, watcher},
};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<()> {
    let namespace = std::env::args().nth(1).context("the namespace is the first argument")?;
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = Client::try_default().await?;
    let all = async {
        typed(&client, &namespace).await?;
        custom(&client).await
    };
    tokio::time::timeout(Duration::from_secs(180), all).await.context("the time is over")??;
    println!("kube-rs: ok");
    Ok(())
}

async fn typed(client: &Client, namespace: &str) -> Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
    namespaces.create(&PostParams::default(), &object).await?;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let (store, writer) = reflector::store();
    let mut changes = pin!(watcher(maps.clone(), watcher::Config::default()).default_backoff().reflect(writer));

    for n in 0..5 {
        let object: ConfigMap = serde_json::from_value(
            json!({ "metadata": { "name": format!("m{n}"), "labels": { "a": "b" } }, "data": { "k": "v" } }),
        )?;
        let bytes = BTreeMap::from([("b".to_owned(), ByteString(vec![0, 255]))]);
        maps.create(&PostParams::default(), &ConfigMap { binary_data: Some(bytes), ..object }).await?;
    }
    until(&mut changes, || store.find(|map| map.name_any() == "m4").is_some()).await?;
    let again = maps.create(&PostParams::default(), &ConfigMap { metadata: named("m0"), ..ConfigMap::default() }).await;
    refused(again, "AlreadyExists")?;

    let (mut found, mut page) = (0, ListParams::default().labels("a=b").limit(2));
    loop {
        let list = maps.list(&page).await?;
        found += list.items.len();
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    ensure!(found == 5, "a list in pages has {found}");

    let mut first = maps.get("m0").await?;
    let bytes = first.binary_data.as_ref().and_then(|data| data.get("b"));
    ensure!(bytes.is_some_and(|bytes| bytes.0 == [0, 255]), "bytes come back: {bytes:?}");
    first.data.get_or_insert_default().insert("k".into(), "w".into());
    maps.replace("m0", &PostParams::default(), &first).await?;
    until(&mut changes, || {
        store.find(|map| map.data.as_ref().is_some_and(|data| data.get("k").is_some_and(|k| k == "w"))).is_some()
    })
    .await?;
    refused(maps.replace("m0", &PostParams::default(), &first).await, "Conflict")?;

    let params = PatchParams::default();
    maps.patch("m0", &params, &Patch::Merge(json!({ "data": { "merge": "1" } }))).await?;
    maps.patch("m0", &params, &Patch::Strategic(json!({ "data": { "strategic": "1" } }))).await?;
    let operations = serde_json::from_value(json!([{ "op": "add", "path": "/data/json", "value": "1" }]))?;
    maps.patch("m0", &params, &Patch::Json::<()>(operations)).await?;
    let applied = |key: &str, value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { key: value } });
    let own = maps.patch("m0", &PatchParams::apply("rust"), &Patch::Apply(applied("applied", "1"))).await?;
    let data = own.data.unwrap_or_default();
    ensure!(
        ["merge", "strategic", "json", "applied"].iter().all(|key| data.get(*key).is_some_and(|value| value == "1")),
        "patched: {data:?}"
    );
    let others = maps.patch("m0", &PatchParams::apply("other"), &Patch::Apply(applied("merge", "2"))).await;
    refused(others, "Conflict")?;

    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("a=b")).await?;
    until(&mut changes, || store.find(|map| map.name_any() == "m0").is_none()).await?;
    namespaces.delete(namespace, &DeleteParams::default()).await?;
    Ok(())
}

async fn custom(client: &Client) -> Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let name = "widgets.clients.example.com";
    let definition = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "group": "clients.example.com", "scope": "Cluster", "names": { "plural": "widgets", "kind": "Widget" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }],
        },
    }))?;
    definitions.create(&PostParams::default(), &definition).await?;
    await_condition(definitions.clone(), name, conditions::is_crd_established()).await?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("clients.example.com", "v1", "Widget"));
    let widgets = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let mut watch = pin!(widgets.watch(&WatchParams::default().disable_bookmarks(), "0").await?);
    let object = DynamicObject::new("w", &resource).data(json!({ "spec": { "size": 3 } }));
    widgets.create(&PostParams::default(), &object).await?;
    match watch.try_next().await? {
        Some(WatchEvent::Added(seen)) if seen.data["spec"]["size"] == 3 => {}
        other => bail!("a watch of custom resources: {other:?}"),
    }
    definitions.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// Follows `changes` until `holds`.
async fn until<T>(
    changes: &mut (impl Stream<Item = Result<T, watcher::Error>> + Unpin),
    holds: impl Fn() -> bool,
) -> Result<()> {
    while !holds() {
        changes.next().await.context("the watcher ended")??;
    }
    Ok(())
}

fn refused<T: Debug>(answer: kube::Result<T>, reason: &str) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.reason == reason => Ok(()),
        other => bail!("{reason} was expected: {other:?}"),
    }
}

fn named(name: &str) -> kube::core::ObjectMeta {
    kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}
