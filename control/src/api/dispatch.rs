//! Routes a request to its handler: fixed paths first, then the verb on a kind.

use std::{collections::BTreeSet, sync::Arc};

use axum::{body::Body, response::Response};
use http::{HeaderValue, Method, Request, StatusCode, header};
use tracing::Instrument;

use super::{
    Api, Status, Subject,
    audited_answer::{self, Recorded},
    component_status, discovery, documents, health, openapi, read,
    request::{self, Call},
    response, review,
    subresource::{self, Responder, Subresource},
    write,
};
use crate::{
    aggregation::{Aggregator, Backend},
    audit::current,
    auth::{account_token::TokenIssuer, gate::Handler},
    deadline,
    flow_control::{dump, seat::Seat},
    health::{
        Health,
        HealthEndpoint::{Healthy, Live, Ready},
    },
    kinds::{Kind, Kinds, Storage},
    request::{
        RequestInfo, Verb,
        accept::{self, Accepted, Encoding, Endpoint},
        path::{NonResourcePath, RequestPath},
    },
    warnings,
};

/// Answers any request.
pub async fn answer(api: &Api, info: RequestInfo, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let info = Arc::new(info);
    if let Some((aggregator, backend)) = elsewhere(api, &info) {
        let long_running = api.is_long_running(&info);
        let request = Request::from_parts(parts, body);
        return match aggregator.forward(&backend, &info, long_running, request).await {
            Ok(response) => response,
            Err(status) => refusal(status, &info).await,
        };
    }
    let (answer, accepted) = match &info.path {
        RequestPath::Other(path) => (fixed(api, &info, path, &parts), Accepted::default()),
        RequestPath::Unserved(_) => (unserved(api, parts.uri.path()), Accepted::default()),
        RequestPath::Resource(path) if !api.inner.kinds.snapshot().serves_version(&path.group, &path.version) => {
            (Ok(response::page_not_found()), Accepted::default())
        }
        RequestPath::Resource(_) => match Call::of(audited_answer::handled_as(&info), &api.inner.kinds.snapshot()) {
            Ok(mut call) => {
                let accepted = call.accepted;
                audited_answer::prepare(&mut call);
                let is_reencoded = accepted.encoding != Encoding::Json || accepted.pretty || info.pretty;
                (Ok(objects(api, call, (parts, body), Recorded::Read { is_reencoded }).await), accepted)
            }
            Err(status) => (Err(status), Accepted::default()),
        },
    };
    let response = match answer {
        Ok(response) => response::finish(response, &info, accepted).await,
        Err(status) => refusal(status, &info).await,
    };
    if head { response.map(|_| Body::empty()) } else { response }
}

/// The server that answers in this one's place: for a version of a group that is not served here.
fn elsewhere<'a>(api: &'a Api, info: &RequestInfo) -> Option<(&'a Aggregator, Arc<Backend>)> {
    let aggregator = api.inner.aggregator.get()?;
    let (group, version, spec) = match &info.path {
        RequestPath::Resource(path) => (path.group.as_str(), path.version.as_str(), false),
        RequestPath::Unserved(_) => return None,
        RequestPath::Other(path) => match path.segments().as_slice() {
            ["apis", group, version] => (*group, *version, false),
            ["openapi", "v3", "apis", group, version] if !path.ends_in_slash() => (*group, *version, true),
            _ => return None,
        },
    };
    if api.inner.kinds.snapshot().serves_version(group, version) {
        return None;
    }
    let backend = aggregator.backend(group, version)?;
    // A document that is made here, of a server that has none, is answered here.
    let is_answered_here = spec && !api.inner.openapi.get().is_served_elsewhere(&backend.root());
    (!is_answered_here).then_some((aggregator, backend))
}

/// The 404 of a path under which nothing is served: a Status only below a group that is built in, as in Kubernetes.
fn unserved(api: &Api, path: &str) -> Result<Response, Status> {
    let is_below_built_in = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "api", ..] => true,
        ["", "apis", group, ..] => {
            let kinds = api.inner.kinds.snapshot();
            !group.is_empty() && kinds.iter().any(|kind| kind.group == *group && kind.custom.is_none())
        }
        _ => false,
    };
    if is_below_built_in { Err(Status::unknown_path()) } else { Ok(response::page_not_found()) }
}

/// A refusal in an encoding that the client takes; JSON where it takes none.
pub async fn refusal(status: Status, info: &RequestInfo) -> Response {
    current::refused(&status);
    let accepted = accept::negotiate(&info.accept, Endpoint::Plain).unwrap_or_default();
    response::finish(response::refusal(&status), info, accepted).await
}

/// Health, version, discovery, OpenAPI and the list of paths.
fn fixed(
    api: &Api,
    info: &RequestInfo,
    path: &NonResourcePath,
    parts: &http::request::Parts,
) -> Result<Response, Status> {
    let accept = info.accept.as_str();
    let form = discovery::DiscoveryForm::of(accept);
    let plain = |body: bytes::Bytes| response::json(StatusCode::OK, body);
    let inner = &api.inner;
    let found = match path.segments().as_slice() {
        segments if path.ends_in_slash() && !takes_slash(path, segments) => None,
        segments if segments.len() > 1 && segments.contains(&"") => None,
        [endpoint @ ("healthz" | "livez" | "readyz"), rest @ ..] => {
            health::answer(&inner.health, endpoint, rest, parts.uri.query().unwrap_or_default()).ok()
        }
        ["metrics"] => Some(metrics(api)?),
        ["version"] => Some(response::json(StatusCode::OK, health::version().to_string())),
        ["" | "index.html"] => {
            let others = inner.aggregator.get().map(Aggregator::roots).unwrap_or_default();
            Some(plain(index(&inner.kinds.snapshot(), others, &inner.health)))
        }
        ["api"] => Some(documents::discovery(inner.discovery.get().core(form), form, parts)),
        ["apis"] => Some(documents::discovery(inner.discovery.get().groups(form), form, parts)),
        ["api", version] => inner.discovery.get().resources("", version).map(plain),
        ["apis", group] => inner.discovery.get().group(group).map(plain),
        ["apis", group, version] => inner.discovery.get().resources(group, version).map(plain),
        ["debug", "api_priority_and_fairness", page] if dump::PAGES.contains(page) => {
            flow_control_page(api, info, page)
        }
        [".well-known", "openid-configuration"] => openid(api, "application/json", TokenIssuer::configuration),
        ["openid", "v1", "jwks"] => openid(api, "application/jwk-set+json", TokenIssuer::keys),
        ["openapi", "v2"] => Some(documents::openapi_v2(&inner.openapi.get(), accept, parts)),
        ["openapi", "v3"] => Some(documents::document(inner.openapi.get().index(), parts)),
        ["openapi", "v3", ..] => inner
            .openapi
            .get()
            .document(path.as_str().trim_start_matches("/openapi/v3/"))
            .map(|document| documents::openapi_v3(document, accept, parts)),
        _ => None,
    };
    match found {
        None => Ok(response::page_not_found()),
        Some(_) if !matches!(parts.method, Method::GET | Method::HEAD) => {
            Err(Status::method_not_allowed(Subject { group: "", resource: "", name: "" }))
        }
        Some(response) => Ok(response),
    }
}

/// Whether a path leads somewhere though it ends in a slash: where Kubernetes has a web service of go-restful, which
/// trims its paths. `/apis` stands beside these.
fn takes_slash(path: &NonResourcePath, segments: &[&str]) -> bool {
    match segments {
        ["api"] | ["api", _] | ["apis", _] | ["apis", _, _] | ["version"] => true,
        [".well-known", "openid-configuration"] | ["openid", "v1", "jwks"] => true,
        _ => path.as_str() == "/apis/",
    }
}

/// What API priority and fairness does at this moment; nothing where it is off.
fn flow_control_page(api: &Api, info: &RequestInfo, page: &str) -> Option<Response> {
    let details = info.query.parameter("includeRequestDetails").is_some_and(|given| !given.is_empty());
    let text = api.inner.flow_control.get()?.page(page, details)?;
    let mut response = response::json(StatusCode::OK, text);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Some(response)
}

/// What others need in order to verify the tokens of this server: OpenID Connect Discovery 1.0, section 4.
fn openid(api: &Api, content_type: &'static str, document: fn(&TokenIssuer) -> String) -> Option<Response> {
    let issuer = api.authorizer().facts().issuer()?;
    let mut response = response::json(StatusCode::OK, document(issuer));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Some(response)
}

/// `GET /`: the paths that lead somewhere.
///
/// `others` are the roots of the versions that extension API servers answer for.
fn index(kinds: &Kinds, others: Vec<String>, health: &Health) -> bytes::Bytes {
    let mut paths: BTreeSet<String> =
        ["/api", "/apis", "/metrics", "/openapi/v2", "/openapi/v3", "/version"].map(str::to_owned).into();
    for root in kinds.iter().map(|kind| openapi::root(kind)).chain(others) {
        paths.insert(format!("/{root}"));
        if let Some((group, _)) = root.rsplit_once('/').filter(|(group, _)| *group != "api") {
            paths.insert(format!("/{group}"));
        }
        paths.insert(format!("/openapi/v3/{root}"));
    }
    for (endpoint, which) in [("healthz", Healthy), ("livez", Live), ("readyz", Ready)] {
        paths.insert(format!("/{endpoint}"));
        paths.extend(health.names(which).into_iter().map(|check| format!("/{endpoint}/{check}")));
    }
    serde_json::json!({"paths": paths}).to_string().into()
}

/// `GET /metrics`
fn metrics(api: &Api) -> Result<Response, Status> {
    let text = api.inner.metrics.render().map_err(|_| Status::internal("cannot write the metrics"))?;
    let mut response = response::json(StatusCode::OK, text);
    let content_type = http::HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// Every answer, be it a refusal, tells what the client is to be warned of: first that a kind or version is superseded.
async fn objects(api: &Api, call: Call, (parts, body): (http::request::Parts, Body), recorded: Recorded) -> Response {
    let (kind, is_patch, info) = (call.target.kind.clone(), call.method == Method::PATCH, call.info.clone());
    let (answer, warnings) = handled(api, call, parts, body).await;
    // What was handled in a task of its own is noted there.
    let answer = audited_answer::note(answer, &info, recorded).await;
    let superseded = match &kind.storage {
        Storage::As(stored) => stored.warning(&kind),
        Storage::Stored | Storage::Virtual | Storage::Computed => None,
    };
    let is_routed = is_routed(is_patch, &answer);
    let deprecated = kind.warning.as_deref().map(str::to_owned).or(superseded).filter(|_| is_routed);
    if is_routed {
        note_superseded(&kind);
    }
    let warnings: Vec<String> = deprecated.into_iter().chain(warnings).collect();
    response::warn(answer.unwrap_or_else(|status| response::refusal(&status)), &warnings)
}

/// A patch of a type that the kind does not take never gets as far as the kind, as in Kubernetes.
fn is_routed(is_patch: bool, answer: &Result<Response, Status>) -> bool {
    !matches!(answer, Err(status) if is_patch && status.code == 415)
}

/// Notes in the request's event that a kind or version is superseded.
fn note_superseded(kind: &Kind) {
    let release = match &kind.storage {
        Storage::As(stored) => stored.removed_release(),
        Storage::Stored | Storage::Virtual | Storage::Computed => None,
    };
    if kind.warning.is_some() || release.is_some() {
        current::annotate("k8s.io/deprecated", || "true".to_owned());
    }
    if let Some(release) = release {
        current::annotate("k8s.io/removed-release", || release.to_owned());
    }
}

/// The answer, and what arose that the client is to be warned of.
async fn handled(
    api: &Api,
    call: Call,
    parts: http::request::Parts,
    body: Body,
) -> (Result<Response, Status>, Vec<String>) {
    // The query is that of the server behind it: nothing of it is an option of a read or write.
    let responder = call.target.subresource.map(|subresource| subresource.responder);
    if let (Some(Responder::Node(forward)), Some(nodes)) = (responder, api.inner.nodes.get()) {
        return match Box::pin(write::admit_connection(api, &call)).await {
            Ok(warnings) => (forward(nodes, &call.info, Request::from_parts(parts, body)).await, warnings),
            Err(status) => (Err(status), Vec::new()),
        };
    }
    if let Some(status) = &call.query.malformed {
        return (Err(status.clone()), Vec::new());
    }
    if let Err(status) = write::check_options(&call) {
        return (Err(status), Vec::new());
    }
    if !call.verb.is_write() {
        // Only a write has a body to wait for: what a read may see was decided just before, and must not become old
        // while a client withholds a body that nothing looks at.
        return (Box::pin(verb(api, &call, &[])).await, Vec::new());
    }
    let seat = parts.extensions.get::<Arc<Seat>>().cloned();
    let body = match request::read(body, seat.as_deref()).await {
        Ok(body) => body,
        Err(status) => return (Err(status), Vec::new()),
    };
    if let Err(status) = current::begin_write(body.len()).await {
        return (Err(status), Vec::new());
    }
    // In a task of its own: a client that goes away drops its answer, never half a change.
    let (writes, api) = (api.inner.writes.clone(), api.clone());
    let handle = async move {
        // In a box: what handles a request takes 20 kB, which each layer around it would move, most of them twice.
        let handled = Box::pin(verb(&api, &call, &body));
        let (answer, warnings) = warnings::collect(deadline::bound(handled)).await;
        // Here: its client may be gone.
        let answer = audited_answer::note(answer, &call.info, Recorded::Write).await;
        if is_routed(call.method == Method::PATCH, &answer) {
            note_superseded(&call.target.kind);
        }
        current::set_code(answer.as_ref().map_or_else(|status| status.code, |response| response.status().as_u16()));
        drop(seat);
        (answer, warnings)
    };
    let handle = handle.in_current_span();
    let handled = match current::request() {
        None => writes.spawn(handle),
        Some(request) => writes.spawn(current::scope(request, handle)),
    };
    handled.await.unwrap_or_else(|error| {
        current::panicked(&error.to_string());
        (Err(Status::internal(format!("the handler of the request failed: {error}"))), Vec::new())
    })
}

async fn verb(api: &Api, call: &Call, body: &[u8]) -> Result<Response, Status> {
    let target = &call.target;
    let kind = &target.kind;
    if let Some(subresource) = target.subresource {
        return match subresource.responder {
            Responder::Api(handle) if subresource.takes(&call.method) => handle(api, call, body).await,
            // What an agent answers does not come here where agents are asked.
            Responder::Api(_) | Responder::Node(_) => subresource::refuse(api, call, body).await,
        };
    }
    let method = call.method.as_str();
    if matches!(kind.storage, Storage::Virtual) {
        return match (method, &target.name) {
            ("POST", None) => match Subresource::poster(kind) {
                Some(handle) => handle(api, call, body).await,
                None => review::create(api, call, body).await,
            },
            _ => subresource::refuse(api, call, body).await,
        };
    }
    if matches!(kind.storage, Storage::Computed) {
        let is_read = matches!(method, "GET" | "HEAD") && call.verb != Verb::Watch;
        return match is_read {
            true => component_status::answer(api, call).await,
            false => subresource::refuse(api, call, body).await,
        };
    }
    match (target.name.is_some(), method) {
        _ if call.verb == Verb::Watch => read::watch(api, call).await,
        (false, "GET" | "HEAD") => read::list(api, call).await,
        (false, "POST") => write::create(api, call, body).await,
        (false, "DELETE") if kind.deletion.bulk => write::delete_collection(api, call, body).await,
        (true, "GET" | "HEAD") => read::get(api, call).await,
        (true, "DELETE") => write::delete(api, call, body).await,
        (true, "PUT") => write::update(api, call, body).await,
        (true, "PATCH") => write::patch(api, call, body).await,
        _ => subresource::refuse(api, call, body).await,
    }
}
