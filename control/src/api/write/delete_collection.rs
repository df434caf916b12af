//! Deletion of all objects that a selector takes. It is answered with the list of them.
//!
//! Each object is deleted by itself, as in Kubernetes: the first refusal is the answer, and what was deleted before it
//! stays deleted. Where policies or webhooks are asked about the objects, several are asked about and deleted at a
//! time; otherwise many deletions are committed with one sync.

use std::sync::Arc;

use axum::response::Response;
use futures::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;

use super::{
    Alongside, DeleteOptions, TRIES,
    delete::{prepare, remove_at},
    inquiry,
    pipeline::{Committed, Prepared, outcome_of_commit},
};
use crate::{
    admission::attributes::{Attributes, Operation},
    api::{
        Api, Status, StorageLocation,
        read::{self, NoState},
        request::Call,
    },
    deadline,
    store::Object,
};

/// How many objects webhooks are asked about at a time: `--delete-collection-workers` of Kubernetes, where it is 1.
const WORKERS: usize = 16;

/// Deletions that are committed with one sync. Between two batches, others get their turn.
const BATCH: usize = 1000;
/// Bytes of objects in a batch, unless it is of one: each may be written once more, as one that is terminating.
const BATCH_BYTES: usize = 4 << 20;

/// `DELETE` of many objects. `text` is DeleteOptions, or empty.
pub async fn delete_collection(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let options = DeleteOptions::of(call, text)?;
    options.warn_of_dependents(&call.target.kind);
    let resource = api.resource(&call.target)?;
    call.query.field_selector.check(&call.target.kind)?;
    let (selected, metadata) = match read::select(api, call, &resource).await {
        Ok(selected) => selected,
        Err(NoState::Refused(status) | NoState::Inconsistent(status, _)) => return Err(status),
    };
    for batch in batches(&selected) {
        match concerns(api, call, &options, batch) {
            true => delete_each(api, call, &resource, batch, &options).await?,
            false => delete_together(api, call, &resource, batch, &options).await?,
        }
    }
    read::answer_list(call, selected, &metadata).await
}

/// The objects in order, split where a batch is full.
fn batches(selected: &[Arc<Object>]) -> impl Iterator<Item = &[Arc<Object>]> {
    let mut bytes = 0_usize;
    let mut count = 0;
    selected.chunk_by(move |before, next| {
        bytes = bytes.saturating_add(before.size());
        count += 1;
        let fits = count < BATCH && bytes.saturating_add(next.size()) <= BATCH_BYTES;
        if !fits {
            (bytes, count) = (0, 0);
        }
        fits
    })
}

/// Whether policies or webhooks are to be asked about the deletion of any of these objects.
fn concerns(api: &Api, call: &Call, options: &DeleteOptions, batch: &[Arc<Object>]) -> bool {
    let snapshot = api.store().snapshot();
    if !api.admission().asks(&snapshot) {
        return false;
    }
    let all = Attributes {
        dry_run: options.dry_run,
        options: Value::Null,
        ..inquiry::attributes(api, call, &snapshot, Operation::Delete)
    };
    batch.iter().any(|object| {
        let namespace = Some(object.header().namespace()).filter(|namespace| !namespace.is_empty());
        api.admission().concerns(&Attributes { namespace, name: object.header().name(), ..all.clone() })
    })
}

/// Where an object of the resource is kept.
fn place_of(resource: &StorageLocation, object: &Object) -> StorageLocation {
    let header = object.header();
    let key = match header.namespace() {
        "" => header.name().into(),
        namespace => format!("{namespace}/{}", header.name()).into(),
    };
    let (kind, group) = (resource.kind.clone(), resource.group.clone());
    StorageLocation { kind, group, resource: resource.resource.clone(), key }
}

/// Whether an object was gone before its turn came: nothing is left to be done.
fn is_gone(status: &Status) -> bool {
    status.code == 404
}

/// Asks about each object and deletes it, several at a time. After a refusal no further ones are begun.
async fn delete_each(
    api: &Api,
    call: &Call,
    resource: &StorageLocation,
    batch: &[Arc<Object>],
    options: &DeleteOptions,
) -> Result<(), Status> {
    let delete = |object: Arc<Object>| async move {
        deadline::must_not_be_over()?;
        let place = place_of(resource, &object);
        let removed =
            remove_at(api, call, (&place, object.header().name()), options, &|_, _, _| Ok(Alongside::default()));
        match removed.await {
            Err(status) if !is_gone(&status) => Err(status),
            _ => Ok(()),
        }
    };
    let (mut left, mut running, mut refused) = (batch.iter(), FuturesUnordered::new(), None);
    loop {
        while refused.is_none() && running.len() < WORKERS {
            let Some(object) = left.next() else { break };
            running.push(delete(object.clone()));
        }
        match running.next().await {
            Some(Ok(())) => {}
            Some(Err(status)) => refused = refused.or(Some(status)),
            None => break,
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Deletes objects with one sync. Those that others change meanwhile are deleted as they are then.
async fn delete_together(
    api: &Api,
    call: &Call,
    resource: &StorageLocation,
    batch: &[Arc<Object>],
    options: &DeleteOptions,
) -> Result<(), Status> {
    let mut left = batch.to_vec();
    for _ in 0..TRIES {
        left = delete_batch(api, call, resource, &left, options).await?;
        if left.is_empty() {
            return Ok(());
        }
    }
    Err(Status::conflict(resource.subject(""), super::MODIFIED))
}

/// Deletes a batch; answers the objects that were changed meanwhile, as they are now. What comes before a refusal is
/// deleted all the same.
async fn delete_batch(
    api: &Api,
    call: &Call,
    resource: &StorageLocation,
    batch: &[Arc<Object>],
    options: &DeleteOptions,
) -> Result<Vec<Arc<Object>>, Status> {
    let snapshot = api.store().snapshot();
    let mut places = Vec::with_capacity(batch.len());
    let mut transactions = Vec::with_capacity(batch.len());
    let mut refused = None;
    for object in batch {
        let place = place_of(resource, object);
        match prepare(api, call, &snapshot, &place, object, options, Alongside::default()).await {
            Ok(Prepared::Ready { transaction, .. }) if !options.dry_run => {
                places.push(place);
                transactions.push(transaction);
            }
            Ok(Prepared::Ready { .. } | Prepared::Unchanged) => {}
            Err(status) => {
                refused = Some(status);
                break;
            }
        }
    }
    let mut again = Vec::new();
    for (result, place) in api.store().commit_all(transactions).await.into_iter().zip(places) {
        match outcome_of_commit(&place, "", &place.key(), result) {
            Ok(Committed::Done(_)) => {}
            Ok(Committed::Stale | Committed::Contended) => {
                again.extend(api.store().snapshot().get(&place.resource, &place.key).cloned());
            }
            Err(status) => refused = refused.or(Some(status)),
        }
    }
    refused.map_or(Ok(again), Err)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{encode, store::EventType};

    #[test]
    fn a_batch_is_bounded_by_count_and_by_bytes() {
        let object = |bytes: usize| {
            let value = json!({"metadata": {"name": "a"}, "data": "x".repeat(bytes)});
            Arc::new(Object::new(encode::unserved(&value), 1, EventType::Added))
        };
        let sizes = |objects: &[Arc<Object>]| batches(objects).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&vec![object(1); 2500]), [1000, 1000, 500]);
        assert_eq!(sizes(&vec![object(1 << 20); 7]), [3, 3, 1]);
        assert_eq!(sizes(&[object(5 << 20), object(1), object(1), object(5 << 20)]), [1, 2, 1]);
        assert_eq!(sizes(&[]), [0_usize; 0]);
    }
}
