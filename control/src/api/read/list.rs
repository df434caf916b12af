//! Lists: all or a page of a resource's objects, at one revision.

use axum::response::Response;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::{indexed, prefix, show, show_metadata, table, takes};
use crate::{
    api::{Api, Status, StorageLocation, request::Call, response},
    request::{
        accept::ResponseForm,
        query::{Query, Version, VersionMatch},
    },
    store::{Object, Snapshot, Store},
};

/// Where the next page of a list begins. Opaque to clients.
#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "rv")]
    revision: u64,
    /// Key of the last object of the page before.
    after: String,
    /// How many objects follow, where nothing is selected: counted once a list, since a count walks over all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

/// The longest token taken. Those of this program are shorter: a namespace and a name have 317 characters at most.
const MAX_TOKEN: usize = 1024;

/// `GET` of many objects.
pub fn list(api: &Api, call: &Call) -> Result<Response, Status> {
    let place = api.resource(&call.target)?;
    call.query.field_selector.check(&call.target.kind)?;
    let token = call.query.r#continue.as_deref().map(|text| decode(text, &prefix(&call.target))).transpose()?;
    let snapshot = at(api.store(), &call.query, token.as_ref())?;
    let after = token.as_ref().map(|token| token.after.as_str());
    let page = page(&snapshot, &place, call, after, call.query.limit);
    let mut metadata = serde_json::json!({"resourceVersion": snapshot.revision.to_string()});
    if let Some(last) = page.next.clone() {
        api.store().keep(&snapshot, &call.identity.name);
        let left = remaining(&snapshot, &place, call, token.as_ref(), &page, &last);
        let token = Token { revision: snapshot.revision, after: last.to_string(), left };
        metadata["continue"] = encode(&token).into();
        if let Some(left) = left {
            metadata["remainingItemCount"] = left.into();
        }
    }
    Ok(response::json(StatusCode::OK, text(call, &page.objects, &metadata.to_string())))
}

/// How many objects follow the page that ends with the key `last`. Not told where something is selected, as in
/// Kubernetes.
fn remaining(
    snapshot: &Snapshot,
    place: &StorageLocation,
    call: &Call,
    token: Option<&Token>,
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
pub(in crate::api) struct Page {
    /// In the order of their keys.
    pub objects: Vec<Arc<Object>>,
    /// Key of the last object, if more follow.
    pub next: Option<Arc<str>>,
}

/// The selected objects after a key, at most `limit`. Looks at those alone that an indexed value leaves, if the request
/// names one.
pub(in crate::api) fn page(
    snapshot: &Snapshot,
    place: &StorageLocation,
    call: &Call,
    after: Option<&str>,
    limit: Option<usize>,
) -> Page {
    let prefix = prefix(&call.target);
    let labels = &call.query.label_selector;
    let fields = call.query.field_selector.stored(&call.target.kind);
    let rows: Box<dyn Iterator<Item = _> + '_> = match indexed(call, &fields, &place.kind) {
        Some(term) => Box::new(snapshot.list_by(&place.resource, term, &prefix, after)),
        None => Box::new(snapshot.list(&place.resource, &prefix, after)),
    };
    let mut page = Page { objects: Vec::new(), next: None };
    let mut last: Option<&Arc<str>> = None;
    for (key, object) in rows {
        if !labels.matches(&object.header) || !takes(&call.target.kind, &fields, object) {
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

/// The state that the options ask for.
fn at(store: &dyn Store, query: &Query, token: Option<&Token>) -> Result<Snapshot, Status> {
    if let Some(token) = token {
        if matches!(query.resource_version, Some(Version::Of(_))) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        return store.snapshot_at(token.revision).map_err(|_| {
            Status::expired(
                "The provided continue parameter is too old to display a consistent list result. \
                 You can start a new list without the continue parameter.",
            )
        });
    }
    match (query.resource_version, query.resource_version_match) {
        (None, Some(_)) => {
            Err(Status::bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        }
        (Some(Version::Any), Some(VersionMatch::Exact)) => {
            Err(Status::bad_request("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""))
        }
        (Some(Version::Of(revision)), Some(VersionMatch::Exact)) => {
            let current = store.snapshot();
            if revision > current.revision {
                return Err(Status::version_too_large(revision, current.revision));
            }
            store.snapshot_at(revision).map_err(|expired| {
                Status::expired(format!("The resourceVersion for the provided list is too old: {expired}"))
            })
        }
        (asked, _) => {
            let snapshot = store.snapshot();
            match asked {
                Some(Version::Of(revision)) if revision > snapshot.revision => {
                    Err(Status::version_too_large(revision, snapshot.revision))
                }
                _ => Ok(snapshot),
            }
        }
    }
}

fn text(call: &Call, objects: &[Arc<Object>], metadata: &str) -> Vec<u8> {
    let kind = &call.target.kind;
    let size = objects.iter().map(|object| object.size()).sum::<usize>();
    if call.form == ResponseForm::Table {
        let mut out = Vec::with_capacity(size / 2 + 4096);
        table::begin(&mut out, Some(kind), metadata);
        let now = jiff::Timestamp::now();
        for object in objects {
            table::row(&mut out, object, call.query.include_object, now, |object, out| show(kind, object, out));
        }
        table::end(&mut out);
        return out;
    }
    let mut out = Vec::with_capacity(size + 256);
    let (list_kind, api_version) = match call.form {
        ResponseForm::PartialMetadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
        ResponseForm::Object | ResponseForm::Table => (&*kind.kind, kind.api_version()),
    };
    let start = format!(r#"{{"kind":"{list_kind}List","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
    out.extend_from_slice(start.as_bytes());
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match call.form {
            ResponseForm::PartialMetadata => show_metadata(object, &mut out),
            ResponseForm::Object | ResponseForm::Table => show(kind, object, &mut out),
        }
    }
    out.extend_from_slice(b"]}\n");
    out
}

fn encode(token: &Token) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::json!(token).to_string())
}

/// Reads a token of a list of keys that start with `prefix`.
fn decode(text: &str, prefix: &str) -> Result<Token, Status> {
    let bytes = (text.len() <= MAX_TOKEN).then(|| BASE64_URL_SAFE_NO_PAD.decode(text).ok()).flatten();
    let token: Option<Token> = bytes.and_then(|json| serde_json::from_slice(&json).ok());
    // A token of another namespace would skip objects, or all.
    let token = token.filter(|token| token.after.starts_with(prefix));
    token.ok_or_else(|| Status::bad_request("continue key is not valid"))
}
