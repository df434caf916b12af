//! Deletion of all objects that a selector takes, many in one transaction.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::{
    Options, TRIES,
    delete::{Prepared, prepare, success},
    refusal,
};
use crate::{
    api::{
        Api, Place, Status, read,
        request::{Call, query::Version},
        response,
    },
    store::{Object, WriteError},
};

/// Deletions in one transaction. Between two, others get their turn.
const BATCH: usize = 1000;

pub async fn delete_collection(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let options = Options::of(call, text)?;
    let resource = api.resource(&call.target)?;
    call.query.field_selector.check(&resource.kind)?;
    let snapshot = api.store().snapshot();
    if let Some(Version::Of(asked)) = call.query.resource_version
        && asked > snapshot.revision
    {
        return Err(Status::version_too_large(asked, snapshot.revision));
    }
    let selected = read::page(&snapshot, &resource.resource, call, None, call.query.limit).objects;
    drop(snapshot);
    let mut left: Vec<Arc<Object>> = selected;
    for _ in 0..TRIES {
        let mut again = Vec::new();
        for batch in left.chunks(BATCH) {
            again.extend(delete_batch(api, call, &resource, batch, &options).await?);
        }
        if again.is_empty() {
            let kind = &call.target.kind;
            let details = json!({"group": kind.group, "kind": kind.plural});
            return Ok(response::json(StatusCode::OK, success(details).to_string()));
        }
        left = again;
    }
    Err(Status::conflict(resource.subject(""), super::MODIFIED))
}

/// Deletes a batch; answers the objects that were changed meanwhile, as they are now.
async fn delete_batch(
    api: &Api,
    call: &Call,
    resource: &Place,
    batch: &[Arc<Object>],
    options: &Options,
) -> Result<Vec<Arc<Object>>, Status> {
    let mut writes = Vec::with_capacity(batch.len());
    let mut reservations = Vec::with_capacity(batch.len());
    for object in batch {
        let header = &object.header;
        let key = match &*header.namespace {
            "" => (*header.name).into(),
            namespace => format!("{namespace}/{}", header.name).into(),
        };
        let place = Place { kind: resource.kind.clone(), resource: resource.resource.clone(), key };
        let Prepared { write, gone, reservation } = prepare(api, call, &place, object, options)?;
        if let Some(write) = write.filter(|_| !options.dry_run) {
            writes.push(write);
            reservations.push((gone, reservation));
        }
    }
    let mut again = Vec::new();
    for (result, (gone, reservation)) in api.store().write(writes).await.into_iter().zip(reservations) {
        match result {
            Ok(_) if gone => reservation.commit(),
            Ok(_) => {}
            Err(WriteError::Conflict { current }) => again.extend(current),
            Err(error) => return Err(refusal(error, resource.subject(""))),
        }
    }
    Ok(again)
}
