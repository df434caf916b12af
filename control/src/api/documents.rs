//! Documents that are prepared once and asked for often: discovery and OpenAPI, with their `ETag`.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use jiff::{SignedDuration, Timestamp};

use super::{
    discovery::DiscoveryForm,
    openapi::{OpenApi, v2},
    response,
};
use crate::{document::Document, request::accept};

/// An answer with a JSON document; no body where the client says that it has it.
pub fn document(document: Document, parts: &Parts) -> Response {
    let tag = format!("\"{}\"", document.hash);
    let known = parts.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|tags| tags.split(',')).map(|given| given.trim().trim_start_matches("W/"));
    let mut response = match known.into_iter().any(|given| given == "*" || given == tag) {
        true => response::json(StatusCode::NOT_MODIFIED, Bytes::new()),
        false => response::json(StatusCode::OK, document.bytes),
    };
    set(&mut response, header::ETAG, &tag);
    response
}

/// `/api` and `/apis`. Only the aggregated forms are large enough to be worth an `ETag`.
pub fn discovery(found: Document, form: DiscoveryForm, parts: &Parts) -> Response {
    let mut response = match form {
        DiscoveryForm::Plain => response::json(StatusCode::OK, found.bytes),
        DiscoveryForm::AggregatedV2 | DiscoveryForm::AggregatedV2Beta1 => {
            let mut response = document(found, parts);
            set(&mut response, header::CACHE_CONTROL, "public");
            response
        }
    };
    set(&mut response, header::CONTENT_TYPE, form.content_type());
    set(&mut response, header::VARY, "Accept");
    response
}

/// `/openapi/v2`, as JSON or as the protobuf that kubectl asks for.
pub fn openapi_v2(openapi: &OpenApi, accept: &str, parts: &Parts) -> Response {
    let accept = if accept.is_empty() { "*/*" } else { accept };
    let older = openapi.v2();
    let found = accept::clauses(accept).into_iter().find_map(|clause| {
        if clause.covers("application", "json") {
            return Some((&older.json, "application/json"));
        }
        let protobuf = v2::PROTOBUF_SUBTYPES.iter().any(|subtype| clause.covers("application", subtype));
        protobuf.then_some((&older.protobuf, v2::PROTOBUF))
    });
    let Some((found, content_type)) = found else { return not_acceptable() };
    let mut response = document(found.clone(), parts);
    set(&mut response, header::CONTENT_TYPE, content_type);
    set(&mut response, header::VARY, "Accept");
    response
}

/// `/openapi/v3/…`: one that is asked for by its hash never changes; one that is asked for by an old hash has moved.
pub fn openapi_v3(found: Document, accept: &str, parts: &Parts) -> Response {
    let accept = if accept.is_empty() { "*/*" } else { accept };
    if !accept::clauses(accept).iter().any(|clause| clause.covers("application", "json")) {
        return not_acceptable();
    }
    let hash = found.hash.clone();
    let query = parts.uri.query().unwrap_or_default();
    let asked = form_urlencoded::parse(query.as_bytes()).find(|(name, value)| name == "hash" && !value.is_empty());
    let mut response = match asked {
        Some((_, asked)) if asked != hash => {
            let mut moved = response::json(StatusCode::MOVED_PERMANENTLY, Bytes::new());
            set(&mut moved, header::LOCATION, &format!("{}?hash={hash}", parts.uri.path()));
            moved
        }
        Some(_) => {
            let mut response = document(found, parts);
            set(&mut response, header::CACHE_CONTROL, "public, immutable");
            let year = SignedDuration::from_hours(365 * 24);
            let expires = Timestamp::now().checked_add(year).unwrap_or(Timestamp::MAX);
            set(&mut response, header::EXPIRES, &expires.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
            response
        }
        None => document(found, parts),
    };
    set(&mut response, header::VARY, "Accept");
    response
}

/// As `kube-openapi` answers: nothing but the code.
fn not_acceptable() -> Response {
    response::json(StatusCode::NOT_ACCEPTABLE, Bytes::new())
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}
