//! The requests that the definitions need: their status is written, and the objects of those that are being deleted are
//! deleted.
//!
//! Each definition has its requests to itself: one that hangs or fails is tried again after a back-off of its own, and
//! the others go on. What is asked for is decided by [`super::controller`], which never waits for an answer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use kube::Client;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    custom::definition::Definition,
    engine::{self, Failure, Outcome, WorkQueue, api_code},
    store::{Snapshot, Store},
};

/// How many status writes are under way at a time, and how many deletions of all objects of a definition. A webhook
/// that hangs holds the latter for long, and is not to hold up the former.
const STATUSES: usize = 4;
const DELETIONS: usize = 5;

/// Requests that wait or are under way, by definition.
pub struct Requests {
    /// Definitions with the status and finalizers that are to be written.
    statuses: Wanted<Value>,
    /// Definitions whose objects are to be deleted.
    deletions: Wanted<Deletion>,
}

/// All objects of one definition, which are to be deleted.
#[derive(Debug, PartialEq, Eq)]
struct Deletion {
    /// Of the definition: another one of the same name has other objects.
    uid: String,
    /// Where they are stored.
    resource: String,
    plural: String,
    /// `/apis/example.com/v1`, if a version is served.
    root: Option<String>,
}

/// What is to be done for each definition.
struct Wanted<T> {
    queue: Arc<WorkQueue<String>>,
    by_name: Mutex<HashMap<String, Arc<T>>>,
}

impl<T: PartialEq> Wanted<T> {
    fn new(queue: &'static str) -> Self {
        Self { queue: Arc::new(WorkQueue::new(queue)), by_name: Mutex::default() }
    }

    /// Asks for `wanted`, or for nothing any more. What was asked for already is not begun anew.
    fn set(&self, name: &str, wanted: Option<T>) {
        let mut by_name = self.by_name.lock();
        let Some(wanted) = wanted else { return drop(by_name.remove(name)) };
        if by_name.get(name).is_none_or(|known| **known != wanted) {
            by_name.insert(name.to_owned(), Arc::new(wanted));
            self.queue.add(name.to_owned());
        }
    }

    fn get(&self, name: &str) -> Option<Arc<T>> {
        self.by_name.lock().get(name).cloned()
    }
}

impl Requests {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { statuses: Wanted::new("crd_status"), deletions: Wanted::new("crd_finalizer") })
    }

    /// Asks that the definition be stored with the status and finalizers of `object`; `None` if it is right.
    pub fn write_status(&self, name: &str, object: Option<Value>) {
        self.statuses.set(name, object);
    }

    /// Asks that all objects be deleted that the definition of this uid defines; `None` if they are not to be.
    pub fn delete_objects(&self, name: &str, definition: Option<(&str, &Definition)>) {
        let deletion = definition.map(|(uid, definition)| {
            let version = definition.versions.iter().find(|version| version.served);
            Deletion {
                uid: uid.to_owned(),
                resource: format!("{}.{}", definition.accepted.plural, definition.group),
                plural: definition.accepted.plural.clone(),
                root: version.map(|version| format!("/apis/{}/{}", definition.group, version.name)),
            }
        });
        self.deletions.set(name, deletion);
    }

    /// Sends what is asked for, until `stop`.
    pub async fn run(self: Arc<Self>, store: Arc<dyn Store>, client: Client, stop: CancellationToken) {
        let (statuses, deletions) = (self.clone(), self.clone());
        let to_write = client.clone();
        let writing = engine::work("crd_status", self.statuses.queue.clone(), STATUSES, stop.clone(), move |name| {
            let (requests, client) = (statuses.clone(), to_write.clone());
            async move {
                match requests.statuses.get(&name) {
                    Some(object) => write_status(&client, &name, &object).await,
                    None => Ok(Outcome::Done),
                }
            }
        });
        let deleting = engine::work("crd_finalizer", self.deletions.queue.clone(), DELETIONS, stop, move |name| {
            let (requests, store, client) = (deletions.clone(), store.clone(), client.clone());
            async move {
                match requests.deletions.get(&name) {
                    Some(deletion) => delete_objects(&store, &client, &deletion).await,
                    None => Ok(Outcome::Done),
                }
            }
        });
        tokio::join!(writing, deleting);
    }
}

/// Writes status and finalizers of a definition.
async fn write_status(client: &Client, name: &str, object: &Value) -> Result<Outcome, Failure> {
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}/status");
    let request = http::Request::put(path).header(http::header::CONTENT_TYPE, "application/json");
    send(client, request.body(object.to_string().into_bytes()), "write the status of a definition").await
}

/// Has every object of a definition deleted, or marked so. There come no new ones: the definition is being deleted.
async fn delete_objects(store: &Arc<dyn Store>, client: &Client, deletion: &Deletion) -> Result<Outcome, Failure> {
    let Deletion { resource, plural, root, .. } = deletion;
    let malformed = |message: &str| Failure::Malformed { what: "a definition", message: message.to_owned() };
    let namespaces = unmarked(&store.snapshot(), resource);
    if namespaces.is_empty() {
        return Ok(Outcome::Done);
    }
    let no_version = || malformed("objects are left, and no version is served to delete them by");
    let root = root.as_ref().ok_or_else(no_version)?;
    let mut failures = Vec::new();
    for namespace in namespaces {
        let path = match &*namespace {
            "" => format!("{root}/{plural}"),
            namespace => format!("{root}/namespaces/{namespace}/{plural}"),
        };
        let sent = send(client, http::Request::delete(path).body(Vec::new()), "delete the objects of a definition");
        failures.extend(sent.await.err());
    }
    let count = failures.len();
    match failures.into_iter().next() {
        Some(first) => Err(Failure::Several(count, Box::new(first))),
        None if unmarked(&store.snapshot(), resource).is_empty() => Ok(Outcome::Done),
        None => Err(malformed("objects are left after all were deleted")),
    }
}

/// The namespaces with objects whose deletion was not asked for; empty is that of cluster-scoped ones.
fn unmarked(snapshot: &Snapshot, resource: &str) -> BTreeSet<String> {
    let unmarked = snapshot.list(resource, "", None).filter(|(_, object)| !object.header().deleting());
    unmarked.map(|(_, object)| object.header().namespace().to_string()).collect()
}

/// Sends a request. That the definition is gone or has changed is an event of its own, and no failure.
async fn send(
    client: &Client,
    request: http::Result<http::Request<Vec<u8>>>,
    operation: &'static str,
) -> Result<Outcome, Failure> {
    let request =
        request.map_err(|error| Failure::Malformed { what: "the name of a definition", message: error.to_string() })?;
    match client.request::<IgnoredAny>(request).await {
        Err(error) if !matches!(api_code(&error), Some(404 | 409)) => Err(Failure::request(operation)(error)),
        _ => Ok(Outcome::Done),
    }
}
