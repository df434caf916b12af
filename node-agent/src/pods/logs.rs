//! Logs of containers and the list of pods over HTTP, with the kubelet's paths and parameters.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::{Context, dispatch::Workers, spec, worker::View};
use crate::runtime::{Error, LogChunk, LogOptions};

#[derive(Clone)]
struct Served {
    context: Arc<Context>,
    workers: Workers,
}

/// Of `PodLogOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogQuery {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<usize>,
}

/// The routes; they do not authenticate.
pub fn router(context: Arc<Context>, workers: Workers) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .route("/pods", get(pods))
        .with_state(Served { context, workers })
}

async fn container_logs(
    State(served): State<Served>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let Some(worker) = served.workers.find(&namespace, &pod) else {
        return refuse(StatusCode::NOT_FOUND, format!("pod {namespace}/{pod} is not on this node"));
    };
    let id = match container_id(&worker.view(), &container, query.previous) {
        Ok(id) => id,
        Err((code, message)) => return refuse(code, message),
    };
    let since = query.since_time.or_else(|| seconds_ago(query.since_seconds?));
    let options = LogOptions { follow: query.follow, tail: query.tail_lines, since, timestamps: query.timestamps };
    let chunks = served.context.runtime.logs(&id, &options);
    // Whether there is a log at all shows with its first chunk.
    let mut chunks = chunks.peekable();
    if !query.follow
        && let Some(Err(error)) = std::pin::Pin::new(&mut chunks).peek().await
    {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.chain());
    }
    let body = Body::from_stream(limited(chunks, query.limit_bytes));
    ([(axum::http::header::CONTENT_TYPE, "text/plain")], body).into_response()
}

fn seconds_ago(seconds: i64) -> Option<Timestamp> {
    Timestamp::now().saturating_sub(SignedDuration::from_secs(seconds)).ok()
}

/// The container whose log is asked for, or why there is none, in the kubelet's words.
fn container_id(view: &View, container: &str, previous: bool) -> Result<String, (StatusCode, String)> {
    let pod = view.pod.metadata.name.as_deref().unwrap_or_default();
    if spec::any_container(&view.pod, container).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("container {container:?} in pod {pod:?} is not found")));
    }
    let slot = view.state.container(container);
    let running = slot.instance.running_since().and(slot.instance.id());
    let last = slot.last.as_ref().map(|ended| ended.id.as_str());
    let found = match (previous, running) {
        (false, running) => running.or(last),
        (true, Some(_)) => last,
        (true, None) => slot.previous.as_ref().map(|ended| ended.id.as_str()),
    };
    found.map(str::to_owned).ok_or_else(|| {
        let message = if previous {
            format!("previous terminated container {container:?} in pod {pod:?} not found")
        } else {
            let reason = waiting_reason(view, container).unwrap_or_else(|| "ContainerCreating".to_owned());
            format!("container {container:?} in pod {pod:?} is waiting to start: {reason}")
        };
        (StatusCode::BAD_REQUEST, message)
    })
}

fn waiting_reason(view: &View, container: &str) -> Option<String> {
    let view = &view.status;
    let lists = [&view.init_container_statuses, &view.container_statuses, &view.ephemeral_container_statuses];
    let status = lists.into_iter().flatten().flatten().find(|status| status.name == container)?;
    status.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

/// The log's bytes up to `limit`; an error ends it.
fn limited(
    chunks: impl Stream<Item = Result<LogChunk, Error>> + Send + 'static,
    limit: Option<usize>,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let mut room = limit.unwrap_or(usize::MAX);
    let bytes = chunks.map(|chunk| match chunk {
        Ok(LogChunk::Stdout(bytes) | LogChunk::Stderr(bytes)) => Ok(bytes),
        Err(error) => Err(std::io::Error::other(error)),
    });
    bytes.scan((), move |(), chunk| {
        let chunk = chunk.map(|bytes| {
            let taken = bytes.slice(..bytes.len().min(room));
            room -= taken.len();
            taken
        });
        let is_end = matches!(&chunk, Ok(bytes) if bytes.is_empty());
        futures::future::ready((!is_end).then_some(chunk))
    })
}

async fn pods(State(served): State<Served>) -> Response {
    let mut items: Vec<_> = served
        .workers
        .all()
        .iter()
        .map(|worker| {
            let view = worker.view();
            let mut pod = (*view.pod).clone();
            pod.status = Some(view.status.clone());
            pod
        })
        .collect();
    items.sort_by_cached_key(|pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone()));
    Json(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })).into_response()
}

fn refuse(code: StatusCode, message: String) -> Response {
    (code, message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_seconds_is_too_many() {
        for seconds in [i64::MIN, i64::MAX, -1, 0] {
            assert!(seconds_ago(seconds).is_some(), "{seconds}");
        }
    }
}
