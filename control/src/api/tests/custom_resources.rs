//! Custom resources from the definition to the last object, as clients meet them.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Answer, Server, watches::frames_of};
use crate::{
    allocation::Allocator,
    api::{Api, open_store},
    auth::Identity,
    definitions::controller,
    kinds::Registry,
    webhook::{Dial, Network},
};

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
const PATIENCE: Duration = Duration::from_secs(20);

impl Server {
    /// A server that serves what definitions define.
    pub async fn with_definitions() -> Self {
        let mut server = Self::start().await;
        server.run_definitions();
        server
    }

    pub fn run_definitions(&mut self) {
        let stop = CancellationToken::new();
        let (store, kinds) = (self.api.store_handle(), self.api.kinds().clone());
        tokio::spawn(controller::run(store, kinds, self.client(), Arc::new(Network), stop.clone()));
        self._tasks = Some(stop.drop_guard());
    }

    /// Creates a definition and waits until it is established.
    pub async fn define(&self, definition: Value) {
        let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
        let created = self.post(DEFINITIONS, definition).await;
        assert_eq!(created.code, 201, "{}", created.text);
        self.wait(&format!("{DEFINITIONS}/{name}"), "established", |object| is_true(object, "Established")).await;
    }

    /// Waits until the object is as `is` says.
    pub async fn wait(&self, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let answer = self.get(path).await;
                if is(&answer.json) {
                    return answer.json;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{path} did not become {what}"))
    }
}

fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == condition && one["status"] == "True")
}

/// A definition of Widgets with these versions.
pub fn definition(versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["toys"]}}})
}

/// A version whose spec has these properties.
pub fn version(name: &str, storage: bool, properties: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": properties},
            "status": {"type": "object", "properties": {"ready": {"type": "boolean"},
                "replicas": {"type": "integer"}}}}}}})
}

pub fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn plain() -> Value {
    let properties = json!({
        "size": {"type": "integer", "default": 3, "minimum": 1},
        "color": {"type": "string", "enum": ["red", "blue"]},
        "replicas": {"type": "integer"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}});
    let mut version = version("v1", true, properties);
    let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([
        {"rule": "!has(self.color) || self.color != 'red' || self.size < 10", "message": "red widgets are small"},
        {"rule": "!has(oldSelf.color) || has(self.color)", "message": "a color stays"}]);
    version["subresources"]["scale"] =
        json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
    version["additionalPrinterColumns"] = json!([{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]);
    version["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    definition(json!([version]))
}

fn causes(answer: &Answer) -> Vec<String> {
    let causes = answer.json["details"]["causes"].as_array().into_iter().flatten();
    causes
        .map(|cause| format!("{}: {}", cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn lists_are_called_as_the_definition_says() {
    let server = Server::with_definitions().await;
    let mut named = plain();
    named["spec"]["names"]["listKind"] = json!("Widgetry");
    server.define(named).await;
    assert_eq!(server.get(WIDGETS).await.json["kind"], "Widgetry");
    let metadata = server.get_as(WIDGETS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(metadata.json["kind"], "PartialObjectMetadataList");
}

#[tokio::test]
async fn a_definition_makes_a_kind_with_all_it_says() {
    let server = Server::with_definitions().await;
    server.define(plain()).await;
    let defined = server.get(&format!("{DEFINITIONS}/widgets.example.com")).await.json;
    assert_eq!(defined["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(server.get(WIDGETS).await.json["kind"], "WidgetList");
    assert_eq!(defined["status"]["acceptedNames"]["singular"], "widget");
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
    let resources = server.get("/apis/example.com/v1").await.json;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wd"]));
    assert_eq!(resources["resources"].as_array().unwrap().len(), 3);

    // Defaults, pruning, warnings.
    let created = server.post(WIDGETS, widget("a", json!({"color": "blue", "nope": 1}))).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.json["spec"], json!({"color": "blue", "size": 3}));
    assert_eq!(created.json["metadata"]["generation"], 1);
    assert_eq!(created.headers["warning"], "299 - \"unknown field \\\"spec.nope\\\"\"");
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    assert_eq!(server.post(&strict, widget("b", json!({"nope": 1}))).await.code, 400);

    // Validation.
    let refused = server.post(WIDGETS, widget("b", json!({"size": "x", "color": "green", "tags": ["a", "a"]}))).await;
    assert_eq!(refused.reason(), (422, "Invalid"));
    assert_eq!(
        causes(&refused),
        [
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
            "spec.tags[1]: Duplicate value: \"a\"",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; \
            correct the existing errors to complete validation",
        ]
    );
    let refused = server.post(WIDGETS, widget("b", json!({"size": 20, "color": "red"}))).await;
    assert_eq!(causes(&refused), ["spec: Invalid value: red widgets are small"]);
    let refused = server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"color": null}})).await;
    assert_eq!(causes(&refused), ["spec: Invalid value: a color stays"]);

    // Subresources, columns, field selectors.
    let status =
        server.merge(&format!("{WIDGETS}/a/status"), json!({"status": {"ready": true}, "spec": {"size": 9}})).await;
    assert_eq!((&status.json["status"]["ready"], &status.json["spec"]["size"]), (&json!(true), &json!(3)));
    let metadata = json!({"labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a.io/b"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]});
    let status = server.merge(&format!("{WIDGETS}/a/status"), json!({"metadata": metadata})).await;
    assert_eq!(status.code, 200);
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        assert_eq!(status.json["metadata"][field], Value::Null, "{field} is not of the status");
    }
    for metadata in [
        json!({"uid": "another"}),
        json!({"deletionTimestamp": "2030-01-01T00:00:00Z"}),
        json!({"deletionGracePeriodSeconds": 5}),
    ] {
        let passed_over = server.merge(&format!("{WIDGETS}/a/status"), json!({"metadata": metadata})).await;
        assert_eq!((passed_over.code, &passed_over.json), (200, &status.json), "{metadata}");
        let refused = server.merge(&format!("{WIDGETS}/a"), json!({"metadata": metadata})).await;
        assert_eq!(refused.code, 422, "{metadata}");
    }
    let scaled =
        server.merge(&format!("{WIDGETS}/a"), json!({"spec": {"replicas": 2}, "status": {"ready": false}})).await;
    assert_eq!((&scaled.json["status"]["ready"], &scaled.json["metadata"]["generation"]), (&json!(true), &json!(2)));
    let scale = server.merge(&format!("{WIDGETS}/a/scale"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scale.json["spec"]["replicas"], 5, "{}", scale.text);
    assert_eq!(server.get(&format!("{WIDGETS}/a")).await.json["spec"]["replicas"], 5);
    let table = server.get_as(WIDGETS, "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(table.json["rows"][0]["cells"], json!(["a", 3]));
    let selected = server.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dblue")).await;
    assert_eq!(selected.json["items"].as_array().unwrap().len(), 1);
    assert_eq!(selected.json["kind"], "WidgetList");
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    assert_eq!(server.call(Method::PATCH, &format!("{WIDGETS}/a"), &strategic, "{}").await.code, 415);

    // OpenAPI.
    let document = server.get("/openapi/v3/apis/example.com/v1").await.json;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["color"]["enum"], json!(["red", "blue"]));
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    assert!(server.get("/openapi/v2").await.json["definitions"]["com.example.v1.Widget"].is_object());
}

#[tokio::test]
async fn a_malformed_definition_is_refused_with_kubernetes_words() {
    let server = Server::with_definitions().await;
    let mut bad = plain();
    bad["metadata"]["name"] = "wrong.example.com".into();
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = json!({"a": {},
        "b": {"type": "string", "x-kubernetes-validations": [{"rule": "self.nope == 1"}]},
        "c": {"type": "integer", "default": "x"}});
    let refused = server.post(DEFINITIONS, bad).await;
    assert_eq!(refused.reason(), (422, "Invalid"));
    let causes = causes(&refused);
    let start = "spec.validation.openAPIV3Schema.properties[spec].properties";
    for expected in [
        "metadata.name: Invalid value: \"wrong.example.com\": must be spec.names.plural+\".\"+spec.group".to_owned(),
        format!("{start}[a].type: Required value: must not be empty for specified object fields"),
    ] {
        assert!(causes.contains(&expected), "{expected}: {causes:#?}");
    }
    let mut bad = plain();
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["b"] =
        json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.nope == 1"}]});
    let refused = server.post(DEFINITIONS, bad).await;
    assert!(refused.message().contains("type 'string' does not support field selection"), "{}", refused.text);
}

#[tokio::test]
async fn names_that_are_taken_wait_until_they_are_free() {
    let server = Server::with_definitions().await;
    server.define(plain()).await;
    let mut second = plain();
    second["metadata"]["name"] = "gadgets.example.com".into();
    second["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    assert_eq!(server.post(DEFINITIONS, second).await.code, 201);
    let path = format!("{DEFINITIONS}/gadgets.example.com");
    let told = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == "NamesAccepted" && one["status"] == "False")
    };
    let found = server.wait(&path, "refused its names", told).await;
    assert!(!is_true(&found, "Established"), "{found}");
    assert_eq!(server.get("/apis/example.com/v1/gadgets").await.code, 404);
    assert_eq!(server.delete(&format!("{DEFINITIONS}/widgets.example.com"), json!({})).await.code, 200);
    server.wait(&path, "established", |object| is_true(object, "Established")).await;
    assert_eq!(server.get("/apis/example.com/v1/gadgets").await.code, 200);
}

#[tokio::test]
async fn versions_share_their_objects_and_differ_in_their_rules() {
    let server = Server::with_definitions().await;
    let first = version("v1", true, json!({"size": {"type": "integer", "maximum": 5}}));
    let mut second = version("v1beta1", false, json!({"size": {"type": "integer", "default": 7}}));
    second["deprecated"] = true.into();
    server.define(definition(json!([second, first]))).await;
    let group = server.get("/apis/example.com").await.json;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let old = "/apis/example.com/v1beta1/namespaces/default/widgets";
    let mut object = widget("a", json!({}));
    object["apiVersion"] = "example.com/v1beta1".into();
    let created = server.post(old, object).await;
    assert_eq!((created.code, &created.json["spec"]["size"]), (201, &json!(7)), "{}", created.text);
    assert_eq!(created.headers["warning"], "299 - \"example.com/v1beta1 Widget is deprecated\"");
    assert_eq!(created.json["apiVersion"], "example.com/v1beta1");
    let read = server.get(&format!("{WIDGETS}/a")).await.json;
    assert_eq!((&read["apiVersion"], &read["spec"]["size"]), (&json!("example.com/v1"), &json!(7)));
    assert_eq!(server.post(WIDGETS, widget("b", json!({"size": 7}))).await.code, 422);
    let mut frames = frames_of(&server, &format!("{old}?watch=true")).await;
    assert_eq!(frames.next().await.unwrap()["object"]["apiVersion"], "example.com/v1beta1");
}

#[tokio::test]
async fn a_change_of_the_schema_reaches_stored_objects() {
    let server = Server::with_definitions().await;
    server
        .define(definition(json!([version(
            "v1",
            true,
            json!({"size": {"type": "integer"}, "gone": {"type": "string"}})
        )])))
        .await;
    assert_eq!(server.post(WIDGETS, widget("a", json!({"size": 1, "gone": "x"}))).await.code, 201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut defined = server.get(&path).await.json;
    defined["spec"]["versions"][0] =
        version("v1", true, json!({"size": {"type": "integer"}, "new": {"type": "string", "default": "d"}}));
    defined["spec"]["versions"][0]["additionalPrinterColumns"] =
        json!([{"name": "New", "type": "string", "jsonPath": ".spec.new"}]);
    assert_eq!(server.put(&path, defined).await.code, 200);
    let found = server.wait(&format!("{WIDGETS}/a"), "defaulted", |object| object["spec"]["new"] == "d").await;
    assert_eq!(found["spec"], json!({"size": 1, "new": "d"}));
    let table = server.get_as(WIDGETS, "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(table.json["rows"][0]["cells"], json!(["a", "d"]));
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let server = Server::with_definitions().await;
    server.define(plain()).await;
    let mut held = widget("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    assert_eq!(server.post(WIDGETS, held).await.code, 201);
    assert_eq!(server.post(WIDGETS, widget("free", json!({}))).await.code, 201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let deleted = server.delete(&path, json!({})).await;
    assert_eq!(deleted.code, 200);
    assert_eq!(deleted.json["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    server.wait(&format!("{WIDGETS}/free"), "deleted", |object| object["code"] == 404).await;
    let refused = server.post(WIDGETS, widget("late", json!({}))).await;
    assert_eq!(refused.code, 405, "{}", refused.text);
    assert_eq!(refused.message(), "create not allowed while custom resource definition is terminating");
    assert!(is_true(&server.get(&path).await.json, "Terminating"));
    assert_eq!(server.merge(&format!("{WIDGETS}/held"), json!({"metadata": {"finalizers": null}})).await.code, 200);
    server.wait(&path, "gone", |object| object["code"] == 404).await;
    let gone = async {
        while server.get("/apis/example.com/v1").await.code != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the version goes with its definition");
    // The same once more: nothing of the first is left.
    server.define(plain()).await;
    assert_eq!(server.get(WIDGETS).await.json["items"], json!([]));
}

#[tokio::test]
async fn objects_are_whole_right_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let open = || async {
        let kinds = Registry::default();
        let store: Arc<dyn crate::store::Store> = Arc::new(open_store(&path, &kinds).unwrap());
        controller::load(&store, &kinds, &(Arc::new(Network) as Arc<dyn Dial>)).await;
        let allocator = Allocator::new("10.96.0.0/12".parse().unwrap(), 30000..=32767);
        Server { api: Api::new(store, kinds, allocator, "127.0.0.1:6443"), _dir: None, _tasks: None }
    };
    let mut server = open().await;
    let (stop, task) = {
        let stop = CancellationToken::new();
        let (store, kinds) = (server.api.store_handle(), server.api.kinds().clone());
        (
            stop.clone(),
            tokio::spawn(controller::run(
                store,
                kinds,
                server.api.client(Identity::control("test")),
                Arc::new(Network),
                stop,
            )),
        )
    };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    assert_eq!(server.post("/api/v1/namespaces", namespace).await.code, 201);
    server.define(plain()).await;
    assert_eq!(server.post(WIDGETS, widget("a", json!({"color": "red"}))).await.code, 201);
    stop.cancel();
    task.await.unwrap();
    drop(server);

    server = open().await;
    // Before the controller runs.
    let selected = server.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dred")).await;
    assert_eq!(selected.json["items"][0]["metadata"]["name"], "a", "{}", selected.text);
    let table = server.get_as(WIDGETS, "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(table.json["rows"][0]["cells"], json!(["a", 3]));
}

#[tokio::test]
async fn an_object_is_of_the_version_asked_for_while_the_storage_version_changes() {
    let server = Server::with_definitions().await;
    let versions = |storage: &str| -> Value {
        let version = |name: &str| {
            let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            json!({"name": name, "served": true, "storage": name == storage, "schema": {"openAPIV3Schema": schema}})
        };
        json!([version("v1"), version("v2")])
    };
    let mut definition = plain();
    definition["spec"]["versions"] = versions("v1");
    let path = format!("{DEFINITIONS}/{}", definition["metadata"]["name"].as_str().unwrap());
    server.define(definition).await;
    for count in 0..300 {
        let created = server.post(WIDGETS, widget(&format!("w{count}"), json!({"padding": "x".repeat(2000)}))).await;
        assert_eq!(created.code, 201, "{}", created.text);
    }
    let changed = server.merge(&path, json!({"spec": {"versions": versions("v2")}})).await;
    assert_eq!(changed.code, 200, "{}", changed.text);
    // Every object is made anew meanwhile: the last one is of the new version when they all are.
    let text = || server.api.store().snapshot().get("widgets.example.com", "default/w299").unwrap().json().to_vec();
    let all = async {
        loop {
            for version in ["v1", "v2"] {
                let read = server.get(&format!("/apis/example.com/{version}/namespaces/default/widgets/w299")).await;
                assert_eq!(read.json["apiVersion"], format!("example.com/{version}"), "{}", read.text);
            }
            if text().starts_with(br#"{"apiVersion":"example.com/v2""#) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("objects become of the new storage version");
}
