//! Watches as clients use them: raw frames, and kube's watcher in both of its modes.

use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use http::{Method, Request};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};

use super::{Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The frames of a watch of ConfigMaps, one by one.
async fn frames(server: &Server, query: &str) -> impl Stream<Item = Value> + Unpin + use<> {
    frames_of(server, &format!("{MAPS}?watch=true{query}")).await
}

/// The frames of a watch at `path`, one by one.
pub async fn frames_of(server: &Server, path: &str) -> impl Stream<Item = Value> + Unpin + use<> {
    let request = Request::builder().method(Method::GET).uri(path);
    let response = server.send(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let chunks = response.into_body().into_data_stream().map_err(|e| panic!("{e}"));
    let lines = chunks.map_ok(|chunk: bytes::Bytes| {
        let text = String::from_utf8(chunk.to_vec()).unwrap();
        assert!(text.ends_with('\n'), "chunks end with whole frames");
        let frames: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        futures::stream::iter(frames)
    });
    Box::pin(lines.map(|frames: Result<_, std::convert::Infallible>| frames.unwrap()).flatten())
}

fn words(frame: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&frame["type"]), text(&frame["object"]["metadata"]["name"]))
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    let mut frames = frames(&server, "").await;
    assert_eq!(words(&frames.next().await.unwrap()), pair("ADDED", "a"));
    server.merge(&format!("{MAPS}/a"), json!({"data": {"x": "y"}})).await;
    assert_eq!(words(&frames.next().await.unwrap()), pair("MODIFIED", "a"));
    server.delete(&format!("{MAPS}/a"), json!({})).await;
    let deleted = frames.next().await.unwrap();
    assert_eq!(words(&deleted), pair("DELETED", "a"));
    assert_eq!(deleted["object"]["data"]["x"], "y");
}

#[tokio::test]
async fn an_object_enters_and_leaves_a_selection() {
    let server = Server::start().await;
    let mut frames = frames(&server, "&labelSelector=in%3Dyes").await;
    server.post(MAPS, config_map("a", json!({"in": "no"}))).await;
    let path = format!("{MAPS}/a");
    server.merge(&path, json!({"metadata": {"labels": {"in": "yes"}}})).await;
    assert_eq!(words(&frames.next().await.unwrap()), pair("ADDED", "a"));
    let out = server.merge(&path, json!({"metadata": {"labels": {"in": "no"}}})).await;
    let left = frames.next().await.unwrap();
    assert_eq!(words(&left), pair("DELETED", "a"));
    assert_eq!(left["object"]["metadata"]["labels"]["in"], "yes", "as it was when it was last selected");
    assert_eq!(left["object"]["metadata"]["resourceVersion"], out.json["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_watch_of_one_name_does_not_wake_for_the_same_name_in_other_namespaces() {
    let server = Server::start().await;
    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    assert_eq!(server.post("/api/v1/namespaces", other).await.code, 201);
    let everywhere = "/api/v1/configmaps?watch=true&fieldSelector=metadata.name%3Da";
    let mut everywhere = frames_of(&server, everywhere).await;
    let mut watches = Vec::new();
    for path in [
        format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Da"),
        "/api/v1/watch/namespaces/default/configmaps/a".to_owned(),
        "/api/v1/configmaps?watch=true&fieldSelector=metadata.name%3Da,metadata.namespace%3Ddefault".to_owned(),
    ] {
        watches.push(frames_of(&server, &path).await);
    }
    let wakes = || server.api.store().stats().watch_wakes;
    let before = wakes();
    server.post("/api/v1/namespaces/other/configmaps", config_map("a", json!({}))).await;
    assert_eq!(words(&everywhere.next().await.unwrap()), pair("ADDED", "a"));
    assert_eq!(wakes() - before, 1);
    server.post(MAPS, config_map("a", json!({}))).await;
    for watch in &mut watches {
        assert_eq!(words(&watch.next().await.unwrap()), pair("ADDED", "a"));
    }
    assert_eq!(wakes() - before, 5);
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    let query = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut frames = frames(&server, query).await;
    assert_eq!(words(&frames.next().await.unwrap()), pair("ADDED", "a"));
    let bookmark = frames.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    // Since Kubernetes 1.34, who names no revision asks for the same.
    for query in ["", "&resourceVersion=0"] {
        let mut legacy = self::frames(&server, &format!("{query}&allowWatchBookmarks=true")).await;
        assert_eq!(words(&legacy.next().await.unwrap()), pair("ADDED", "a"));
        let bookmark = legacy.next().await.unwrap();
        assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true", "{query}");
    }
    let refused = server.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(refused.reason(), (422, "Invalid"));
    assert_eq!(
        refused.message(),
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
         resourceVersionMatch to NotOlderThan"
    );
}

#[tokio::test]
async fn a_version_that_is_too_old_is_expired_and_one_from_the_future_times_out() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    let created = server.post(MAPS, config_map("b", json!({}))).await;
    let revision: u64 = created.json["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    server.api.store().compact(revision);
    let mut old = frames(&server, "&resourceVersion=1").await;
    let frame = old.next().await.unwrap();
    assert_eq!((&frame["type"], &frame["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(frame["object"]["reason"], "Expired");
    assert!(old.next().await.is_none());
    let mut future = frames(&server, "&resourceVersion=999").await;
    let frame = future.next().await.unwrap();
    assert_eq!((&frame["type"], &frame["object"]["code"]), (&json!("ERROR"), &json!(504)));
    assert_eq!(frame["object"]["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert!(future.next().await.is_none());
    let refused = server.get(&format!("{MAPS}?watch=true&resourceVersion=x")).await;
    let words = "configmaps \"\" is invalid: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": \
        invalid syntax";
    assert_eq!((refused.code, refused.message()), (422, words));
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let server = Server::start().await;
    let mut frames = frames(&server, "&timeoutSeconds=1").await;
    let end = tokio::time::timeout(Duration::from_secs(10), frames.next()).await;
    assert_eq!(end.unwrap(), None);
}

#[tokio::test]
async fn the_last_bookmark_comes_shortly_before_the_end() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    let revision = server.api.store().published();
    let query = format!("&resourceVersion={revision}&allowWatchBookmarks=true&timeoutSeconds=3");
    let mut frames = frames(&server, &query).await;
    let bookmark = frames.next().await.unwrap();
    let expected = json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"resourceVersion": revision.to_string()}}});
    assert_eq!(bookmark, expected);
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn the_older_paths_watch_as_well() {
    let server = Server::start().await;
    let path = "/api/v1/watch/namespaces/default/configmaps";
    let mut all = frames_of(&server, path).await;
    let mut one = frames_of(&server, &format!("{path}/b")).await;
    for name in ["a", "b"] {
        server.post(MAPS, config_map(name, json!({}))).await;
    }
    assert_eq!(words(&all.next().await.unwrap()), pair("ADDED", "a"));
    assert_eq!(words(&all.next().await.unwrap()), pair("ADDED", "b"));
    assert_eq!(words(&one.next().await.unwrap()), pair("ADDED", "b"));
    let other = server.get(&format!("{path}/b?fieldSelector=metadata.name%3Da")).await;
    assert_eq!((other.code, other.message()), (400, "fieldSelector metadata.name doesn't match requested name"));
}

#[tokio::test]
async fn a_watched_table_names_its_columns_once() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        server.post(MAPS, config_map(name, json!({}))).await;
    }
    let request = Request::builder()
        .uri(format!("{MAPS}?watch=true"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let response = server.send(request.body(axum::body::Body::empty()).unwrap()).await;
    let chunk = response.into_body().into_data_stream().next().await.unwrap().unwrap();
    let frames: Vec<Value> =
        chunk.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    let columns = |frame: &Value| frame["object"]["columnDefinitions"].as_array().map(Vec::len);
    assert_eq!((columns(&frames[0]), columns(&frames[1])), (Some(3), None));
    assert_eq!(frames[1]["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test]
async fn kube_watches_in_both_modes() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let api = kube::Api::<ConfigMap>::namespaced(server.client(), "default");
        let mut touched = watcher(api, config).default_backoff().touched_objects().boxed();
        let first = tokio::time::timeout(Duration::from_secs(10), touched.try_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.metadata.name.as_deref(), Some("a"));
        server.merge(&format!("{MAPS}/a"), json!({"data": {"n": first.metadata.resource_version}})).await;
        let second = tokio::time::timeout(Duration::from_secs(10), touched.try_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(second.data.unwrap()["n"], first.metadata.resource_version.unwrap());
    }
}
