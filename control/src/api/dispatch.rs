//! Routes a request to its handler: fixed paths first, then the verb on a kind.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{Method, Request, StatusCode, header};
use tracing::Instrument;

use super::{
    Api, Status, Subject, discovery, health, read,
    request::{self, Call},
    response, review, write,
};
use crate::{
    admission::warnings,
    custom::conversion,
    kinds::Storage,
    request::{RequestInfo, Verb, path::RequestPath},
};

/// Answers any request.
pub async fn answer(api: &Api, info: RequestInfo, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let answer = match &info.path {
        RequestPath::Other(path) => fixed(api, &info, path, &parts),
        RequestPath::Resource(_) => objects(api, info, parts, body).await,
    };
    let response = answer.unwrap_or_else(IntoResponse::into_response);
    if head { response.map(|_| Body::empty()) } else { response }
}

/// Health, version, discovery and OpenAPI.
fn fixed(api: &Api, info: &RequestInfo, path: &str, parts: &http::request::Parts) -> Result<Response, Status> {
    let accept = info.accept.as_str();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let form = discovery::DiscoveryForm::of(accept);
    let discovered = |body: bytes::Bytes| {
        let mut response = response::json(StatusCode::OK, body);
        response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(form.content_type()));
        response.headers_mut().insert(header::VARY, http::HeaderValue::from_static("Accept"));
        response
    };
    let plain = |body: bytes::Bytes| response::json(StatusCode::OK, body);
    let inner = &api.inner;
    let found = match segments.as_slice() {
        [endpoint @ ("healthz" | "livez" | "readyz"), rest @ ..] => {
            Some(health::answer(&inner.health, endpoint, rest, parts.uri.query().unwrap_or_default())?)
        }
        ["metrics"] => Some(metrics(api)?),
        ["version"] => Some(response::json(StatusCode::OK, health::version().to_string())),
        ["api"] => Some(discovered(inner.discovery.get().core(form))),
        ["apis"] => Some(discovered(inner.discovery.get().groups(form))),
        ["api", version] => inner.discovery.get().resources("", version).map(plain),
        ["apis", group] => inner.discovery.get().group(group).map(plain),
        ["apis", group, version] => inner.discovery.get().resources(group, version).map(plain),
        ["openapi", "v2"] => {
            let (body, content_type) = inner.openapi.get().v2(accept);
            let mut response = plain(body);
            response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
            Some(response)
        }
        ["openapi", "v3"] => Some(plain(inner.openapi.get().index())),
        ["openapi", "v3", ..] => inner
            .openapi
            .get()
            .document(path.trim_start_matches("/openapi/v3/"))
            .map(|document| openapi_document(document, parts)),
        _ => None,
    };
    match found {
        None => Err(Status::unknown_path()),
        Some(_) if !matches!(parts.method, Method::GET | Method::HEAD) => {
            Err(Status::method_not_allowed(Subject { group: "", resource: "", name: "" }))
        }
        Some(response) => Ok(response),
    }
}

/// `GET /metrics`
fn metrics(api: &Api) -> Result<Response, Status> {
    let text = api.inner.metrics.render().map_err(|_| Status::internal("cannot write the metrics"))?;
    let mut response = response::json(StatusCode::OK, text);
    let content_type = http::HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// A document of OpenAPI: unchanged ones are not sent again, and one that is asked for by its hash never changes.
fn openapi_document(document: super::openapi::Document, parts: &http::request::Parts) -> Response {
    let tag = format!("\"{}\"", document.hash);
    let known = parts.headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes());
    let hash = document.hash;
    let mut response = if known {
        response::json(StatusCode::NOT_MODIFIED, bytes::Bytes::new())
    } else {
        response::json(StatusCode::OK, document.json)
    };
    let by_hash = parts.uri.query().is_some_and(|query| query.contains(&hash));
    let caching = if by_hash { "public, immutable, max-age=31536000" } else { "no-cache, private" };
    response.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static(caching));
    if let Ok(tag) = http::HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

async fn objects(api: &Api, info: RequestInfo, parts: http::request::Parts, body: Body) -> Result<Response, Status> {
    let call = Call::of(info, &api.inner.kinds.snapshot())?;
    if let (Some(subresource), Some(nodes)) = (call.target.subresource, api.inner.nodes.get())
        && subresource.by_agent
    {
        return nodes.answer(&call.info, Request::from_parts(parts, body)).await;
    }
    // Only a write has a body to wait for: what a read may see was decided just before, and must not become old while a
    // client withholds a body that nothing looks at.
    let body = if call.verb.is_write() { request::read(body).await? } else { bytes::Bytes::new() };
    let call = Arc::new(call);
    let answer = if call.verb.is_write() {
        // In a task of its own: a client that goes away drops its answer, never half a change.
        let (api, call) = (api.clone(), call.clone());
        let writes = api.inner.writes.clone();
        let handle = async move { warnings::collect(verb(&api, &call, &body)).await };
        let write = writes.spawn(handle.in_current_span());
        let (answer, warnings) =
            write.await.map_err(|error| Status::internal(format!("the handler of the request failed: {error}")))?;
        let answer = answer.unwrap_or_else(IntoResponse::into_response);
        response::warn(answer, &warnings)
    } else {
        verb(api, &call, &body).await?
    };
    // Every answer through a superseded version says so.
    let kind = &call.target.kind;
    let deprecated = kind.custom.as_ref().and_then(|custom| custom.warning.clone());
    Ok(match &kind.storage {
        Storage::As(stored) => response::warn(answer, deprecated.or_else(|| stored.warning(kind)).as_slice()),
        Storage::Stored | Storage::Virtual => response::warn(answer, deprecated.as_slice()),
    })
}

async fn verb(api: &Api, call: &Call, body: &[u8]) -> Result<Response, Status> {
    let target = &call.target;
    let kind = &target.kind;
    let refused = || {
        let name = target.name.as_deref().unwrap_or_default();
        Err(Status::method_not_allowed(Subject { group: &kind.group, resource: &kind.plural, name }))
    };
    if let Some(subresource) = target.subresource {
        let taken = subresource.takes(&call.method);
        return if taken { (subresource.handle)(api, call, body).await } else { refused() };
    }
    let method = call.method.as_str();
    if matches!(kind.storage, Storage::Virtual) {
        return match (method, &target.name) {
            ("POST", None) => review::create(call, body),
            _ => refused(),
        };
    }
    match (target.name.is_some(), method) {
        _ if call.verb == Verb::Watch => conversion::read(kind, || read::watch(api, call)).await?,
        (false, "GET" | "HEAD") => conversion::read(kind, || read::list(api, call)).await?,
        (false, "POST") => write::create(api, call, body).await,
        (false, "DELETE") if kind.deletion.bulk => write::delete_collection(api, call, body).await,
        (true, "GET" | "HEAD") => conversion::read(kind, || read::get(api, call)).await?,
        (true, "DELETE") => write::delete(api, call, body).await,
        (true, "PUT") => write::update(api, call, body).await,
        (true, "PATCH") => write::patch(api, call, body).await,
        _ => refused(),
    }
}
