//! Writes: create, update, patch and delete, for all kinds alike.
//!
//! Each verb is a loop: read the object, make the new one in a pure function, and send it down the one way into the
//! store, the [`pipeline`]. Where somebody was faster, the loop begins again from the present state.

mod apply;
mod connection;
mod create;
mod creation_access;
mod delete;
mod delete_collection;
mod delete_options;
mod inquiry;
mod metadata;
mod options;
mod patch;
mod pipeline;
mod size;
mod update;

pub use apply::{apply, apply_config};
pub use connection::admit_connection;
pub use create::create;
pub use delete::{Alongside, delete, remove_with};
pub use delete_collection::delete_collection;
pub use delete_options::DeleteOptions;
pub use inquiry::{admit_form, admit_unstored};
pub use metadata::{must_be_named, of as metadata_of, wipe as wipe_metadata};
pub use options::check as check_options;
pub use patch::{instructions as patch_instructions, patch, unreadable_result};
pub use update::{Made, ObjectUpdate, change, update};

use std::{collections::HashSet, sync::Arc};

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use self::pipeline::Writer;
use super::{Status, StorageLocation, Subject, read, request::Call, response, subresource::Subresource};
use crate::{
    definitions::conversion,
    kinds::{FieldError, Kind, Storage, error_budget, names, paths_on_demand},
    schema::{Empty, SentEmpties},
    store::{CommitError, Draft, EventType, Object, Snapshot},
};

/// What became of a write.
pub enum WriteOutcome {
    /// It was committed, or there was nothing to change.
    Stored(Arc<Object>),
    /// What would have been stored. A new object would get its revision only then.
    Dry { draft: Draft, revision: Option<u64> },
}

/// What became of a write that creates the object where it is not there.
pub struct Written {
    /// The object afterwards.
    pub outcome: WriteOutcome,
    /// Whether it was not there before.
    pub created: bool,
}

impl WriteOutcome {
    /// The object without `metadata.managedFields`.
    pub fn value(&self) -> Result<Value, Status> {
        match self {
            Self::Stored(object) => parse(object),
            Self::Dry { draft, revision } => parse(&dry(draft, *revision)),
        }
    }
}

/// How often a write is tried again when others were faster, before the caller is told.
const TRIES: usize = 16;

/// What a failed write is to the client. Conflicts are decided by the caller.
fn refusal(error: CommitError, subject: Subject) -> Status {
    match error {
        CommitError::Conflict { .. } => Status::conflict(subject, MODIFIED),
        CommitError::Refused { reason, .. } => Status::forbidden(subject, &reason.to_string()),
        CommitError::Full { .. } => Status::insufficient_storage(error.to_string()),
        CommitError::Unavailable { .. } => Status::internal(error.to_string()),
    }
}

/// Kubernetes' words for a stale resource version.
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// The answer with an object that was written, or would have been.
async fn answer(call: &Call, code: StatusCode, outcome: &WriteOutcome) -> Result<Response, Status> {
    let object = match outcome {
        WriteOutcome::Stored(object) => object.clone(),
        WriteOutcome::Dry { draft, revision } => Arc::new(dry(draft, *revision)),
    };
    let mut text = conversion::read(&call.target.kind, || read::render(call, &object)).await?;
    if matches!(outcome, WriteOutcome::Dry { revision: None, .. }) {
        text = without_revision(text);
    }
    Ok(response::json(code, text))
}

fn dry(draft: &Draft, revision: Option<u64>) -> Object {
    Object::new(draft.clone(), revision.unwrap_or_default(), EventType::Modified)
}

/// Takes the resource version 0 out of a JSON text, where it ends the metadata.
fn without_revision(text: Bytes) -> Bytes {
    const NONE: &[u8] = br#","resourceVersion":"0"}"#;
    let Some(at) = text.windows(NONE.len()).position(|window| window == NONE) else { return text };
    let after = at.saturating_add(NONE.len());
    [&text[..at], b"}", &text[after..]].concat().into()
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

/// Reads a stored object whole but for `metadata.managedFields`. What the store holds was written by this program.
pub fn parse(object: &Object) -> Result<Value, Status> {
    let text = object.json_without_managers();
    serde_json::from_slice(&text).map_err(|e| Status::internal(format!("a stored object is damaged: {e}")))
}

/// The same with `metadata.managedFields`.
fn parse_whole(object: &Object) -> Result<Value, Status> {
    serde_json::from_slice(&object.json()).map_err(|e| Status::internal(format!("a stored object is damaged: {e}")))
}

/// Refuses an object with any reason against it, be it of its kind or of its metadata. `empties` is what was sent
/// empty.
fn must_be_valid(
    kind: &Kind,
    (new, old): (&Value, Option<&Value>),
    empties: &SentEmpties,
    refused: Vec<FieldError>,
    of_kind: Vec<FieldError>,
) -> Result<(), Status> {
    let mut errors = refused;
    errors.extend(match !of_kind.is_empty() && (kind.content_first)(new) {
        true => Vec::new(),
        false => paths_on_demand::where_refused(|| error_budget::within(|| names::metadata(kind, new, old.is_some()))),
    });
    errors.extend(of_kind);
    for error in &mut errors {
        let sent = |path: &str| empties.at(path).map(Empty::value).or_else(|| kind.schema.zero_at(path));
        if let Some(sent) = error.path_of_null().and_then(sent) {
            error.show_instead_of_null(&sent);
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let metadata = &new["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let name = if name.is_empty() { metadata["generateName"].as_str().unwrap_or_default() } else { name };
    Err(Status::invalid(Subject { group: &kind.group, resource: &kind.kind, name }, &errors))
}

/// Refuses finalizers that are put on an object whose deletion was asked for.
fn reject_new_finalizers(kind: &Kind, new: &Value, old: &Value) -> Result<(), Status> {
    if !old["metadata"]["deletionTimestamp"].is_string() {
        return Ok(());
    }
    let finalizers = |object: &Value| -> Vec<String> {
        let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let before: HashSet<String> = finalizers(old).into_iter().collect();
    let added: Vec<String> = finalizers(new).into_iter().filter(|name| !before.contains(name)).collect();
    if added.is_empty() {
        return Ok(());
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    );
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let subject = Subject { group: &kind.group, resource: &kind.kind, name };
    Err(Status::invalid(subject, &[FieldError::forbidden("metadata.finalizers", &why)]))
}

/// Whether names in `spec.finalizers` hold the object.
fn held_by_spec(kind: &Kind, object: &Value) -> bool {
    kind.deletion.spec_finalizers && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

/// Who writes, as far as the ownership of fields goes.
pub(super) fn writer<'a>(call: &'a Call, subresource: Option<&'static Subresource>) -> Writer<'a> {
    let subresource = subresource.map(|subresource| subresource.segment);
    Writer { served: &call.target.kind, manager: &call.manager, subresource }
}

/// The stored object that a request names.
fn current(snapshot: &Snapshot, place: &StorageLocation, name: &str) -> Result<Arc<Object>, Status> {
    snapshot.get(&place.resource, &place.key).cloned().ok_or_else(|| Status::not_found(place.subject(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn very_many_finalizers_are_compared_in_time() {
        let kind = Kinds::built_in().by_path("", "v1", "configmaps").unwrap();
        let of = |prefix: &str, deleted: Value| {
            let names: Value = (0..100_000).map(|n| json!(format!("{prefix}/{n}"))).collect();
            json!({"metadata": {"name": "a", "finalizers": names, "deletionTimestamp": deleted}})
        };
        let began = std::time::Instant::now();
        let deleted = json!("2024-01-01T00:00:00Z");
        assert!(reject_new_finalizers(&kind, &of("a", Value::Null), &of("b", Value::Null)).is_ok());
        assert!(reject_new_finalizers(&kind, &of("a", deleted.clone()), &of("a", deleted.clone())).is_ok());
        let refused = reject_new_finalizers(&kind, &of("a", deleted.clone()), &of("b", deleted)).unwrap_err();
        assert!(refused.message.len() < 100_000, "{}", refused.message.len());
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }
}
