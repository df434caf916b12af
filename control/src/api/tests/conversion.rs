//! Custom resources whose versions a webhook converts, over TLS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use http::{Method, header};
use serde_json::{Value, json};

use super::{
    Answer, Server,
    custom_resources::{DEFINITIONS, WIDGETS, definition, version, widget},
    watches::frames_of,
};
use crate::{
    deadline,
    webhook::tests::{Answering, TestServer},
};

/// A webhook that moves `spec.size` (v1) to `spec.width` (v2) and back.
async fn webhook() -> TestServer {
    let answering: Answering = Arc::new(|_, review| Box::pin(std::future::ready((200, answer(&review)))));
    TestServer::start(&["localhost"], answering).await
}

/// The definition of widgets in two versions that `webhook` converts.
fn converted(webhook: &TestServer, storage: &str) -> Value {
    let mut defined = definition(versions(storage));
    defined["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": webhook.client_config("/convert")}});
    defined
}

fn answer(review: &Value) -> Value {
    let version = review["request"]["desiredAPIVersion"].clone();
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = version.clone();
        let (from, to) = if version == "example.com/v2" { ("size", "width") } else { ("width", "size") };
        if let Some(value) = object["spec"].as_object_mut().and_then(|spec| spec.shift_remove(from)) {
            object["spec"][to] = value;
        }
        object
    };
    let objects = review["request"]["objects"].as_array().unwrap();
    if objects.iter().any(|object| object["metadata"]["name"] == "unlucky") {
        return json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {
            "uid": review["request"]["uid"], "result": {"status": "Failed", "message": "out of luck"}}});
    }
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {
        "uid": review["request"]["uid"], "result": {"status": "Success"},
        "convertedObjects": objects.iter().map(convert).collect::<Vec<_>>()}})
}

fn versions(storage: &str) -> Value {
    let mut versions = json!([
        version("v1", storage == "v1", json!({"size": {"type": "integer"}})),
        version("v2", storage == "v2", json!({"width": {"type": "integer", "maximum": 9}})),
    ]);
    versions[0]["selectableFields"] = json!([{"jsonPath": ".spec.size"}]);
    versions[1]["selectableFields"] = json!([{"jsonPath": ".spec.width"}]);
    versions
}

const NEWER: &str = "/apis/example.com/v2/namespaces/default/widgets";

#[tokio::test]
async fn a_webhook_converts_what_is_read_and_written() {
    let server = Server::with_definitions().await;
    let webhook = webhook().await;
    server.define(converted(&webhook, "v1")).await;
    assert_eq!(server.post(WIDGETS, widget("a", json!({"size": 4}))).await.code, 201);
    let newer = server.get(&format!("{NEWER}/a")).await;
    assert_eq!(
        (&newer.json["spec"], &newer.json["apiVersion"]),
        (&json!({"width": 4}), &json!("example.com/v2")),
        "{}",
        newer.text
    );
    let mut second = widget("b", json!({"width": 5}));
    second["apiVersion"] = "example.com/v2".into();
    let created = server.post(NEWER, second.clone()).await;
    assert_eq!((created.code, &created.json["spec"]["width"]), (201, &json!(5)), "{}", created.text);
    second["spec"]["width"] = json!(10);
    second["metadata"]["name"] = "c".into();
    assert_eq!(server.post(NEWER, second).await.code, 422, "checked as the version it was sent in");
    assert_eq!(server.get(&format!("{WIDGETS}/b")).await.json["spec"], json!({"size": 5}));
    let patched = server.merge(&format!("{NEWER}/b"), json!({"spec": {"width": 6}})).await;
    assert_eq!(patched.json["spec"], json!({"width": 6}), "{}", patched.text);

    let list = server.get(NEWER).await.json;
    let widths: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["spec"]["width"]).collect();
    assert_eq!(widths, [&json!(4), &json!(6)]);
    let mut frames = frames_of(&server, &format!("{NEWER}?watch=true")).await;
    assert_eq!(frames.next().await.unwrap()["object"]["spec"]["width"], 4);
    assert_eq!(frames.next().await.unwrap()["object"]["spec"]["width"], 6);
    assert_eq!(server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"size": 7}})).await.code, 200);
    assert_eq!(frames.next().await.unwrap()["object"]["spec"]["width"], 7);

    // Each version selects by its own fields.
    for path in [format!("{WIDGETS}?fieldSelector=spec.size%3D7"), format!("{NEWER}?fieldSelector=spec.width%3D7")] {
        let found = server.get(&path).await.json;
        assert_eq!(found["items"][0]["metadata"]["name"], "a", "{found}");
        assert_eq!(found["items"].as_array().unwrap().len(), 1);
    }
    assert_eq!(server.get(&format!("{NEWER}?fieldSelector=spec.size%3D7")).await.code, 400);
    let mut selected = frames_of(&server, &format!("{NEWER}?watch=true&fieldSelector=spec.width%3D6")).await;
    assert_eq!(selected.next().await.unwrap()["object"]["metadata"]["name"], "b");

    // Another storage version: objects of both are read as either.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut changed = server.get(&path).await.json;
    changed["spec"]["versions"] = versions("v2");
    assert_eq!(server.put(&path, changed).await.code, 200);
    let stored = |object: &Value| object["status"]["storedVersions"] == json!(["v1", "v2"]);
    server.wait(&path, "stored in both versions", stored).await;
    let mut third = widget("d", json!({"width": 1}));
    third["apiVersion"] = "example.com/v2".into();
    assert_eq!(server.post(NEWER, third).await.code, 201);
    for (path, field, version) in [(WIDGETS, "size", "example.com/v1"), (NEWER, "width", "example.com/v2")] {
        let list = server.get(path).await;
        for item in list.json["items"].as_array().unwrap_or_else(|| panic!("{}", list.text)) {
            assert_eq!(item["apiVersion"], version);
            assert!(item["spec"][field].is_number(), "{item}");
        }
    }

    // What cannot be converted fails the whole read, as in Kubernetes.
    let mut unlucky = widget("unlucky", json!({"width": 1}));
    unlucky["apiVersion"] = "example.com/v2".into();
    assert_eq!(server.post(NEWER, unlucky).await.code, 201);
    let failed = server.get(WIDGETS).await;
    assert_eq!(failed.code, 500);
    assert!(failed.message().ends_with("failed: out of luck"), "{}", failed.text);
}

#[tokio::test]
async fn a_change_is_converted_once_for_all_watchers_of_a_version() {
    let server = Server::with_definitions().await;
    let webhook = webhook().await;
    server.define(converted(&webhook, "v1")).await;
    assert_eq!(server.post(WIDGETS, widget("a", json!({"size": 1}))).await.code, 201);
    let mut watchers = Vec::new();
    for _ in 0..4 {
        let mut frames = frames_of(&server, &format!("{NEWER}?watch=true")).await;
        assert_eq!(frames.next().await.unwrap()["object"]["spec"]["width"], 1);
        watchers.push(frames);
    }
    let calls = || webhook.requests.lock().len();
    assert_eq!(calls(), 1, "the state that they began with");
    assert_eq!(server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"size": 2}})).await.code, 200);
    let all = futures::future::join_all(watchers.iter_mut().map(StreamExt::next)).await;
    assert!(all.into_iter().all(|frame| frame.unwrap()["object"]["spec"]["width"] == 2));
    assert_eq!(calls(), 2, "the change");
    assert_eq!(webhook.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "the connection is kept");
}

/// Applies a widget of `apiVersion` `version` as `manager`.
async fn apply(server: &Server, path: &str, version: &str, manager: &str, spec: Value) -> Answer {
    let config = json!({"apiVersion": version, "kind": "Widget", "metadata": {"name": "a"}, "spec": spec});
    let content_type = (header::CONTENT_TYPE.as_str(), "application/apply-patch+yaml");
    let path = format!("{path}/a?fieldManager={manager}");
    server.call(Method::PATCH, &path, &[content_type], config.to_string()).await
}

/// Each manager of an object: its name, the version that it used, and what it owns.
fn managers(object: &Value) -> Vec<(String, String, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let mut all: Vec<_> = entries
        .iter()
        .map(|entry| (text(&entry["manager"]), text(&entry["apiVersion"]), entry["fieldsV1"]["f:spec"].clone()))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[tokio::test]
async fn managers_apply_in_the_versions_that_they_know() {
    const V1: &str = "example.com/v1";
    const V2: &str = "example.com/v2";
    let server = Server::with_definitions().await;
    let webhook = webhook().await;
    let mut defined = converted(&webhook, "v1");
    for at in [0, 1] {
        let properties = &mut defined["spec"]["versions"][at]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        properties["properties"]["color"] = json!({"type": "string"});
    }
    server.define(defined).await;
    let owner = |name: &str, version: &str, fields: Value| (name.to_owned(), version.to_owned(), fields);

    let created = apply(&server, NEWER, V2, "new", json!({"width": 4})).await;
    assert_eq!((created.code, &created.json["spec"]), (201, &json!({"width": 4})), "{}", created.text);
    assert_eq!(managers(&created.json), [owner("new", V2, json!({"f:width": {}}))]);
    let both = apply(&server, WIDGETS, V1, "old", json!({"color": "red", "size": 4})).await;
    assert_eq!((both.code, &both.json["spec"]), (200, &json!({"size": 4, "color": "red"})), "{}", both.text);

    // The same field, by its name in each version.
    let refused = apply(&server, WIDGETS, V1, "old", json!({"color": "red", "size": 5})).await;
    assert_eq!(refused.code, 409, "{}", refused.text);
    assert!(refused.message().contains("conflict with \"new\": .spec.width"), "{}", refused.text);
    // An update in one version takes the field from those who own it in the other.
    let updated = server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"size": 6}})).await;
    assert_eq!(updated.json["spec"], json!({"size": 6, "color": "red"}), "{}", updated.text);
    let owners = managers(&updated.json);
    assert!(!owners.iter().any(|(name, ..)| name == "new"), "{owners:?}");
    assert!(owners.contains(&owner("old", V1, json!({"f:color": {}}))), "{owners:?}");

    // What a manager no longer names goes, in whatever version it named it the last time.
    let renamed = apply(&server, NEWER, V2, "old", json!({"width": 6})).await;
    assert_eq!((renamed.code, &renamed.json["spec"]), (200, &json!({"width": 6})), "{}", renamed.text);
    assert!(managers(&renamed.json).contains(&owner("old", V2, json!({"f:width": {}}))));

    // The schema of the version that is applied holds.
    let refused = apply(&server, NEWER, V2, "old&force=true", json!({"width": 10})).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
}

#[tokio::test]
async fn an_update_is_stored_in_the_storage_version_of_now() {
    let server = Server::with_definitions().await;
    let webhook = webhook().await;
    server.define(converted(&webhook, "v1")).await;
    assert_eq!(server.post(WIDGETS, widget("a", json!({"size": 4}))).await.code, 201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut changed = server.get(&path).await.json;
    changed["spec"]["versions"] = versions("v2");
    assert_eq!(server.put(&path, changed).await.code, 200);
    let stored = |object: &Value| object["status"]["storedVersions"] == json!(["v1", "v2"]);
    server.wait(&path, "stored in both versions", stored).await;

    let applied = apply(&server, NEWER, "example.com/v2", "m", json!({"width": 4})).await;
    assert_eq!((applied.code, &applied.json["spec"]), (200, &json!({"width": 4})), "{}", applied.text);
    assert_eq!(server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"size": 7}})).await.code, 200);
    for (path, spec) in [(WIDGETS, json!({"size": 7})), (NEWER, json!({"width": 7}))] {
        let read = server.get(&format!("{path}/a")).await;
        assert_eq!(read.json["spec"], spec, "{}", read.text);
    }
    let key = "default/a";
    let stored = server.api.store().snapshot().get("widgets.example.com", key).unwrap().clone();
    let stored: Value = serde_json::from_slice(&stored.json()).unwrap();
    assert_eq!((&stored["apiVersion"], &stored["spec"]), (&json!("example.com/v2"), &json!({"width": 7})));
}

#[tokio::test]
async fn an_object_is_written_without_an_account_where_its_managers_versions_cannot_be_converted() {
    let server = Server::with_definitions().await;
    let is_away = Arc::new(AtomicBool::new(false));
    let away = is_away.clone();
    let answering: Answering = Arc::new(move |_, review| {
        let code = if away.load(Ordering::SeqCst) { 503 } else { 200 };
        Box::pin(std::future::ready((code, answer(&review))))
    });
    let webhook = TestServer::start(&["localhost"], answering).await;
    server.define(converted(&webhook, "v1")).await;
    assert_eq!(apply(&server, NEWER, "example.com/v2", "m", json!({"width": 4})).await.code, 201);
    is_away.store(true, Ordering::SeqCst);
    let written = server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"size": 5}})).await;
    assert_eq!((written.code, &written.json["spec"]["size"]), (200, &json!(5)), "{}", written.text);
    assert_eq!(written.json["metadata"]["managedFields"], Value::Null);
    let refused = apply(&server, NEWER, "example.com/v2", "m", json!({"width": 4})).await;
    assert_eq!(refused.code, 500, "{}", refused.text);
    assert!(refused.message().contains("conversion webhook for example.com"), "{}", refused.text);
}

#[tokio::test]
async fn a_webhook_that_hangs_is_waited_for_no_longer_than_the_request_has() {
    let server = Server::with_definitions().await;
    let webhook = TestServer::start(&["localhost"], Arc::new(|_, _| Box::pin(std::future::pending()))).await;
    server.define(converted(&webhook, "v1")).await;
    let kind = server.api.kinds().snapshot().by_path("example.com", "v2", "widgets").unwrap();
    let converter = kind.custom.as_ref().unwrap().webhook.clone().unwrap();
    let asked = converter.convert(vec![widget("a", json!({"size": 1}))], "example.com/v2");
    let begun = std::time::Instant::now();
    let refused = deadline::within(Duration::from_millis(50), asked).await.unwrap_err();
    assert!(refused.message.contains("context deadline exceeded"), "{}", refused.message);
    assert!(begun.elapsed() < Duration::from_secs(15), "Kubernetes' 30 seconds are for one call of a request");
    let asked = converter.convert(vec![widget("a", json!({"size": 1}))], "example.com/v2");
    assert_eq!(deadline::within(Duration::ZERO, asked).await.unwrap_err().code, 504);
    assert!(webhook.requests.lock().len() <= 1, "a request that is over asks no further");
}

#[tokio::test]
async fn only_served_versions_are_asked_for_whatever_managers_a_client_names() {
    let server = Server::with_definitions().await;
    let webhook = webhook().await;
    server.define(converted(&webhook, "v1")).await;
    let fields = json!({"f:spec": {"f:width": {}}});
    let entries = ["example.com/v2", "example.com/v3", "example.com/v4", "other.com/v2", "v1"];
    let entries = entries.map(|version| {
        json!({"manager": version, "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1",
            "fieldsV1": fields})
    });
    let mut widget = widget("a", json!({"size": 1}));
    widget["metadata"]["managedFields"] = json!(entries);
    assert_eq!(server.post(WIDGETS, widget).await.code, 201);
    let written = server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"size": 2}})).await;
    assert_eq!(written.code, 200, "{}", written.text);
    let bodies = webhook.bodies("/convert");
    assert!(!bodies.is_empty());
    for body in bodies {
        let wanted = body["request"]["desiredAPIVersion"].as_str().unwrap().to_owned();
        assert!(["example.com/v1", "example.com/v2"].contains(&&*wanted), "{wanted}");
    }
}
