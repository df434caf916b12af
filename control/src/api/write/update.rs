//! Changes of a stored object, whole or through a subresource. Update and patch differ only in how they make the new
//! object.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{
    TRIES, WriteOutcome, answer, current,
    inquiry::Inquiry,
    metadata, parse, parse_whole,
    pipeline::{self, Action, Committed, Ownership, Pending, Prepared, Stored},
    writer,
};
use crate::store::Object;
use crate::{
    api::{
        Api, Status, StorageLocation,
        request::{Call, body},
        subresource::{Effect, Subresource},
    },
    definitions::conversion,
    kinds::{FieldError, Kind},
    request::Verb,
    schema::SentEmpties,
};

/// A change to an object: made anew from each state that is found.
pub struct ObjectUpdate<'a> {
    /// The subresource that is written through, if any.
    pub subresource: Option<&'static Subresource>,
    /// From the stored object to the new one, both of the stored kind and without `metadata.managedFields`. What a new
    /// one says of these is looked at, as a client may change them.
    pub make: &'a (dyn Fn(&Value) -> Result<Made, Status> + Send + Sync),
}

/// A new object, of the stored kind.
pub struct Made {
    /// The object.
    pub object: Value,
    /// What its client sent empty.
    pub empties: SentEmpties,
}

impl From<Value> for Made {
    /// Of an object that no client sent whole.
    fn from(object: Value) -> Self {
        Self { object, empties: SentEmpties::NONE }
    }
}

/// `PUT` of an object, or of a subresource that has its shape.
pub async fn update(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let target = &call.target;
    let sent = body::object(&target.kind, &call.content_type, text, call.query.field_validation)?;
    let (object, empties) = sent.tell_sent();
    let place = api.place(target)?;
    let stored = api.store().snapshot().get(&place.resource, &place.key).cloned();
    let object = conversion::to_stored(&target.kind, object, stored.as_deref()).await?;
    let make = |_: &Value| Ok(Made { object: object.clone(), empties: empties.clone() });
    let outcome = change(api, call, &place, ObjectUpdate { subresource: target.subresource, make: &make }).await?;
    answer(call, StatusCode::OK, &outcome).await
}

/// Makes a change. A change that names a resource version is made on that version or not at all.
pub async fn change(
    api: &Api,
    call: &Call,
    place: &StorageLocation,
    change: ObjectUpdate<'_>,
) -> Result<WriteOutcome, Status> {
    make(api, call, place, change, false).await
}

/// As [`change`], for a change that is made from the object with its `metadata.managedFields`.
pub async fn change_with_managers(
    api: &Api,
    call: &Call,
    place: &StorageLocation,
    change: ObjectUpdate<'_>,
) -> Result<WriteOutcome, Status> {
    make(api, call, place, change, true).await
}

async fn make(
    api: &Api,
    call: &Call,
    place: &StorageLocation,
    change: ObjectUpdate<'_>,
    with_managers: bool,
) -> Result<WriteOutcome, Status> {
    let name = call.target.name.as_deref().unwrap_or_default();
    let subject = place.subject(name);
    for _ in 0..TRIES {
        let snapshot = api.store().snapshot();
        let stored = current(&snapshot, place, name)?;
        let old = parse(&stored)?;
        let Made { object: new, empties } = match with_managers {
            true => (change.make)(&parse_whole(&stored)?)?,
            false => (change.make)(&old)?,
        };
        let (new, refused) = settled(call, place, change.subresource, new, &stored, &old)?;
        let ownership = match change.subresource.map(|subresource| subresource.effect) {
            None | Some(Effect::Update | Effect::Fields(_) | Effect::Part(_)) => {
                Ownership::Tracked(writer(call, change.subresource))
            }
            Some(Effect::SetImmutable | Effect::Nothing) => Ownership::Kept,
        };
        let pending = Pending {
            place,
            namespace: call.target.namespace.as_deref(),
            name,
            subresource: change.subresource,
            old: Some(Stored { object: &stored, value: &old }),
            action: Action::Put { new, empties },
            refused,
            ownership,
            inquiry: Inquiry::default(),
        };
        let transaction = match pipeline::prepare(api, call, &snapshot, pending).await? {
            Prepared::Unchanged => return Ok(WriteOutcome::Stored(stored)),
            Prepared::Ready { transaction, .. } => transaction,
        };
        if call.query.dry_run {
            return pipeline::outcome_of_dry_run(transaction, Some(&stored));
        }
        match pipeline::commit(api, place, name, transaction).await? {
            Committed::Done(object) => return Ok(WriteOutcome::Stored(object)),
            // A change that names a version is refused in the next round.
            Committed::Stale | Committed::Contended => {}
        }
    }
    Err(Status::conflict(subject, super::MODIFIED))
}

/// A new state of `stored` with what no update can change as it was, and what the update said of that. Refuses one that
/// is meant for another object or another version of it.
pub fn settled(
    call: &Call,
    place: &StorageLocation,
    subresource: Option<&'static Subresource>,
    mut new: Value,
    stored: &Object,
    old: &Value,
) -> Result<(Value, Vec<FieldError>), Status> {
    let name = call.target.name.as_deref().unwrap_or_default();
    let subject = place.subject(name);
    let metadata = metadata::of(&mut new)?;
    metadata::must_be_named(metadata, call.target.namespace.as_deref(), name)?;
    metadata::must_be_same(metadata, &old["metadata"], subject, call.verb)?;
    let version = metadata.get("resourceVersion").and_then(Value::as_str).unwrap_or_default();
    let of_any_version = matches!(version, "" | "0");
    if of_any_version && call.verb == Verb::Update && place.kind.updates_name_version {
        let error = FieldError::invalid("metadata.resourceVersion", &Value::from(0), "must be specified for an update");
        return Err(Status::invalid(subject, &[error]));
    }
    if !of_any_version && version != stored.revision.to_string() {
        return Err(Status::conflict(subject, super::MODIFIED));
    }
    let fields = match subresource.map(|subresource| subresource.effect) {
        Some(Effect::Fields(write)) => Some(write.fields),
        _ => None,
    };
    let refused = match fields {
        // No metadata goes through, so what is said of it is not even refused.
        Some(_) if place.kind.custom.is_some() => Vec::new(),
        _ => metadata::unchangeable(metadata, &old["metadata"]),
    };
    metadata::keep(metadata, &old["metadata"]);
    let new = match fields {
        Some(fields) => through_subresource(&place.kind, fields, new, old),
        None => new,
    };
    Ok((new, refused))
}

/// What the status of a custom resource lets through: no metadata, unlike that of other kinds.
const CUSTOM_STATUS: &[&[&str]] = &[&["status"]];

/// What a subresource that writes `fields` lets through for a kind.
pub(super) fn through_subresource(kind: &Kind, fields: &[&[&str]], new: Value, old: &Value) -> Value {
    through(if kind.custom.is_some() { CUSTOM_STATUS } else { fields }, new, old)
}

/// `old` with these fields of `new`.
fn through(fields: &[&[&str]], new: Value, old: &Value) -> Value {
    let mut result = old.clone();
    for path in fields {
        let Some((last, parents)) = path.split_last() else { continue };
        let value = path.iter().try_fold(&new, |at, part| at.get(part)).cloned();
        let mut at = &mut result;
        for part in parents {
            at = &mut at[*part];
        }
        match (value, at) {
            (Some(value), at) => at[*last] = value,
            (None, Value::Object(map)) => drop(map.shift_remove(*last)),
            (None, _) => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_update_changes_status_and_annotations_alone() {
        let old = json!({"metadata": {"name": "a", "ownerReferences": [1]}, "spec": {"x": 1}, "status": {"s": 1}});
        let new = json!({"metadata": {"name": "a", "annotations": {"k": "v"}}, "spec": {"x": 2}, "status": {"s": 2}});
        let through = through(&[&["status"], &["metadata", "annotations"]], new, &old);
        let expected = json!({"metadata": {"name": "a", "ownerReferences": [1], "annotations": {"k": "v"}},
            "spec": {"x": 1}, "status": {"s": 2}});
        assert_eq!(through, expected);
    }
}
