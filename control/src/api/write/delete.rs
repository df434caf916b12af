//! Deletion of one object: at once, or marked until its finalizers and its grace period let it go.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    DeleteOptions, TRIES, WriteOutcome, answer, current,
    delete_options::Propagation,
    inquiry::Inquiry,
    parse,
    pipeline::{self, Action, Committed, Ownership, Pending, Prepared, Stored},
};
use crate::{
    api::{Api, Status, StorageLocation, request::Call, response},
    encode,
    kinds::Kind,
    rfc3339,
    store::{Change, EventType, Object, Snapshot, Write},
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a deletion does to an object now.
#[derive(Clone, Debug, PartialEq)]
pub enum DeletionStep {
    /// The object goes at once.
    Remove,
    /// The object is stored like this, and goes when nothing holds it any more.
    Mark(Value),
    /// It is being deleted already, and nothing changes.
    Keep,
}

/// What else happens in the transaction that deletes an object.
#[derive(Default)]
pub struct Alongside {
    /// Changes the object where it stays for now.
    pub mark: Option<fn(&mut Value)>,
    /// Writes of other objects.
    pub writes: Vec<Write>,
    /// Whether policies and webhooks were asked about what led to the deletion.
    pub is_admitted: bool,
}

/// Decides a deletion.
pub fn step(kind: &Kind, old: &Value, options: &DeleteOptions, now: Timestamp) -> DeletionStep {
    let mut finalizers = finalizers(&old["metadata"]["finalizers"], propagation(kind, old, options));
    if let Some(own) = kind
        .deletion
        .finalizer
        .filter(|own| old["metadata"]["deletionTimestamp"].is_null() && !finalizers.iter().any(|name| name == own))
    {
        finalizers.push(own.to_owned());
    }
    let held = !finalizers.is_empty() || super::held_by_spec(kind, old);
    let marked: Option<Timestamp> = old["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse().ok());
    let already = marked.map(|_| old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0));
    let asked = (kind.deletion.grace_seconds)(old, options.grace_period_seconds);
    let grace = match already {
        // A second deletion can only shorten the wait.
        Some(already) if options.grace_period_seconds.is_some() || asked == 0 => already.min(asked),
        Some(already) => already,
        None => asked,
    };
    if grace == 0 && !held {
        return DeletionStep::Remove;
    }
    let mut new = old.clone();
    let Some(fields) = new["metadata"].as_object_mut() else { return DeletionStep::Remove };
    if finalizers.is_empty() {
        fields.shift_remove("finalizers");
    } else {
        fields.insert("finalizers".into(), json!(finalizers));
    }
    if already != Some(grace) {
        let begun = marked.map_or(now, |at| saturating_add(at, already.unwrap_or(0).saturating_neg()));
        fields.insert("deletionTimestamp".into(), rfc3339::at(saturating_add(begun, grace)).into());
        if !kind.deletion.sets_time_alone {
            fields.insert("deletionGracePeriodSeconds".into(), grace.into());
            if let Some(generation) = fields.get("generation").and_then(Value::as_i64).filter(|_| already.is_none()) {
                fields.insert("generation".into(), generation.saturating_add(1).into());
            }
        }
    }
    (kind.deletion.begin)(&mut new);
    if new == *old { DeletionStep::Keep } else { DeletionStep::Mark(new) }
}

/// What was asked for, or else what is usual for the kind, unless the object says it by its finalizers.
fn propagation(kind: &Kind, old: &Value, options: &DeleteOptions) -> Option<Propagation> {
    let said = || {
        let finalizers = old["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|list| list.iter().any(|name| name == ORPHAN || name == FOREGROUND))
    };
    if kind.deletion.has_no_dependents {
        return None;
    }
    let usual = || (kind.deletion.orphans_by_default && !said()).then_some(Propagation::Orphan);
    options.propagation.or_else(usual)
}

fn finalizers(stored: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let stored = stored.as_array().into_iter().flatten().filter_map(Value::as_str);
    let keep = |name: &&str| propagation.is_none() || !matches!(*name, ORPHAN | FOREGROUND);
    let added = match propagation {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) | None => None,
    };
    stored.filter(keep).chain(added).map(str::to_owned).collect()
}

/// `at` so many seconds later, or as late as a timestamp can be.
fn saturating_add(at: Timestamp, seconds: i64) -> Timestamp {
    let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(end)
}

/// Decides the deletion of `stored` and takes it through everything but the store. Answers with the stored object's
/// part in it: whether it goes at once.
pub async fn prepare(
    api: &Api,
    call: &Call,
    snapshot: &Snapshot,
    place: &StorageLocation,
    stored: &Arc<Object>,
    options: &DeleteOptions,
    alongside: Alongside,
) -> Result<Prepared, Status> {
    let name = stored.header().name();
    options.must_hold(stored, &place.kind)?;
    let value = parse(stored)?;
    let action = match step(&place.kind, &value, options, Timestamp::now()) {
        DeletionStep::Remove => Action::Remove,
        DeletionStep::Mark(mut new) => {
            if let Some(mark) = alongside.mark {
                mark(&mut new);
            }
            Action::Mark(new)
        }
        DeletionStep::Keep => return Ok(Prepared::Unchanged),
    };
    let namespace = Some(stored.header().namespace()).filter(|namespace| !namespace.is_empty());
    let old = Some(Stored { object: stored, value: &value });
    let ownership = Ownership::Kept;
    let inquiry = Inquiry { deletion: Some(options), is_admitted: alongside.is_admitted, ..Inquiry::default() };
    let (subresource, refused) = (None, Vec::new());
    let pending = Pending { place, namespace, name, subresource, old, action, refused, ownership, inquiry };
    let mut prepared = pipeline::prepare(api, call, snapshot, pending).await?;
    if let Prepared::Ready { transaction, .. } = &mut prepared {
        transaction.writes.extend(alongside.writes);
    }
    Ok(prepared)
}

/// Decides, given the stored object, whether it may be deleted and what goes along.
pub type Decide<'a> = &'a (dyn Fn(&Snapshot, &Object, &Value) -> Result<Alongside, Status> + Send + Sync);

/// Deletes the object that `call` names, if `decide` lets it. Answers with the object, and whether it is gone.
pub async fn remove_with(
    api: &Api,
    call: &Call,
    options: &DeleteOptions,
    decide: Decide<'_>,
) -> Result<(Arc<Object>, bool), Status> {
    let place = api.place(&call.target)?;
    let name = call.target.name.as_deref().unwrap_or_default();
    remove_at(api, call, (&place, name), options, decide).await
}

/// The same of an object by its place and name.
pub async fn remove_at(
    api: &Api,
    call: &Call,
    (place, name): (&StorageLocation, &str),
    options: &DeleteOptions,
    decide: Decide<'_>,
) -> Result<(Arc<Object>, bool), Status> {
    for _ in 0..TRIES {
        let snapshot = api.store().snapshot();
        let stored = current(&snapshot, place, name)?;
        let alongside = decide(&snapshot, &stored, &parse(&stored)?)?;
        let prepared = prepare(api, call, &snapshot, place, &stored, options, alongside).await?;
        let (transaction, removes) = match prepared {
            Prepared::Unchanged => return Ok((stored, false)),
            Prepared::Ready { transaction, removes } => (transaction, removes),
        };
        if options.dry_run {
            let marked = match transaction.writes.into_iter().next().map(|write| write.change) {
                // As it would be while something holds it.
                Some(Change::Put(draft)) => Arc::new(Object::new(draft, stored.revision, EventType::Modified)),
                _ => stored,
            };
            return Ok((marked, removes));
        }
        if let Committed::Done(object) = pipeline::commit(api, place, name, transaction).await? {
            return Ok((object, removes));
        }
    }
    Err(Status::conflict(place.subject(name), super::MODIFIED))
}

/// `DELETE` of one object.
pub async fn delete(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let options = DeleteOptions::of(call, text)?;
    options.warn_of_dependents(&call.target.kind);
    let (object, gone) = remove_with(api, call, &options, &|_, _, _| Ok(Alongside::default())).await?;
    let kind = &call.target.kind;
    if gone && kind.deletion.ends_gracefully {
        return answer(call, StatusCode::OK, &ended(kind, &object)?).await;
    }
    if !gone || kind.deletion.returns_object {
        return answer(call, StatusCode::OK, &WriteOutcome::Stored(object)).await;
    }
    let mut details = json!({"name": object.header().name()});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    details["kind"] = json!(kind.plural);
    details["uid"] = json!(object.header().uid());
    Ok(response::json(StatusCode::OK, success(details).to_string()))
}

/// An object that is gone, as it was told to end without grace.
fn ended(kind: &Kind, object: &Object) -> Result<WriteOutcome, Status> {
    let mut value = parse(object)?;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        if metadata.get("deletionTimestamp").is_none_or(Value::is_null) {
            metadata.insert("deletionTimestamp".into(), rfc3339::now().into());
            let generation = metadata.get("generation").and_then(Value::as_i64).filter(|generation| *generation > 0);
            if let Some(generation) = generation {
                metadata.insert("generation".into(), generation.saturating_add(1).into());
            }
        }
        metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
    }
    let draft = encode::managed_draft(kind, &value, &object.managers());
    Ok(WriteOutcome::Dry { draft, revision: Some(object.revision) })
}

/// A `Status` that says that all went well.
fn success(details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests;
