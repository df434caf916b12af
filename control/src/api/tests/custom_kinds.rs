//! Kinds that come and go while the API runs, made from data as those of custom resources are.

use std::sync::Arc;

use futures::StreamExt;
use serde_json::{Value, json};

use super::{Server, watches::frames_of};
use crate::{
    allocation::Allocator,
    api::{Api, open_store},
    kinds::{BuiltIn, Cell, Column, FieldError, Kind, Registry},
};

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A kind whose names and rules come from data.
fn widgets(plural: &str) -> Kind {
    let names = json!({"group": "example.com", "plural": plural, "kind": "Widget", "short": "wd", "least": 2});
    let text = |field: &str| names[field].as_str().expect("a text").to_owned();
    let least = names["least"].as_i64().expect("a number");
    Kind {
        group: text("group").into(),
        kind: text("kind").into(),
        plural: text("plural").into(),
        short_names: vec![text("short").into()],
        subresources: vec!["status".into()],
        validate: Arc::new(move |new, _, _| {
            let size = &new["spec"]["size"];
            let small = size.as_i64().is_some_and(|size| size < least);
            small
                .then(|| FieldError::invalid("spec.size", size, format!("must be at least {least}")))
                .into_iter()
                .collect()
        }),
        columns: vec![Column::name(), Column::integer("Size", "Size of the widget.")].into(),
        cells: Arc::new(|o| vec![Cell::name(o), Cell::integer(o["spec"]["size"].as_i64().unwrap_or(0))]),
        selectable: Arc::new(|o| [("spec.size".into(), o["spec"]["size"].to_string())].into()),
        ..Kind::from(&BuiltIn::PLAIN)
    }
}

fn widget(name: &str, size: i64) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}})
}

#[tokio::test]
async fn a_kind_that_is_added_is_served_like_any_other() {
    let server = Server::start().await;
    assert_eq!(server.get("/apis/example.com/v1").await.code, 404);
    let mut heard = server.api.kinds().subscribe();
    heard.mark_unchanged();
    server.api.kinds().add(widgets("widgets")).unwrap();
    heard.changed().await.unwrap();
    assert!(server.api.kinds().snapshot().generation() >= *heard.borrow());

    let resources = server.get("/apis/example.com/v1").await;
    assert_eq!(resources.json["resources"][0]["kind"], "Widget");
    assert_eq!(resources.json["resources"][1]["name"], "widgets/status");
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = server.get_as("/apis", aggregated).await;
    assert!(groups.json["items"].as_array().unwrap().iter().any(|g| g["metadata"]["name"] == "example.com"));

    let mut frames = frames_of(&server, &format!("{WIDGETS}?watch=true")).await;
    assert_eq!(server.post(WIDGETS, widget("small", 1)).await.reason(), (422, "Invalid"));
    assert_eq!(server.post(WIDGETS, widget("a", 3)).await.code, 201);
    let status = server.merge(&format!("{WIDGETS}/a/status"), json!({"status": {"ready": true}})).await;
    assert_eq!(status.json["status"]["ready"], true);
    let added = frames.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["spec"]["size"]), (&json!("ADDED"), &json!(3)));
    assert_eq!(frames.next().await.unwrap()["type"], "MODIFIED");
    assert_eq!(
        server.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D3")).await.json["items"][0]["metadata"]["name"],
        "a"
    );
    let table = server.get_as(WIDGETS, "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(table.json["rows"][0]["cells"], json!(["a", 3]));
    assert_eq!(server.delete(&format!("{WIDGETS}/a"), json!({})).await.code, 200);
    assert_eq!(frames.next().await.unwrap()["type"], "DELETED");
}

#[tokio::test]
async fn a_kind_that_is_removed_is_no_longer_served() {
    let server = Server::start().await;
    server.api.kinds().add(widgets("widgets")).unwrap();
    assert_eq!(server.get(WIDGETS).await.code, 200);
    let heard = server.api.kinds().subscribe();
    assert_eq!(server.api.kinds().remove("example.com", "v1", "widgets").unwrap().kind, "Widget");
    assert!(heard.has_changed().unwrap());
    assert_eq!(server.get(WIDGETS).await.code, 404);
    assert_eq!(server.get("/apis/example.com/v1").await.code, 404);
    assert_eq!(server.get("/apis/example.com").await.code, 404);
    assert_eq!(server.get("/api/v1/namespaces/default/configmaps").await.code, 200);
}

#[tokio::test]
async fn objects_of_a_kind_that_is_not_served_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let open = |kinds: &Registry| {
        let store = Arc::new(open_store(&path, kinds).unwrap());
        let admission = Allocator::new("10.96.0.0/12".parse().unwrap(), 30000..=32767);
        Api::new(store, kinds.clone(), admission, "127.0.0.1:6443")
    };
    let kinds = Registry::default();
    kinds.add(widgets("widgets")).unwrap();
    let server = Server { api: open(&kinds), _dir: None, _tasks: None };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    assert_eq!(server.post("/api/v1/namespaces", namespace).await.code, 201);
    let mut sent = widget("a", 3);
    sent["metadata"]["labels"] = json!({"colour": "red"});
    let written = server.post(WIDGETS, sent).await;
    assert_eq!(written.code, 201);
    drop(server);

    // As after a restart, before the kind is added again.
    let kinds = Registry::default();
    let server = Server { api: open(&kinds), _dir: None, _tasks: None };
    assert_eq!(server.get(WIDGETS).await.code, 404);
    kinds.add(widgets("widgets")).unwrap();
    assert_eq!(server.get(&format!("{WIDGETS}/a")).await.json, written.json);
    let selected = server.get(&format!("{WIDGETS}?labelSelector=colour%3Dred")).await;
    assert_eq!(selected.json["items"][0]["metadata"]["uid"], written.json["metadata"]["uid"]);
    // A write makes what the kind adds to its objects.
    assert_eq!(server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"size": 4}})).await.code, 200);
    let table = server.get_as(WIDGETS, "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(table.json["rows"][0]["cells"], json!(["a", 4]));
}
