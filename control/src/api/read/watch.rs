//! Watches: first what is there if the client wants it, then every change, as one stream of frames.
//!
//! What a change is to a client, and in which bytes, is decided in `frames`.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    frames::{Frames, Select},
    options,
    pacing::Pacing,
    page, prefix, watched,
};
use crate::{
    api::{Api, Status, Subject, request::Call},
    definitions::conversion,
    later::later,
    request::{accept::Encoding, query::Version},
    store::{EventType, Expired, Object, Store, Subscription},
};

/// Frames that are ready together are sent as chunks of about this size.
const CHUNK: usize = 64 << 10;
/// How often a watch that takes bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The last bookmark comes so long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
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
    let start = begin(api, call, &frames.select, &place.resource).await;
    let (initial, after, subscription, refused) = match start {
        Ok(Start { initial, after, subscription }) => (initial, after, Some(subscription), None),
        // Whoever may watch is told in the stream why it cannot go on, as in Kubernetes.
        Err(status) => (None, 0, None, Some(status)),
    };
    let takes_bookmarks = query.allow_watch_bookmarks;
    let bookmark_at = takes_bookmarks.then(|| next_bookmark(now, ends)).flatten();
    let stream = Stream {
        store: api.store_handle(),
        frames,
        // Clients that name no revision are told where the initial events end as well, since Kubernetes 1.34.
        end_of_initial: (initial.is_some() && query.allow_watch_bookmarks).then_some(after),
        initial: initial.unwrap_or_default().into(),
        subscription,
        refused,
        takes_bookmarks,
        alarm: Box::pin(sleep_until(bookmark_at.unwrap_or(ends))),
        ends,
        pacing: Pacing::new(call.in_process),
        ended: false,
    };
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

/// Where a watch begins.
struct Start {
    /// What is there, if the client wants it.
    initial: Option<Vec<Arc<Object>>>,
    /// The changes after this revision follow.
    after: u64,
    subscription: Subscription,
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

/// When the next bookmark is due: each minute, and shortly before the end, so that the next watch goes on from there.
fn next_bookmark(now: Instant, ends: Instant) -> Option<Instant> {
    let last = ends.checked_sub(LAST_BOOKMARK)?;
    (last > now).then(|| later(now, BOOKMARK_EVERY).min(last))
}

/// How long a watch lives that asks for so many seconds. As in Kubernetes, none is no wish.
fn life(timeout_seconds: Option<u64>) -> Duration {
    match timeout_seconds {
        None | Some(0) => MIN_LIFE.mul_f64(1.0 + rand::random::<f64>()),
        Some(seconds) => Duration::from_secs(seconds).min(MAX_LIFE),
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
    refused: Option<Status>,
    takes_bookmarks: bool,
    /// When the next bookmark is due, or else the end. Kept from change to change: to set a timer takes a lock that all
    /// watches share.
    alarm: Pin<Box<Sleep>>,
    ends: Instant,
    pacing: Pacing,
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
        if let Some(status) = self.refused.take() {
            self.ended = true;
            return Some(self.frames.error(&status));
        }
        loop {
            let subscription = self.subscription.as_mut()?;
            tokio::select! {
                // First: a watch whose events never pause ends in time, too.
                biased;
                () = self.alarm.as_mut() => {
                    let now = Instant::now();
                    if !self.takes_bookmarks || now >= self.ends {
                        self.ended = true;
                        return None;
                    }
                    self.alarm.as_mut().reset(next_bookmark(now, self.ends).unwrap_or(self.ends));
                    // Read before the last look for events: all up to it have been seen then.
                    let revision = self.store.published();
                    match self.pacing.ready(subscription) {
                        Ok(events) if events.is_empty() => return Some(self.frames.bookmark(revision, false)),
                        Ok(events) => match self.frames.converted(&events, subscription.readers()).await {
                            Ok(Some(chunk)) => return Some(chunk),
                            Ok(None) => {}
                            Err(status) => return Some(self.end_with(&status)),
                        },
                        Err(missed) => {
                            self.ended = true;
                            return Some(self.frames.error(&expired(missed)));
                        }
                    }
                }
                events = self.pacing.next(subscription) => match events {
                    Ok(events) => match self.frames.converted(&events, subscription.readers()).await {
                        Ok(Some(chunk)) => return Some(chunk),
                        Ok(None) => {}
                        Err(status) => return Some(self.end_with(&status)),
                    },
                    Err(missed) => {
                        self.ended = true;
                        return Some(self.frames.error(&expired(missed)));
                    }
                },
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
        self.frames.error(status)
    }
}

/// Changes that the client did not see are forgotten: it has to list again.
fn expired(expired: Expired) -> Status {
    Status::expired(format!("too old resource version: {} ({})", expired.asked, expired.oldest))
}
