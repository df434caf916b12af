//! NamespaceLifecycle: whether a namespace takes new objects, and whether it may be deleted at all.

use serde_json::json;

use super::plugins::{AdmissionContext, Mutate, Plugin};
use crate::{
    admission_plugins::PluginName,
    request::{Verb, WriteRequest},
    status::{Status, Subject},
    store::{Key, Object},
};

/// Where namespaces are stored.
pub const RESOURCE: &str = "namespaces";

/// New objects need a namespace that takes them; some namespaces are never deleted.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(|context, _| must_take_new_objects(context))),
    delete: Some(|context, _| may_be_deleted(context.request)),
    ..Plugin::named(PluginName::NamespaceLifecycle)
};

fn must_take_new_objects(context: &AdmissionContext<'_>) -> Result<(), Status> {
    let request = context.request;
    let (Verb::Create, Some(namespace)) = (request.operation, request.namespace) else { return Ok(()) };
    let state = state(request.snapshot.get(RESOURCE, namespace).map(|found| &**found));
    takes_new_objects(request.subject(), namespace, state)
}

/// What the store says of the namespace of a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    /// It takes new objects.
    Active,
    /// It is being deleted, and takes no new objects.
    Terminating,
    /// It does not exist.
    Absent,
}

/// The store's key of a namespace.
pub fn key(namespace: &str) -> Key {
    Key { resource: RESOURCE.into(), name: namespace.into() }
}

/// Whether a key is a namespace's.
pub fn is_namespace(key: &Key) -> bool {
    &*key.resource == RESOURCE
}

/// What a namespace's stored object means for new objects in it.
pub fn state(namespace: Option<&Object>) -> NamespaceState {
    match namespace {
        None => NamespaceState::Absent,
        Some(object) if object.header().deleting() => NamespaceState::Terminating,
        Some(_) => NamespaceState::Active,
    }
}

/// Refuses objects in namespaces that are missing or terminating, without exceptions: a namespace whose deletion
/// was requested stays empty once its content is deleted.
pub fn takes_new_objects(subject: Subject, namespace: &str, state: NamespaceState) -> Result<(), Status> {
    match state {
        NamespaceState::Active => Ok(()),
        NamespaceState::Terminating => {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let mut status = Status::forbidden(subject, &why);
            let cause = json!({"reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated")});
            if let Some(details) = &mut status.details {
                details["causes"] = json!([cause]);
            }
            Err(status)
        }
        NamespaceState::Absent => Err(Status::not_found(Subject { group: "", resource: RESOURCE, name: namespace })),
    }
}

/// The cluster itself lives in these.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses the deletion of a namespace that every cluster has.
fn may_be_deleted(request: &WriteRequest<'_>) -> Result<(), Status> {
    if request.kind.group.is_empty() && request.kind.plural == RESOURCE && IMMORTAL.contains(&request.name) {
        return Err(Status::forbidden(request.subject(), "this namespace may not be deleted"));
    }
    Ok(())
}
