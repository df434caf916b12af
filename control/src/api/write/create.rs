//! Creation of an object.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{Outcome, TRIES, answer, encode, metadata, must_be_valid, namespace_state, refusal, to_stored};
use crate::{
    admission::{self, Verb},
    api::{
        Api, Place, Status,
        request::{Call, body},
    },
    store::{self, Expect, Write, WriteError},
};

pub async fn create(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let target = &call.target;
    let body::Decoded { value: mut object, warnings } =
        body::object(&target.kind, &call.content_type, text, call.query.field_validation)?;
    to_stored(&target.kind, &mut object);
    let mut place = api.resource(target)?;
    let kind = place.kind.clone();
    let metadata = metadata::of(&mut object)?;
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let namespace = match (&target.namespace, kind.namespaced) {
        (None, true) => Some(metadata.get("namespace").and_then(Value::as_str).unwrap_or_default().to_owned())
            .filter(|namespace| !namespace.is_empty())
            .ok_or_else(|| Status::bad_request("an empty namespace may not be set during creation"))
            .map(Some)?,
        (namespace, _) => namespace.clone(),
    };
    metadata::must_name(metadata, namespace.as_deref(), None)?;
    metadata::begin(metadata, namespace.as_deref());
    (kind.default)(&mut object);
    (kind.prepare)(&mut object, None);

    let base = object["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
    let generate = !base.is_empty() && object["metadata"]["name"].as_str().is_none_or(str::is_empty);
    for _ in 0..TRIES {
        let mut object = object.clone();
        if generate {
            object["metadata"]["name"] = metadata::generated(&base).into();
            // What defaults take from the name could not be known before.
            (kind.default)(&mut object);
        }
        match attempt(api, call, &mut place, namespace.as_deref(), object).await? {
            Some(outcome) => return Ok(answer(call, StatusCode::CREATED, &outcome, &warnings)),
            None if generate => {}
            None => break,
        }
    }
    let name = place.key.rsplit('/').next().unwrap_or_default();
    Err(Status::already_exists(place.subject(name)))
}

/// Stores the object, or answers nothing if the name is taken.
async fn attempt(
    api: &Api,
    call: &Call,
    place: &mut Place,
    namespace: Option<&str>,
    mut object: Value,
) -> Result<Option<Outcome>, Status> {
    let kind = place.kind.clone();
    must_be_valid(&kind, &object, None)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    place.key = match namespace {
        Some(namespace) => format!("{namespace}/{name}").into(),
        None => name.as_str().into(),
    };
    let state = namespace_state(api, namespace);
    let taken = api.store().snapshot().get(&place.resource, &place.key).is_some();
    let request = admission::Request {
        verb: Verb::Create,
        kind: &kind,
        namespace,
        name: &name,
        subresource: None,
        old: None,
        identity: &call.identity,
        namespace_state: state,
    };
    // A taken name is told before a taken address; a namespace that is not there before both.
    if taken && state == admission::NamespaceState::Active {
        return Ok(None);
    }
    let reservation = api.admission().admit(&request, &mut object)?;
    let draft = encode::draft(&kind, &object);
    if call.query.dry_run {
        return Ok(Some(Outcome::Dry { draft, revision: api.store().snapshot().revision }));
    }
    let write = Write { key: place.key(), expect: Expect::Absent, change: store::Change::Put(draft) };
    match api.store().write_one(write).await {
        Ok(object) => {
            reservation.commit();
            Ok(Some(Outcome::Stored(object)))
        }
        Err(WriteError::Conflict { .. }) => Ok(None),
        Err(error) => Err(refusal(error, place.subject(&name))),
    }
}
