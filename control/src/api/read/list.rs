//! Lists: all or a page of a resource's objects, at one revision.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{
    continue_token::ContinueToken,
    go_type, indexed,
    list_protobuf::ListProtobuf,
    list_text::ListText,
    namespace,
    options::{self, NoState},
    prefix, takes,
};
use crate::{
    api::{Api, Status, StorageLocation, piecewise, request::Call, response},
    definitions::conversion,
    request::accept::{Encoding, ResponseForm},
    store::{Object, Snapshot},
};

/// `GET` of many objects.
pub async fn list(api: &Api, call: &Call) -> Result<Response, Status> {
    check(call)?;
    let place = api.resource(&call.target)?;
    match select(api, call, &place).await {
        Ok((objects, metadata)) => answer_list(call, objects, &metadata).await,
        Err(NoState::Refused(status)) => Err(status),
        Err(NoState::Inconsistent(status, token)) => Ok(expired(&status, &token)),
    }
}

/// The objects that a request selects, and the metadata of the list that they are: its revision, and how to go on if
/// more follow.
pub(in crate::api) async fn select(
    api: &Api,
    call: &Call,
    place: &StorageLocation,
) -> Result<(Vec<Arc<Object>>, Value), NoState> {
    let (snapshot, token) = options::state_of_list(api, call, &place.resource).await?;
    let after = token.as_ref().map(|token| token.after.as_str());
    let kind = &call.target.kind;
    let page = conversion::read(kind, || page(&snapshot, place, call, after, call.query.limit)).await?;
    let mut metadata = json!({"resourceVersion": snapshot.revision.to_string()});
    if let Some(last) = page.next.clone() {
        api.store().keep(&snapshot, &call.identity.name);
        let left = remaining(&snapshot, place, call, token.as_ref(), &page, &last);
        let token = ContinueToken { revision: Some(snapshot.revision), after: last.to_string(), left };
        metadata["continue"] = token.encode().into();
        if let Some(left) = left {
            metadata["remainingItemCount"] = left.into();
        }
    }
    Ok((page.objects, metadata))
}

/// `GET` of the objects of `snapshot`, which were made for the request.
pub async fn list_computed(call: &Call, snapshot: &Snapshot, place: &StorageLocation) -> Result<Response, Status> {
    check(call)?;
    let page = page(snapshot, place, call, None, None);
    answer_list(call, page.objects, &json!({"resourceVersion": snapshot.revision.to_string()})).await
}

fn check(call: &Call) -> Result<(), Status> {
    options::check_list(&call.query)?;
    if let ResponseForm::PartialMetadata(_) = call.accepted.form {
        return Err(Status::wrong_form("PartialObjectMetadata", &go_type(&call.target.kind, "List"), true));
    }
    options::check_table(call)?;
    call.query.field_selector.check(&call.target.kind)
}

/// The answer with these objects as a list, in the form that the client takes.
pub(in crate::api) async fn answer_list(
    call: &Call,
    objects: Vec<Arc<Object>>,
    metadata: &Value,
) -> Result<Response, Status> {
    let kind = &call.target.kind;
    let failed = |error: &dyn std::error::Error| Status::internal(format!("cannot encode the list: {error}"));
    if call.accepted.encoding == Encoding::Protobuf {
        let list = ListProtobuf::new(call, objects, metadata).await.map_err(|error| failed(&error))?;
        return piecewise::answer(Encoding::Protobuf, call.info.gzip, list).map_err(|error| failed(&error));
    }
    // What a webhook converts it converts together, and what is indented or becomes YAML is made of the whole text.
    let converts = kind.custom.as_ref().is_some_and(|custom| custom.webhook.is_some());
    let is_encoded_later = call.accepted.encoding != Encoding::Json || call.accepted.pretty || call.info.pretty;
    if !converts && !is_encoded_later {
        let list = ListText::new(call, objects, metadata);
        return piecewise::answer(Encoding::Json, call.info.gzip, list).map_err(|error| failed(&error));
    }
    let text = conversion::read(kind, || ListText::whole(call, &objects, metadata)).await?;
    Ok(response::json(StatusCode::OK, text))
}

/// Refuses to go on with a list, with a token that goes on at another state.
fn expired(status: &Status, token: &ContinueToken) -> Response {
    let mut body = status.to_json();
    body["metadata"] = json!({"continue": token.encode()});
    response::json(StatusCode::from_u16(status.code).unwrap_or(StatusCode::GONE), body.to_string())
}

/// How many objects follow the page that ends with the key `last`. Not told where something is selected, as in
/// Kubernetes.
fn remaining(
    snapshot: &Snapshot,
    place: &StorageLocation,
    call: &Call,
    token: Option<&ContinueToken>,
    page: &Page,
    last: &str,
) -> Option<u64> {
    if !call.query.label_selector.is_empty() || !call.query.field_selector.is_empty() {
        return None;
    }
    if let Some(left) = token.and_then(|token| token.left) {
        return Some(left.saturating_sub(page.objects.len() as u64));
    }
    let prefix = prefix(&call.target);
    Some(match (token, prefix.as_str()) {
        (None, "") => snapshot.count(&place.resource).saturating_sub(page.objects.len()) as u64,
        _ => snapshot.list(&place.resource, &prefix, Some(last)).count() as u64,
    })
}

/// The objects of one page.
pub(super) struct Page {
    /// In the order of their keys.
    pub objects: Vec<Arc<Object>>,
    /// Key of the last object, if more follow.
    pub next: Option<Arc<str>>,
}

/// The selected objects after a key, at most `limit`. Looks at those alone that an indexed value leaves, if the request
/// names one.
pub(super) fn page(
    snapshot: &Snapshot,
    place: &StorageLocation,
    call: &Call,
    after: Option<&str>,
    limit: Option<usize>,
) -> Page {
    let labels = &call.query.label_selector;
    let fields = call.query.field_selector.stored(&call.target.kind);
    let prefix = namespace(call, &fields).map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let rows: Box<dyn Iterator<Item = _> + '_> = match indexed(call, &fields, &place.kind) {
        Some(term) => Box::new(snapshot.list_by(&place.resource, term, &prefix, after)),
        None => Box::new(snapshot.list(&place.resource, &prefix, after)),
    };
    let mut page = Page { objects: Vec::new(), next: None };
    let mut last: Option<&Arc<str>> = None;
    let looks_at_headers = !labels.is_empty() || !fields.is_empty();
    for (key, object) in read_ahead(rows, if looks_at_headers { GROUP } else { 1 }) {
        if !labels.matches(object.header()) || !takes(&call.target.kind, &fields, object) {
            continue;
        }
        if limit.is_some_and(|limit| page.objects.len() >= limit) {
            page.next = last.cloned();
            break;
        }
        page.objects.push(object.clone());
        last = Some(key);
    }
    page
}

/// How many objects are looked at together.
const GROUP: usize = 32;

/// The same rows. The headers of as many as a group has are asked for together: their memory is all over the place, and
/// to wait for that of each in turn takes longer than to look at it.
fn read_ahead<'a>(
    mut rows: impl Iterator<Item = (&'a Arc<str>, &'a Arc<Object>)>,
    group: usize,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Object>)> {
    let mut ahead = Vec::with_capacity(group).into_iter();
    std::iter::from_fn(move || {
        if let Some(row) = ahead.next() {
            return Some(row);
        }
        if group <= 1 {
            return rows.next();
        }
        let next: Vec<_> = rows.by_ref().take(group).collect();
        let touched = next.iter().filter(|(_, object)| object.header().deleting()).count();
        std::hint::black_box(touched);
        ahead = next.into_iter();
        ahead.next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Draft, EventType};

    #[test]
    fn rows_that_are_read_ahead_are_the_same_in_their_order() {
        let draft = Draft {
            head: br#"{"metadata":{"resourceVersion":""#.to_vec(),
            tail: b"\"}}".to_vec(),
            managed_len: 0,
            metadata_at: 12,
            header: Default::default(),
        };
        let object = Arc::new(Object::new(draft, 1, EventType::Added));
        for count in [0, 1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP] {
            let keys: Vec<Arc<str>> = (0..count).map(|n| n.to_string().into()).collect();
            for group in [1, GROUP] {
                let read: Vec<_> =
                    read_ahead(keys.iter().map(|key| (key, &object)), group).map(|(key, _)| key).collect();
                assert!(read.into_iter().eq(&keys), "{count} in groups of {group}");
            }
        }
    }
}
