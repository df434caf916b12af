//! Changes of a stored object, whole or through a subresource. Update and patch differ only in how they make the new
//! object.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{
    TRIES, WriteOutcome, Written, answer,
    create::{self, Attempt},
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
    let mut object = conversion::to_stored(&target.kind, object, stored.as_deref()).await?;
    let name = target.name.as_deref().unwrap_or_default();
    metadata::must_be_named(metadata::of(&mut object)?, target.namespace.as_deref(), name)?;
    let make_new = |_: &Value| Ok(Made { object: object.clone(), empties: empties.clone() });
    // A subresource is that of an object which is there. kube-apiserver means that, too, but makes an object of a PUT
    // of a status: a Service without an address.
    let manner = match place.kind.creates_on_update && target.subresource.is_none() {
        true => Manner::OrCreation,
        false => Manner::Plain,
    };
    let written = make(api, call, &place, ObjectUpdate { subresource: target.subresource, make: &make_new }, manner);
    let Written { outcome, created } = written.await?;
    answer(call, if created { StatusCode::CREATED } else { StatusCode::OK }, &outcome).await
}

/// Makes a change. A change that names a resource version is made on that version or not at all.
pub async fn change(
    api: &Api,
    call: &Call,
    place: &StorageLocation,
    change: ObjectUpdate<'_>,
) -> Result<WriteOutcome, Status> {
    Ok(make(api, call, place, change, Manner::Plain).await?.outcome)
}

/// As [`change`], for a change that is made from the object with its `metadata.managedFields`.
pub async fn change_with_managers(
    api: &Api,
    call: &Call,
    place: &StorageLocation,
    change: ObjectUpdate<'_>,
) -> Result<WriteOutcome, Status> {
    Ok(make(api, call, place, change, Manner::WithManagers).await?.outcome)
}

/// How a change is made.
#[derive(Clone, Copy)]
enum Manner {
    /// Of an object that is there, from what it is without its managers.
    Plain,
    /// Of an object that is there, from what it is with its managers.
    WithManagers,
    /// As the first, and an object that is not there is created.
    OrCreation,
}

async fn make(
    api: &Api,
    call: &Call,
    place: &StorageLocation,
    change: ObjectUpdate<'_>,
    manner: Manner,
) -> Result<Written, Status> {
    let name = call.target.name.as_deref().unwrap_or_default();
    let subject = place.subject(name);
    for _ in 0..TRIES {
        let snapshot = api.store().snapshot();
        let stored = match (snapshot.get(&place.resource, &place.key), manner) {
            (Some(stored), _) => stored.clone(),
            (None, Manner::OrCreation) => {
                // In a box: most updates need no room for this.
                match Box::pin(create_absent(api, call, place, (change.make)(&Value::Null)?)).await? {
                    Attempt::Done(outcome) => return Ok(Written { outcome, created: true }),
                    Attempt::NameTaken | Attempt::Contended => continue,
                }
            }
            (None, Manner::Plain | Manner::WithManagers) => return Err(Status::not_found(subject)),
        };
        let old = parse(&stored)?;
        let Made { object: new, empties } = match manner {
            Manner::WithManagers => (change.make)(&parse_whole(&stored)?)?,
            Manner::Plain | Manner::OrCreation => (change.make)(&old)?,
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
        let changed = |outcome| Ok(Written { outcome, created: false });
        let transaction = match pipeline::prepare(api, call, &snapshot, pending).await? {
            Prepared::Unchanged => return changed(WriteOutcome::Stored(stored)),
            Prepared::Ready { transaction, .. } => transaction,
        };
        if call.query.dry_run {
            return changed(pipeline::outcome_of_dry_run(transaction, Some(&stored))?);
        }
        match pipeline::commit(api, place, name, transaction).await? {
            Committed::Done(object) => return changed(WriteOutcome::Stored(object)),
            // A change that names a version is refused in the next round.
            Committed::Stale | Committed::Contended => {}
        }
    }
    Err(Status::conflict(subject, super::MODIFIED))
}

/// Tries once to create what a `PUT` names and is not there. As in Kubernetes, a resource version says nothing then,
/// while a uid means one object and creates no other. What the server alone says of an object is left out as from one
/// that is posted; kube-apiserver takes a time of deletion, and so makes an object that is being deleted from the
/// first.
async fn create_absent(api: &Api, call: &Call, place: &StorageLocation, new: Made) -> Result<Attempt, Status> {
    let Made { mut object, empties } = new;
    let (namespace, name) = (call.target.namespace.as_deref(), call.target.name.as_deref().unwrap_or_default());
    let metadata = metadata::of(&mut object)?;
    metadata::must_be_same(metadata, &Value::Null, place.subject(name), call.verb)?;
    metadata::begin(metadata, namespace);
    create::attempt(api, call, place, namespace, (name, false), false, Made { object, empties }).await
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
