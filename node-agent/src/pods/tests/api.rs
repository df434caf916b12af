//! Just enough of the API for pods: list, watch, status patches, graceful deletion, events, ConfigMaps and Secrets; in
//! memory, without sockets. It can be away.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// An API server in memory: objects without schema, watches, and the state of being away. Clones share the objects.
#[derive(Clone)]
pub struct FakeApi(Arc<Shared>);

struct Shared {
    objects: Mutex<Objects>,
    changes: broadcast::Sender<(String, &'static str, Value)>,
    presence: watch::Sender<Presence>,
    /// Requests for one Node wait until this ends.
    withholds_nodes: watch::Sender<bool>,
}

/// Whether requests are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Answers at once.
    #[default]
    Serves,
    /// Each request fails at once; watches have ended.
    Fails,
    /// Each request waits until this ends; watches have ended.
    Hangs,
}

#[derive(Default)]
struct Objects {
    revision: u64,
    /// By resource, namespace and name.
    all: BTreeMap<(String, String, String), Value>,
    status_writes: usize,
    /// What another does to the object just before the next write of a status.
    before_status_write: Option<Change>,
}

/// What is done to an object, once.
type Change = Box<dyn FnOnce(&mut Value) + Send>;

impl Default for FakeApi {
    fn default() -> Self {
        let changes = broadcast::channel(4096).0;
        Self(Arc::new(Shared {
            objects: Mutex::default(),
            changes,
            presence: watch::Sender::default(),
            withholds_nodes: watch::Sender::default(),
        }))
    }
}

impl FakeApi {
    /// A client that reaches it without a socket.
    pub fn client(&self) -> kube::Client {
        let router = Router::new()
            .route("/api/v1/{resource}", get(list_all))
            .route("/api/v1/nodes/{name}", get(read_node))
            .route("/api/v1/namespaces/{namespace}/{resource}", get(list).post(create))
            .route("/api/v1/namespaces/{namespace}/{resource}/{name}", get(read).delete(delete).patch(patch_object))
            .route("/api/v1/namespaces/{namespace}/{resource}/{name}/status", patch(patch_status))
            .layer(axum::middleware::from_fn_with_state(self.clone(), answer_if_present))
            .with_state(self.clone());
        kube::Client::new(router, "default")
    }

    /// Serves requests from now on, or not.
    pub fn set(&self, presence: Presence) {
        self.0.presence.send_replace(presence);
    }

    /// Answers no request for one Node, until told otherwise.
    pub fn withhold_nodes(&self, withholds: bool) {
        self.0.withholds_nodes.send_replace(withholds);
    }

    /// Every change from now: resource, `ADDED`, `MODIFIED` or `DELETED`, object.
    pub fn changes(&self) -> broadcast::Receiver<(String, &'static str, Value)> {
        self.0.changes.subscribe()
    }

    /// How often a status was written.
    pub fn status_writes(&self) -> usize {
        self.0.objects.lock().status_writes
    }

    /// Changes the object whose status is written next, just before that write.
    pub fn before_status_write(&self, change: impl FnOnce(&mut Value) + Send + 'static) {
        self.0.objects.lock().before_status_write = Some(Box::new(change));
    }

    /// The object, if there is one.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.objects.lock().all.get(&(resource.into(), namespace.into(), name.into())).cloned()
    }

    /// All objects of the resource, in all namespaces.
    pub fn list(&self, resource: &str) -> Vec<Value> {
        self.0
            .objects
            .lock()
            .all
            .iter()
            .filter(|((r, ..), _)| r == resource)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Creates or replaces an object in namespace `default`.
    pub fn put(&self, resource: &str, name: &str, mut object: Value) {
        let mut objects = self.0.objects.lock();
        let key = (resource.to_owned(), "default".to_owned(), name.to_owned());
        let kind = if objects.all.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = "default".into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-of-{name}-{}", objects.revision).into();
        }
        self.store(&mut objects, key, kind, object);
    }

    /// Changes an object in namespace `default`.
    pub fn change(&self, resource: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(resource, "default", name).expect("the object is there");
        change(&mut object);
        self.put(resource, name, object);
    }

    /// A pod of one container `app` on this node, changed by `change`.
    pub fn put_pod(&self, name: &str, command: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "spec": {
                "nodeName": "n1",
                "terminationGracePeriodSeconds": 2,
                "containers": [{ "name": "app", "image": "hello:v1", "command": ["/bin/sh", "-c", command] }],
            },
            "status": { "phase": "Pending" },
        });
        change(&mut pod);
        self.put("pods", name, pod);
    }

    /// As a client's delete: marks, and leaves the removal to the node.
    pub fn delete_gracefully(&self, name: &str, grace: i64) {
        let mut pod = self.get("pods", "default", name).expect("the pod is there");
        pod["metadata"]["deletionTimestamp"] = jiff::Timestamp::now().to_string().into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        self.put("pods", name, pod);
    }

    /// As a forced delete: gone at once.
    pub fn remove(&self, resource: &str, name: &str) {
        let mut objects = self.0.objects.lock();
        let key = (resource.to_owned(), "default".to_owned(), name.to_owned());
        if let Some(object) = objects.all.remove(&key) {
            self.announce(&mut objects, key.0, "DELETED", object);
        }
    }

    fn store(&self, objects: &mut Objects, key: (String, String, String), kind: &'static str, object: Value) -> Value {
        let object = self.announce(objects, key.0.clone(), kind, object);
        objects.all.insert(key, object.clone());
        object
    }

    fn announce(&self, objects: &mut Objects, resource: String, kind: &'static str, mut object: Value) -> Value {
        objects.revision += 1;
        object["metadata"]["resourceVersion"] = objects.revision.to_string().into();
        let kinds = BTreeMap::from([
            ("pods", "Pod"),
            ("nodes", "Node"),
            ("events", "Event"),
            ("configmaps", "ConfigMap"),
            ("secrets", "Secret"),
        ]);
        object["apiVersion"] = "v1".into();
        object["kind"] = kinds[resource.as_str()].into();
        // No receiver is not an error: nobody watches then.
        self.0.changes.send((resource, kind, object.clone())).ok();
        object
    }
}

async fn answer_if_present(State(api): State<FakeApi>, request: Request, next: Next) -> Response {
    let mut presence = api.0.presence.subscribe();
    match presence.wait_for(|presence| *presence != Presence::Hangs).await.map(|presence| *presence) {
        Ok(Presence::Serves) => next.run(request).await,
        _ => status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
    }
}

type Parameters = Query<BTreeMap<String, String>>;

async fn list_all(State(api): State<FakeApi>, Path(resource): Path<String>, query: Parameters) -> Response {
    list(State(api), Path((String::new(), resource)), query).await
}

async fn list(
    State(api): State<FakeApi>,
    Path((namespace, resource)): Path<(String, String)>,
    Query(query): Parameters,
) -> Response {
    let selector = query.get("fieldSelector").cloned().unwrap_or_default();
    let selected = move |object: &Value| {
        let (field, value) = selector.split_once('=').unwrap_or_default();
        let found = object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str);
        (namespace.is_empty() || object["metadata"]["namespace"] == namespace.as_str())
            && (field.is_empty() || found == Some(value))
    };
    let changes = api.changes();
    let revision = api.0.objects.lock().revision;
    if query.get("watch").map(String::as_str) != Some("true") {
        let items: Vec<_> = api.list(&resource).into_iter().filter(selected).collect();
        return Json(json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": revision.to_string() }, "items": items })).into_response();
    }
    // What changed between the list and this watch, told as it is now.
    let since: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or_default();
    let newer =
        move |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()) > Some(since);
    let missed: Vec<_> = api
        .list(&resource)
        .into_iter()
        .filter(|object| newer(object) && selected(object))
        .map(|object| ("MODIFIED", object))
        .collect();
    let live = tokio_stream::wrappers::BroadcastStream::new(changes).filter_map(move |change| {
        let change = change
            .ok()
            .filter(|(r, _, object)| *r == resource && selected(object))
            .map(|(_, kind, object)| (kind, object));
        futures::future::ready(change)
    });
    let frames = futures::stream::iter(missed).chain(live).map(|(kind, object)| {
        Ok::<_, std::io::Error>(Bytes::from(format!("{}\n", json!({ "type": kind, "object": object }))))
    });
    let mut presence = api.0.presence.subscribe();
    let away = async move {
        // The sender lives as long as the API.
        presence.wait_for(|presence| *presence != Presence::Serves).await.map(|_| ()).ok();
    };
    Body::from_stream(frames.take_until(away)).into_response()
}

async fn create(
    State(api): State<FakeApi>,
    Path((namespace, resource)): Path<(String, String)>,
    Json(object): Json<Value>,
) -> Response {
    let mut objects = api.0.objects.lock();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Json(api.store(&mut objects, (resource, namespace, name), "ADDED", object)).into_response()
}

type Named = Path<(String, String, String)>;

async fn read(State(api): State<FakeApi>, Path((namespace, resource, name)): Named) -> Response {
    api.get(&resource, &namespace, &name).map_or_else(not_found, |object| Json(object).into_response())
}

async fn read_node(State(api): State<FakeApi>, Path(name): Path<String>) -> Response {
    let mut withholds = api.0.withholds_nodes.subscribe();
    // The sender lives as long as the API.
    withholds.wait_for(|withholds| !withholds).await.map(|_| ()).ok();
    api.get("nodes", "default", &name).map_or_else(not_found, |object| Json(object).into_response())
}

async fn delete(State(api): State<FakeApi>, Path((_, resource, name)): Named) -> Response {
    api.remove(&resource, &name);
    Json(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })).into_response()
}

async fn patch_object(api: State<FakeApi>, named: Named, headers: HeaderMap, body: Bytes) -> Response {
    merge_into(&api, named, &headers, &body)
}

async fn patch_status(api: State<FakeApi>, named: Named, headers: HeaderMap, body: Bytes) -> Response {
    api.0.0.objects.lock().status_writes += 1;
    merge_into(&api, named, &headers, &body)
}

fn merge_into(api: &FakeApi, Path((namespace, resource, name)): Named, headers: &HeaderMap, body: &Bytes) -> Response {
    let mut objects = api.0.objects.lock();
    let key = (resource, namespace, name);
    let Some(mut object) = objects.all.get(&key).cloned() else { return not_found() };
    if key.0 == "pods"
        && let Some(change) = objects.before_status_write.take()
    {
        change(&mut object);
    }
    let patch: Value = serde_json::from_slice(body).expect("the agent writes JSON");
    let uid = &patch["metadata"]["uid"];
    if !uid.is_null() && *uid != object["metadata"]["uid"] {
        return status(StatusCode::CONFLICT, "Conflict");
    }
    let is_strategic = headers[CONTENT_TYPE] == "application/strategic-merge-patch+json";
    merge(&mut object, patch, is_strategic);
    Json(api.store(&mut objects, key, "MODIFIED", object)).into_response()
}

/// By which field the items of a list merge in a strategic merge patch.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "conditions" => Some("type"),
        "podIPs" | "hostIPs" => Some("ip"),
        _ => None,
    }
}

fn merge_items(target: &mut Value, patch: Vec<Value>, id: &str) {
    if !target.is_array() {
        *target = json!([]);
    }
    let items = target.as_array_mut().expect("made one above");
    for change in patch {
        let at = items.iter().position(|item| item[id] == change[id]);
        match (at, change["$patch"].as_str()) {
            (Some(at), Some("delete")) => drop(items.remove(at)),
            (Some(at), _) => merge(&mut items[at], change, true),
            (None, Some("delete")) => {}
            // As the API's merge has it: what was not there comes first.
            (None, _) => items.insert(0, change),
        }
    }
}

fn merge(target: &mut Value, patch: Value, is_strategic: bool) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match (value, merge_key(&key).filter(|_| is_strategic)) {
            (Value::Null, _) => drop(target.as_object_mut().expect("made one above").remove(&key)),
            (Value::Array(items), Some(id)) => merge_items(&mut target[key], items, id),
            (value, _) => merge(&mut target[key], value, is_strategic),
        }
    }
}

fn not_found() -> Response {
    status(StatusCode::NOT_FOUND, "NotFound")
}

fn status(code: StatusCode, reason: &str) -> Response {
    (code, Json(json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16(), "message": reason }))).into_response()
}
