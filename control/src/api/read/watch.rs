//! Watches: first what is there if the client wants it, then every change, as one stream of frames.
//!
//! Where a watch begins and how long it lives is decided here; what its body says when, in `watch_stream`; what a
//! change is to a client, and in which bytes, in `frames`.

use std::time::Duration;

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::{
    Managers,
    frames::{Frames, Select},
    options, page, prefix,
    watch_stream::{Start, Terms, WatchStream, expired},
    watched,
};
use crate::{
    api::{Api, Status, Subject, request::Call},
    definitions::conversion,
    later::later,
    request::{accept::Encoding, query::Version},
};

/// How long a watch without `timeoutSeconds` lives at least; at most twice as long, so that not all end together.
const MIN_LIFE: Duration = Duration::from_secs(1800);
/// How long any watch lives at most: a year.
const MAX_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// `GET` with `watch=true`.
pub async fn watch(api: &Api, call: &Call) -> Result<Response, Status> {
    let query = &call.query;
    options::check_watch(query)?;
    options::check_table(call)?;
    query.field_selector.check(&call.target.kind)?;
    must_be_one_object(call)?;
    let place = api.resource(&call.target)?;
    if query.resource_version == Some(Version::Malformed) {
        let subject = Subject { group: &place.kind.group, resource: &place.kind.plural, name: "" };
        return Err(Status::invalid(subject, &[options::malformed_version(query)]));
    }
    let now = Instant::now();
    let ends = later(now, life(query.timeout_seconds));
    let kind = &call.target.kind;
    let frames = Frames {
        kind: kind.clone(),
        accepted: call.accepted,
        managers: Managers::of(call),
        include: query.include_object,
        prefix: prefix(&call.target),
        select: Select {
            kind: kind.clone(),
            labels: query.label_selector.clone(),
            fields: query.field_selector.stored(kind),
            name: call.target.name.clone(),
        },
        columns_sent: false,
        sent: api.metrics().requests().watch_events(&kind.group, &kind.version, &kind.kind),
    };
    let terms = Terms { begins: now, ends, bookmarks: query.allow_watch_bookmarks, in_process: call.in_process };
    let start = begin(api, call, &frames.select, &place.resource).await;
    // Whoever may watch is told in the stream why it cannot go on, as in Kubernetes.
    let stream = WatchStream::new(api.store_handle(), frames, &terms, start);
    let body = Body::from_stream(futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), stream))
    }));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let content_type = match call.accepted.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Json | Encoding::Yaml => "application/json",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Finds the state that a watch begins with, and subscribes to what follows.
async fn begin(api: &Api, call: &Call, select: &Select, resource: &str) -> Result<Start, Status> {
    let query = &call.query;
    if let Some(Version::Of(revision)) = query.resource_version {
        options::wait_for(api.store(), revision).await?;
    }
    let place = api.resource(&call.target)?;
    let snapshot = api.store().snapshot();
    // Kubernetes' "get state and start at any" and "at most recent".
    let wants_initial = query.send_initial_events.unwrap_or(!matches!(query.resource_version, Some(Version::Of(_))));
    let after = match query.resource_version {
        Some(Version::Of(revision)) if !wants_initial => revision,
        _ => snapshot.revision,
    };
    let subscription = match watched(call, &select.fields, &place.kind) {
        Some((index, value)) => api.store().watch_by(resource, (index, &value), after),
        None => api.store().watch(resource, after),
    };
    let subscription = subscription.map_err(expired)?;
    let initial = match wants_initial {
        true => Some(conversion::read(&call.target.kind, || page(&snapshot, &place, call, None, None).objects).await?),
        false => None,
    };
    Ok(Start { initial, after, subscription })
}

/// A watch of one object by its path selects by no other name.
fn must_be_one_object(call: &Call) -> Result<(), Status> {
    let (Some(name), fields) = (&call.target.name, &call.query.field_selector) else { return Ok(()) };
    if !fields.is_empty() && fields.name() != Some(name) {
        return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    Ok(())
}

/// How long a watch lives that asks for so many seconds. As in Kubernetes, none is no wish.
fn life(timeout_seconds: Option<u64>) -> Duration {
    match timeout_seconds {
        None | Some(0) => MIN_LIFE.mul_f64(1.0 + rand::random::<f64>()),
        Some(seconds) => Duration::from_secs(seconds).min(MAX_LIFE),
    }
}
