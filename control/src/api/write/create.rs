//! Creation of an object: by `POST`, or by a `PUT` of a kind whose objects come to be that way, too.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{
    Made, TRIES, WriteOutcome, answer,
    inquiry::Inquiry,
    metadata,
    pipeline::{self, Action, Committed, Ownership, Pending, Prepared},
    writer,
};
use crate::{
    api::{
        Api, Status, StorageLocation,
        request::{Call, body},
    },
    definitions::conversion,
    kinds::Naming,
};

/// `POST` of an object.
pub async fn create(api: &Api, call: &Call, text_of_body: &[u8]) -> Result<Response, Status> {
    let target = &call.target;
    let sent = body::object(&target.kind, &call.content_type, text_of_body, call.query.field_validation)?;
    let (object, empties) = sent.tell_sent();
    let mut object = conversion::to_stored(&target.kind, object, None).await?;
    let mut place = api.resource(target)?;
    let metadata = metadata::of(&mut object)?;
    let version = metadata.get("resourceVersion").and_then(Value::as_str).and_then(|version| version.parse().ok());
    let names_version = version.is_some_and(|version: u64| version != 0);
    let namespace = match (&target.namespace, place.kind.namespaced) {
        (None, true) => Some(metadata.get("namespace").and_then(Value::as_str).unwrap_or_default().to_owned())
            .filter(|namespace| !namespace.is_empty())
            .ok_or_else(|| Status::bad_request("an empty namespace may not be set during creation"))
            .map(Some)?,
        (namespace, _) => namespace.clone(),
    };
    metadata::must_name(metadata, namespace.as_deref(), None)?;
    metadata::begin(metadata, namespace.as_deref());
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (given, base) = (text("name"), text("generateName"));
    let unnamed = given.is_empty();
    let mut name = given;
    // Made anew where it is taken.
    let mut generate = false;
    let mut name_taken = false;
    let mut first = Some(object);
    for _ in 0..TRIES {
        let mut object = match first.take() {
            Some(object) => object,
            // To read it once more in the rare case costs less than a copy in all others.
            None => again(call, text_of_body, namespace.as_deref()).await?,
        };
        if unnamed && let Some(made) = metadata::name_for_unnamed(place.kind.naming, &base) {
            generate = place.kind.naming != Naming::BaseAlone;
            name = made;
            object["metadata"]["name"] = name.as_str().into();
        }
        place.key = match &namespace {
            Some(namespace) => format!("{namespace}/{name}").into(),
            None => name.as_str().into(),
        };
        let made = Made { object, empties: empties.clone() };
        match attempt(api, call, &place, namespace.as_deref(), (&name, generate), names_version, made).await? {
            Attempt::Done(outcome) => return answer(call, StatusCode::CREATED, &outcome).await,
            Attempt::NameTaken => {
                name_taken = true;
                if !generate {
                    break;
                }
            }
            Attempt::Contended => name_taken = false,
        }
    }
    if name_taken {
        return Err(Status::already_exists(place.subject(&name)));
    }
    Err(Status::conflict(place.subject(&name), "others were faster to take what it needs; please try again"))
}

/// The object of a body that was read before, as it is before an attempt to store it.
async fn again(call: &Call, text_of_body: &[u8], namespace: Option<&str>) -> Result<Value, Status> {
    let kind = &call.target.kind;
    // What the client should be warned of is told already.
    let object = body::object(kind, &call.content_type, text_of_body, call.query.field_validation)?.value;
    let mut object = conversion::to_stored(kind, object, None).await?;
    metadata::begin(metadata::of(&mut object)?, namespace);
    Ok(object)
}

/// What came of an attempt.
pub enum Attempt {
    /// It was created.
    Done(WriteOutcome),
    /// There is one of that name.
    NameTaken,
    /// Another took what was to be allocated.
    Contended,
}

/// Tries once to store a new object. `generated` says that its name is, `names_version` that it came with a resource
/// version, which is refused.
pub async fn attempt(
    api: &Api,
    call: &Call,
    place: &StorageLocation,
    namespace: Option<&str>,
    (name, generated): (&str, bool),
    names_version: bool,
    made: Made,
) -> Result<Attempt, Status> {
    let snapshot = api.store().snapshot();
    let Made { object: new, empties } = made;
    let (action, ownership) = (Action::Put { new, empties }, Ownership::Tracked(writer(call, None)));
    let inquiry = Inquiry { name_is_generated: generated, ..Inquiry::default() };
    let (subresource, old, refused) = (None, None, Vec::new());
    let pending = Pending { place, namespace, name, subresource, old, action, refused, ownership, inquiry };
    let Prepared::Ready { transaction, .. } = pipeline::prepare(api, call, &snapshot, pending).await? else {
        return Err(Status::internal("a new object is never unchanged"));
    };
    if snapshot.get(&place.resource, &place.key).is_some() {
        return Ok(Attempt::NameTaken);
    }
    if call.query.dry_run {
        return pipeline::outcome_of_dry_run(transaction, None).map(Attempt::Done);
    }
    if names_version {
        // The store's own rule, and so the last that is asked.
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    Ok(match pipeline::commit(api, place, name, transaction).await? {
        Committed::Done(object) => Attempt::Done(WriteOutcome::Stored(object)),
        Committed::Stale => Attempt::NameTaken,
        Committed::Contended => Attempt::Contended,
    })
}
