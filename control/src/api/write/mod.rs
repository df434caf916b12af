//! Writes: create, update, patch and delete, for all kinds alike.
//!
//! Each is a loop of: read the object, make the new one in a pure function, write it if nobody was faster.

mod create;
mod delete;
mod delete_collection;
pub mod encode;
mod metadata;
mod patch;
mod update;

pub use create::create;
pub use delete::{Options, delete, remove};
pub use delete_collection::delete_collection;
pub use metadata::now;
pub use patch::{instructions as patch_instructions, patch};
pub use update::{Change, Outcome, change, update};

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{Api, Place, Status, Subject, read, request::Call, response};
use crate::{
    admission::NamespaceState,
    kinds::{FieldError, Kind, Storage, names},
    store::{EventType, Object, WriteError},
};

/// How often a write is tried again when others were faster, before the caller is told.
const TRIES: usize = 16;

/// What a failed write is to the client. Conflicts are decided by the caller.
fn refusal(error: WriteError, subject: Subject) -> Status {
    match error {
        WriteError::Conflict { .. } => Status::conflict(subject, MODIFIED),
        WriteError::Full { .. } => Status::insufficient_storage(error.to_string()),
        WriteError::Unavailable { .. } => Status::internal(error.to_string()),
    }
}

/// Kubernetes' words for a stale resource version.
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// The answer with an object that was written, or would have been.
fn answer(call: &Call, code: StatusCode, outcome: &Outcome, warnings: &[String]) -> Response {
    let text = match outcome {
        Outcome::Stored(object) => read::render(call, object),
        Outcome::Dry { draft, revision } => {
            read::render(call, &Object::new(draft.clone(), *revision, EventType::Modified))
        }
    };
    response::warn(response::json(code, text), warnings)
}

/// Turns an object of the served kind into one of the stored kind.
fn to_stored(kind: &Kind, object: &mut Value) {
    if let Storage::As(stored) = &kind.storage {
        (stored.to_stored)(object);
    }
}

/// The way back.
fn from_stored(kind: &Kind, object: &mut Value) {
    if let Storage::As(stored) = &kind.storage {
        (stored.from_stored)(object, kind);
    }
}

/// Reads a stored object whole. What the store holds was written by this program.
fn parse(object: &Object) -> Result<Value, Status> {
    serde_json::from_slice(object.json()).map_err(|e| Status::internal(format!("a stored object is damaged: {e}")))
}

/// Refuses an object with any reason against it.
fn must_be_valid(kind: &Kind, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    let mut errors: Vec<FieldError> = names::metadata(kind, new);
    errors.extend((kind.validate)(new, old));
    if errors.is_empty() {
        return Ok(());
    }
    let metadata = &new["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let name = if name.is_empty() { metadata["generateName"].as_str().unwrap_or_default() } else { name };
    Err(Status::invalid(Subject { group: &kind.group, resource: &kind.kind, name }, &errors))
}

/// Whether the namespace of a new object takes one.
fn namespace_state(api: &Api, namespace: Option<&str>) -> NamespaceState {
    let Some(namespace) = namespace else { return NamespaceState::Active };
    match api.store().snapshot().get("namespaces", namespace) {
        None => NamespaceState::Absent,
        Some(object) if object.header.deleting => NamespaceState::Terminating,
        Some(_) => NamespaceState::Active,
    }
}

/// Whether names in `spec.finalizers` hold the object.
fn held_by_spec(kind: &Kind, object: &Value) -> bool {
    kind.deletion.spec_finalizers && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

/// The stored object that a request names.
fn current(api: &Api, place: &Place, name: &str) -> Result<std::sync::Arc<Object>, Status> {
    let snapshot = api.store().snapshot();
    snapshot.get(&place.resource, &place.key).cloned().ok_or_else(|| Status::not_found(place.subject(name)))
}
