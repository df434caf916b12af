//! Deletion of all objects that a selector takes, many in one transaction. It is answered with the list of them.

use std::sync::Arc;

use axum::response::Response;
use serde_json::json;

use super::{
    Alongside, Options, TRIES,
    delete::prepare,
    pipeline::{Committed, Prepared, outcome_of_commit},
};
use crate::{
    api::{Api, Status, StorageLocation, read, request::Call},
    definitions::conversion,
    request::query::Version,
    store::Object,
};

/// Deletions that are committed with one sync. Between two batches, others get their turn.
const BATCH: usize = 1000;

/// `DELETE` of many objects. `text` is DeleteOptions, or empty.
pub async fn delete_collection(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let options = Options::of(call, text)?;
    options.warn_of_dependents(&call.target.kind);
    let resource = api.resource(&call.target)?;
    call.query.field_selector.check(&call.target.kind)?;
    let snapshot = api.store().snapshot();
    if let Some(Version::Of(asked)) = call.query.resource_version
        && asked > snapshot.revision
    {
        return Err(Status::version_too_large(asked, snapshot.revision));
    }
    let page = || read::page(&snapshot, &resource, call, None, call.query.limit).objects;
    let selected = conversion::read(&call.target.kind, page).await?;
    let metadata = json!({"resourceVersion": snapshot.revision.to_string()});
    drop(snapshot);
    let mut left: Vec<Arc<Object>> = selected.clone();
    for _ in 0..TRIES {
        let mut again = Vec::new();
        for batch in left.chunks(BATCH) {
            again.extend(delete_batch(api, call, &resource, batch, &options).await?);
        }
        if again.is_empty() {
            return read::answer_list(call, &selected, &metadata).await;
        }
        left = again;
    }
    Err(Status::conflict(resource.subject(""), super::MODIFIED))
}

/// Deletes a batch; answers the objects that were changed meanwhile, as they are now.
async fn delete_batch(
    api: &Api,
    call: &Call,
    resource: &StorageLocation,
    batch: &[Arc<Object>],
    options: &Options,
) -> Result<Vec<Arc<Object>>, Status> {
    let snapshot = api.store().snapshot();
    let mut places = Vec::with_capacity(batch.len());
    let mut transactions = Vec::with_capacity(batch.len());
    for object in batch {
        let header = &object.header;
        let key = match &*header.namespace {
            "" => (*header.name).into(),
            namespace => format!("{namespace}/{}", header.name).into(),
        };
        let (kind, group) = (resource.kind.clone(), resource.group.clone());
        let place = StorageLocation { kind, group, resource: resource.resource.clone(), key };
        let prepared = prepare(api, call, &snapshot, &place, object, options, Alongside::default()).await?;
        if let (Prepared::Ready { transaction, .. }, false) = (prepared, options.dry_run) {
            places.push(place);
            transactions.push(transaction);
        }
    }
    let mut again = Vec::new();
    for (result, place) in api.store().commit_all(transactions).await.into_iter().zip(places) {
        match outcome_of_commit(&place, "", &place.key(), result)? {
            Committed::Done(_) => {}
            Committed::Stale | Committed::Contended => {
                again.extend(api.store().snapshot().get(&place.resource, &place.key).cloned());
            }
        }
    }
    Ok(again)
}
