//! Changes of a stored object, whole or through a subresource. Update and patch differ only in how they make the new object.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{TRIES, answer, current, encode, metadata, must_be_valid, parse, refusal, to_stored};
use crate::{
    admission::{self, NamespaceState, Verb},
    api::{
        Api, Place, Status, Subject,
        request::{Call, body},
        subresource::{Effect, Subresource},
    },
    kinds::{FieldError, Kind},
    store::{self, Draft, EventType, Expect, Object, Write, WriteError},
};

/// What became of a write.
pub enum Outcome {
    Stored(Arc<Object>),
    /// What would have been stored.
    Dry {
        draft: Draft,
        revision: u64,
    },
}

impl Outcome {
    /// The object whole.
    pub fn value(&self) -> Result<Value, Status> {
        match self {
            Self::Stored(object) => parse(object),
            Self::Dry { draft, revision } => parse(&Object::new(draft.clone(), *revision, EventType::Modified)),
        }
    }
}

/// A change to an object: made anew from each state that is found.
pub struct Change<'a> {
    pub subresource: Option<&'static Subresource>,
    /// From the stored object to the new one, both of the stored kind.
    pub make: &'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync),
}

/// `PUT` of an object, or of a subresource that has its shape.
pub async fn update(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let target = &call.target;
    let body::Decoded { mut value, warnings } =
        body::object(&target.kind, &call.content_type, text, call.query.field_validation)?;
    to_stored(&target.kind, &mut value);
    let place = api.place(target)?;
    let make = |_: &Value| Ok(value.clone());
    let outcome = change(api, call, &place, Change { subresource: target.subresource, make: &make }).await?;
    Ok(answer(call, StatusCode::OK, &outcome, &warnings))
}

/// Makes a change. A change that names a resource version is made on that version or not at all.
pub async fn change(api: &Api, call: &Call, place: &Place, change: Change<'_>) -> Result<Outcome, Status> {
    let name = call.target.name.as_deref().unwrap_or_default();
    let subject = place.subject(name);
    for _ in 0..TRIES {
        let stored = current(api, place, name)?;
        let old = parse(&stored)?;
        let mut new = (change.make)(&old)?;
        let metadata = metadata::of(&mut new)?;
        metadata::must_name(metadata, call.target.namespace.as_deref(), Some(name))?;
        metadata::must_be_same(metadata, &old["metadata"], subject)?;
        let version = metadata.get("resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let pinned = !version.is_empty();
        if pinned && version != stored.revision.to_string() {
            return Err(Status::conflict(subject, super::MODIFIED));
        }
        metadata::keep(metadata, &old["metadata"]);
        let new = settle(place, &change, new, &old)?;
        let Some(new) = new else { return Ok(Outcome::Stored(stored)) };
        if let Some(outcome) = store_change(api, call, place, &change, &stored, &old, new).await? {
            return Ok(outcome);
        }
        // Somebody was faster. A change that names a version is refused in the next round.
    }
    Err(Status::conflict(subject, super::MODIFIED))
}

/// The new object as it may be stored; nothing, if it is the old one.
fn settle(place: &Place, change: &Change<'_>, new: Value, old: &Value) -> Result<Option<Value>, Status> {
    let kind = &place.kind;
    let effect = change.subresource.map_or(Effect::Update, |subresource| subresource.effect);
    let mut new = match effect {
        Effect::Update | Effect::SetImmutable | Effect::Nothing => {
            let mut new = new;
            (kind.default)(&mut new);
            (kind.prepare)(&mut new, Some(old));
            new
        }
        Effect::Fields(fields) => {
            let mut new = through(fields, new, old);
            (kind.default)(&mut new);
            new
        }
    };
    let against = (effect != Effect::SetImmutable).then_some(old);
    must_be_valid(kind, &new, against)?;
    must_not_hold_anew(kind, &new, old)?;
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    new["apiVersion"] = old["apiVersion"].clone();
    new["kind"] = old["kind"].clone();
    Ok((new != *old).then_some(new))
}

/// Refuses finalizers that are put on an object whose deletion was asked for.
fn must_not_hold_anew(kind: &Kind, new: &Value, old: &Value) -> Result<(), Status> {
    let finalizers = |object: &Value| -> Vec<String> {
        let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let before = finalizers(old);
    let added: Vec<String> = finalizers(new).into_iter().filter(|name| !before.contains(name)).collect();
    if added.is_empty() || !old["metadata"]["deletionTimestamp"].is_string() {
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

/// What a subresource lets through: all else stays as it is.
fn through(fields: &[&[&str]], new: Value, old: &Value) -> Value {
    let mut result = old.clone();
    let mut take = |path: &[&str]| {
        let Some((last, parents)) = path.split_last() else { return };
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
    };
    fields.iter().for_each(|path| take(path));
    result
}

/// Writes a change of `stored`; nothing, if it was changed meanwhile.
async fn store_change(
    api: &Api,
    call: &Call,
    place: &Place,
    change: &Change<'_>,
    stored: &Arc<Object>,
    old: &Value,
    mut new: Value,
) -> Result<Option<Outcome>, Status> {
    let name = call.target.name.as_deref().unwrap_or_default();
    let goes = is_released(&place.kind, &new);
    let request = admission::Request {
        verb: if goes { Verb::Delete } else { Verb::Update },
        kind: &place.kind,
        namespace: call.target.namespace.as_deref(),
        name,
        subresource: change.subresource.filter(|_| !goes).map(|subresource| subresource.segment),
        old: Some(old),
        identity: &call.identity,
        namespace_state: NamespaceState::Active,
    };
    let reservation = api.admission().admit(&request, &mut new)?;
    let draft = encode::draft(&place.kind, &new);
    if call.query.dry_run {
        return Ok(Some(Outcome::Dry { draft, revision: stored.revision }));
    }
    let change = if goes { store::Change::Delete } else { store::Change::Put(draft) };
    let write = Write { key: place.key(), expect: Expect::At(stored.revision), change };
    match api.store().write_one(write).await {
        Ok(object) => {
            reservation.commit();
            Ok(Some(Outcome::Stored(object)))
        }
        Err(WriteError::Conflict { .. }) => Ok(None),
        Err(error) => Err(refusal(error, place.subject(name))),
    }
}

/// Whether an object whose deletion was asked for has nothing left that holds it.
fn is_released(kind: &Kind, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && none(&metadata["finalizers"])
        && !super::held_by_spec(kind, object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;
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

    #[test]
    fn the_last_finalizer_lets_a_deleted_object_go() {
        let kind = Kinds::built_in().by_path("", "v1", "namespaces").unwrap();
        let mut object = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["a/b"]}});
        assert!(!is_released(&kind, &object));
        object["metadata"]["finalizers"] = json!([]);
        assert!(is_released(&kind, &object));
        object["spec"]["finalizers"] = json!(["kubernetes"]);
        assert!(!is_released(&kind, &object));
        object["spec"] = json!({});
        object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        assert!(!is_released(&kind, &object), "a pod's grace is ended by its node");
    }
}
