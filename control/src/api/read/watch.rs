//! Watches: first what is there if the client wants it, then every change, as one stream of frames.
//!
//! A frame of a plain watch is the bytes that the write made, shared by all watchers.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{indexed, page, prefix, show, show_metadata, table, takes};
use crate::{
    api::{Api, Status, request::Call},
    custom::conversion,
    kinds::{FieldError, Kind, Storage},
    later::later,
    metrics::WatchEvents,
    request::{
        accept::ResponseForm,
        query::{IncludeObject, Query, Version, VersionMatch},
    },
    store::{Event, EventType, Expired, Object, Store, Subscription},
};

/// Frames that are ready together are sent as chunks of about this size.
const CHUNK: usize = 64 << 10;
/// How often a watch that takes bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch without `timeoutSeconds` lives at least; at most twice as long, so that not all end together.
const MIN_LIFE: Duration = Duration::from_secs(1800);
/// How long any watch lives at most: a year.
const MAX_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// `GET` with `watch=true`.
pub fn watch(api: &Api, call: &Call) -> Result<Response, Status> {
    let place = api.resource(&call.target)?;
    let query = &call.query;
    query.field_selector.check(&call.target.kind)?;
    let fields = query.field_selector.stored(&call.target.kind);
    check_initial_events(&place.kind, query)?;
    let snapshot = api.store().snapshot();
    if let Some(Version::Of(asked)) = query.resource_version
        && asked > snapshot.revision
    {
        return Err(Status::version_too_large(asked, snapshot.revision));
    }
    let initial = match query.send_initial_events {
        Some(wanted) => wanted,
        // Kubernetes' "get state and start at any" and "at most recent".
        None => !matches!(query.resource_version, Some(Version::Of(_))),
    };
    let after = match query.resource_version {
        Some(Version::Of(revision)) if !initial => revision,
        _ => snapshot.revision,
    };
    let objects = if initial { page(&snapshot, &place, call, None, None).objects } else { Vec::new() };
    let subscription = match indexed(call, &fields, &place.kind) {
        Some(term) => api.store().watch_by(&place.resource, term, after),
        None => api.store().watch(&place.resource, after),
    };
    let (subscription, refused) = match subscription {
        Ok(subscription) => (Some(subscription), None),
        Err(expired) => (None, Some(expired)),
    };
    let now = Instant::now();
    let life = life(query.timeout_seconds);
    let frames = Frames {
        kind: call.target.kind.clone(),
        form: call.form,
        include: query.include_object,
        prefix: prefix(&call.target),
        select: Select {
            kind: call.target.kind.clone(),
            labels: query.label_selector.clone(),
            fields,
            name: call.target.name.clone(),
        },
        columns_sent: false,
        sent: {
            let kind = &call.target.kind;
            api.metrics().requests().watch_events(&kind.group, &kind.version, &kind.kind)
        },
    };
    let stream = Stream {
        store: api.store_handle(),
        frames,
        initial: objects.into(),
        end_of_initial: (query.send_initial_events == Some(true) && query.allow_watch_bookmarks).then_some(after),
        subscription,
        refused,
        bookmarks: query.allow_watch_bookmarks.then_some(later(now, BOOKMARK_EVERY)),
        ends: later(now, life),
        ended: false,
    };
    let body = Body::from_stream(futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), stream))
    }));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// How long a watch lives that asks for so many seconds. As in Kubernetes, none is no wish.
fn life(timeout_seconds: Option<u64>) -> Duration {
    match timeout_seconds {
        None | Some(0) => MIN_LIFE.mul_f64(1.0 + rand::random::<f64>()),
        Some(seconds) => Duration::from_secs(seconds).min(MAX_LIFE),
    }
}

/// `sendInitialEvents` goes with `resourceVersionMatch=NotOlderThan`, and the other way round (KEP-3157).
fn check_initial_events(kind: &Kind, query: &Query) -> Result<(), Status> {
    let refuse = |path: &str, why: &str| {
        let subject = crate::api::Subject { group: "meta.k8s.io", resource: "ListOptions", name: "" };
        Err(Status::invalid(subject, &[FieldError::forbidden(path, why)]))
    };
    match (query.send_initial_events, query.resource_version_match) {
        (Some(_), None) => {
            refuse("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        (Some(_), Some(VersionMatch::NotOlderThan)) | (None, None) => Ok(()),
        (Some(_), Some(VersionMatch::Exact)) => refuse("resourceVersionMatch", "must be NotOlderThan for a watch"),
        (None, Some(_)) => refuse(
            "resourceVersionMatch",
            &format!(
                "resourceVersionMatch is forbidden for a watch of {} unless sendInitialEvents is provided",
                kind.plural
            ),
        ),
    }
}

/// The state of one watch between chunks.
struct Stream {
    store: Arc<dyn Store>,
    frames: Frames,
    initial: VecDeque<Arc<Object>>,
    /// The revision of the bookmark that ends the initial events, until it is sent.
    end_of_initial: Option<u64>,
    subscription: Option<Subscription>,
    refused: Option<Expired>,
    bookmarks: Option<Instant>,
    ends: Instant,
    ended: bool,
}

impl Stream {
    /// The next bytes of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.initial.is_empty() {
            let initial = self.initial_chunk().await;
            return Some(initial.unwrap_or_else(|status| self.end_with(&status)));
        }
        if let Some(revision) = self.end_of_initial.take() {
            return Some(self.frames.bookmark(revision, true));
        }
        if let Some(expired) = self.refused.take() {
            self.ended = true;
            return Some(error_frame(expired));
        }
        loop {
            let subscription = self.subscription.as_mut()?;
            let bookmark_at = self.bookmarks.unwrap_or(self.ends);
            tokio::select! {
                // The end first: a watch whose events never pause ends in time, too.
                biased;
                () = sleep_until(self.ends) => {
                    self.ended = true;
                    return None;
                }
                events = subscription.next() => match events {
                    Ok(events) => match self.frames.converted(&events).await {
                        Ok(Some(chunk)) => return Some(chunk),
                        Ok(None) => {}
                        Err(status) => return Some(self.end_with(&status)),
                    },
                    Err(expired) => {
                        self.ended = true;
                        return Some(error_frame(expired));
                    }
                },
                () = sleep_until(bookmark_at) => {
                    self.bookmarks = self.bookmarks.map(|_| later(Instant::now(), BOOKMARK_EVERY));
                    // Read before the last look for events: all up to it have been seen then.
                    let revision = self.store.published();
                    match subscription.ready() {
                        Ok(events) if events.is_empty() => return Some(self.frames.bookmark(revision, false)),
                        Ok(events) => match self.frames.converted(&events).await {
                            Ok(Some(chunk)) => return Some(chunk),
                            Ok(None) => {}
                            Err(status) => return Some(self.end_with(&status)),
                        },
                        Err(expired) => {
                            self.ended = true;
                            return Some(error_frame(expired));
                        }
                    }
                }
            }
        }
    }

    async fn initial_chunk(&mut self) -> Result<Bytes, Status> {
        let mut objects = Vec::new();
        let mut size = 0;
        while size < CHUNK
            && let Some(object) = self.initial.pop_front()
        {
            self.frames.sent.inc();
            size += object.size();
            objects.push(object);
        }
        let kind = self.frames.kind.clone();
        let columns_sent = self.frames.columns_sent;
        conversion::read(&kind, || {
            self.frames.columns_sent = columns_sent;
            let mut out = Vec::with_capacity(size + 8192);
            objects.iter().for_each(|object| self.frames.write(EventType::Added, object, &mut out));
            out.into()
        })
        .await
    }

    /// The last frame: an error.
    fn end_with(&mut self, status: &Status) -> Bytes {
        self.ended = true;
        Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status.to_json()})))
    }
}

/// How changes become frames for one client.
struct Frames {
    kind: Arc<Kind>,
    form: ResponseForm,
    include: IncludeObject,
    prefix: String,
    select: Select,
    columns_sent: bool,
    /// Counts what is sent.
    sent: WatchEvents,
}

struct Select {
    kind: Arc<Kind>,
    labels: crate::request::selector::LabelSelector,
    fields: crate::request::selector::FieldSelector,
    /// Of a watch of one object by its path.
    name: Option<String>,
}

impl Select {
    fn takes(&self, object: &Object) -> bool {
        let header = &object.header;
        self.labels.matches(header)
            && takes(&self.kind, &self.fields, object)
            && self.name.as_deref().is_none_or(|name| name == &*header.name)
    }
}

impl Frames {
    /// The same as [`Self::chunk`], with the objects in the version that the client asked for.
    async fn converted(&mut self, events: &[Arc<Event>]) -> Result<Option<Bytes>, Status> {
        let kind = self.kind.clone();
        let columns_sent = self.columns_sent;
        conversion::read(&kind, || {
            self.columns_sent = columns_sent;
            self.chunk(events)
        })
        .await
    }

    /// The frames of the changes that the client selects, if there are any.
    fn chunk(&mut self, events: &[Arc<Event>]) -> Option<Bytes> {
        let mut seen = events.iter().filter_map(|event| Some((event, self.seen_as(event)?))).collect::<Vec<_>>();
        self.sent.inc_by(seen.len() as u64);
        if let [(event, (event_type, _))] = seen.as_slice()
            && self.shares(event, *event_type)
        {
            return Some(event.object.frame().clone());
        }
        let mut out = Vec::new();
        for (event, (event_type, object)) in seen.drain(..) {
            if self.shares(event, event_type) {
                out.extend_from_slice(event.object.frame());
            } else {
                self.write(event_type, &object, &mut out);
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// What a change is to this client: an object that begins to match is added, one that ceases to is deleted.
    fn seen_as(&self, event: &Event) -> Option<(EventType, Arc<Object>)> {
        if !event.key.name.starts_with(&self.prefix) {
            return None;
        }
        let before = event.previous.as_ref().is_some_and(|previous| self.select.takes(previous));
        let after = event.event_type != EventType::Deleted && self.select.takes(&event.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some((EventType::Added, event.object.clone())),
            (true, true) => Some((EventType::Modified, event.object.clone())),
            (true, false) if event.event_type == EventType::Deleted => Some((EventType::Deleted, event.object.clone())),
            // Its last state that matched, at the revision of the change.
            (true, false) => {
                let previous = event.previous.as_ref()?;
                Some((EventType::Deleted, Arc::new(previous.deleted_at(event.object.revision))))
            }
        }
    }

    fn shares(&self, event: &Event, event_type: EventType) -> bool {
        self.form == ResponseForm::Object
            && !matches!(self.kind.storage, Storage::As(_))
            && event.event_type == event_type
    }

    fn write(&mut self, event_type: EventType, object: &Object, out: &mut Vec<u8>) {
        out.extend_from_slice(event_type.frame_start());
        match self.form {
            ResponseForm::Object => show(&self.kind, object, out),
            ResponseForm::PartialMetadata => show_metadata(object, out),
            ResponseForm::Table => {
                let columns = (!std::mem::replace(&mut self.columns_sent, true)).then_some(&*self.kind);
                let metadata = format!(r#"{{"resourceVersion":"{}"}}"#, object.revision);
                let mut text = Vec::new();
                table::begin(&mut text, columns, &metadata);
                let kind = &self.kind;
                table::row(&mut text, object, self.include, jiff::Timestamp::now(), |object, out| {
                    show(kind, object, out)
                });
                table::end(&mut text);
                out.extend_from_slice(&text);
            }
        }
        out.extend_from_slice(b"}\n");
    }

    fn bookmark(&self, revision: u64, end_of_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            ResponseForm::Object => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            ResponseForm::PartialMetadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            ResponseForm::Table => {
                // As in Kubernetes, where the annotation stands on the row's object.
                let object =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": [], "rows": [{"cells": [], "object": object}]})
            }
        };
        Bytes::from(format!("{}\n", json!({"type": "BOOKMARK", "object": object})))
    }
}

fn error_frame(expired: Expired) -> Bytes {
    let message = format!("too old resource version: {} ({})", expired.asked, expired.oldest);
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": Status::expired(message).to_json()})))
}
