//! `PATCH` with `application/apply-patch+yaml`: server-side apply. The object is created if it is not there.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{
    TRIES, WriteOutcome, Written, answer,
    inquiry::Inquiry,
    metadata, options, parse,
    pipeline::{self, Action, Committed, Ownership, Pending, Prepared, Stored},
    update::settled,
    writer,
};
use crate::{
    api::{
        Api, Status, StorageLocation,
        request::{Call, body, configuration::configuration},
        subresource::Subresource,
    },
    definitions::{conversion, ownership},
    field_management::Tracker,
};

/// `PATCH` of an object, or of a subresource that has its shape, with a configuration.
pub async fn apply(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let config = configuration(text, call.query.field_validation)?.tell();
    let applied = apply_config(api, call, &config, call.target.subresource).await?;
    let code = if applied.created { StatusCode::CREATED } else { StatusCode::OK };
    answer(call, code, &applied.outcome).await
}

/// Applies a configuration of the kind that the request names, through `subresource`.
pub async fn apply_config(
    api: &Api,
    call: &Call,
    config: &Value,
    subresource: Option<&'static Subresource>,
) -> Result<Written, Status> {
    let place = api.place(&call.target)?;
    let name = call.target.name.as_deref().unwrap_or_default();
    for _ in 0..TRIES {
        let snapshot = api.store().snapshot();
        let stored = snapshot.get(&place.resource, &place.key).cloned();
        let old = stored.as_deref().map(parse).transpose()?;
        if old.is_none() {
            if subresource.is_some() {
                return Err(Status::not_found(place.subject(name)));
            }
            must_not_mean_another(&place, name, config)?;
        }
        let managers = stored.as_ref().map(|stored| stored.managers()).unwrap_or_default();
        let kinds = api.kinds().snapshot();
        let kind = &call.target.kind;
        let track = |tracker: &Tracker<'_>| tracker.apply(old.as_ref(), &managers, config, options::force(call));
        let merge = || writer(call, subresource).track(&kinds, &place.kind, track);
        let applied = ownership::account(kind, merge).await??;
        let (new, empties) = body::must_be(kind, applied.object, call.query.field_validation)?.tell_sent();
        let mut new = conversion::to_stored(kind, new, stored.as_deref()).await?;
        let namespace = call.target.namespace.as_deref();
        let (new, refused) = match (&stored, &old) {
            (Some(stored), Some(old)) => settled(call, &place, subresource, new, stored, old)?,
            _ => {
                let metadata = metadata::of(&mut new)?;
                metadata::must_be_named(metadata, namespace, name)?;
                metadata::begin(metadata, namespace);
                (new, Vec::new())
            }
        };
        let old = stored.as_ref().zip(old.as_ref()).map(|(object, value)| Stored { object, value });
        let (action, ownership) = (Action::Put { new, empties }, Ownership::Decided(applied.managers));
        let inquiry = Inquiry::default();
        let pending = Pending { place: &place, namespace, name, subresource, old, action, refused, ownership, inquiry };
        let prepared = pipeline::prepare(api, call, &snapshot, pending).await?;
        let created = stored.is_none();
        let transaction = match (prepared, &stored) {
            (Prepared::Unchanged, Some(stored)) => {
                return Ok(Written { outcome: WriteOutcome::Stored(stored.clone()), created });
            }
            (Prepared::Unchanged, None) => return Err(Status::internal("a new object is never unchanged")),
            (Prepared::Ready { transaction, .. }, _) => transaction,
        };
        if call.query.dry_run {
            let outcome = pipeline::outcome_of_dry_run(transaction, stored.as_ref())?;
            return Ok(Written { outcome, created });
        }
        if let Committed::Done(object) = pipeline::commit(api, &place, name, transaction).await? {
            return Ok(Written { outcome: WriteOutcome::Stored(object), created });
        }
    }
    Err(Status::conflict(place.subject(name), super::MODIFIED))
}

/// A configuration with a uid means one object, and creates no other.
fn must_not_mean_another(place: &StorageLocation, name: &str, config: &Value) -> Result<(), Status> {
    match config["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
        None => Ok(()),
        Some(uid) => {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            Err(Status::conflict(place.subject(name), &why))
        }
    }
}
