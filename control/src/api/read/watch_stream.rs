//! The body of a watch: in which order its frames come, and how many at a time.
//!
//! First what is there, then changes, as chunks of bounded size: one is made when the client has taken the one before,
//! so that a client that is behind costs no more memory than one that keeps up. Between them bookmarks, at their times
//! whatever else there is to tell.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{frames::Frames, pacing::Pacing};
use crate::{
    api::Status,
    definitions::conversion,
    later::later,
    store::{EventType, Expired, Object, Store, Subscription},
};

/// What is there at the beginning is sent as chunks of this size, or of one object. Changes come in batches of as much.
const CHUNK: usize = 64 << 10;
/// How often a watch that takes bookmarks gets one, as in Kubernetes; give or take [`BOOKMARK_JITTER`].
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// By which part of it the time between two bookmarks varies at most, so that those of watches that began together do
/// not all come together.
const BOOKMARK_JITTER: f64 = 0.1;
/// The last bookmark comes so long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// What a client asked of its watch.
pub struct Terms {
    pub begins: Instant,
    pub ends: Instant,
    /// Whether it takes bookmarks.
    pub bookmarks: bool,
    /// Whether the client runs in this process.
    pub in_process: bool,
}

/// Where a watch begins.
pub struct Start {
    /// What is there, if the client wants it.
    pub initial: Option<Vec<Arc<Object>>>,
    /// The changes after this revision follow.
    pub after: u64,
    pub subscription: Subscription,
}

/// The state of one watch between chunks.
pub struct WatchStream {
    store: Arc<dyn Store>,
    frames: Frames,
    initial: VecDeque<Arc<Object>>,
    /// The revision of the bookmark that ends the initial events, until it is sent.
    end_of_initial: Option<u64>,
    /// The revision of another bookmark, until it is sent: before any later change.
    bookmark: Option<u64>,
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

impl WatchStream {
    /// A watch that tells why it cannot begin where `start` is an error.
    pub fn new(store: Arc<dyn Store>, frames: Frames, terms: &Terms, start: Result<Start, Status>) -> Self {
        let alarm = if terms.bookmarks { next_bookmark(terms.begins, terms.ends) } else { None };
        let mut stream = Self {
            store,
            frames,
            initial: VecDeque::new(),
            end_of_initial: None,
            bookmark: None,
            subscription: None,
            refused: None,
            takes_bookmarks: terms.bookmarks,
            alarm: Box::pin(sleep_until(alarm.unwrap_or(terms.ends))),
            ends: terms.ends,
            pacing: Pacing::new(terms.in_process),
            ended: false,
        };
        match start {
            Ok(Start { initial, after, subscription }) => {
                // Clients that name no revision are told where the initial events end as well, since Kubernetes 1.34.
                stream.end_of_initial = (initial.is_some() && terms.bookmarks).then_some(after);
                stream.initial = initial.unwrap_or_default().into();
                stream.subscription = Some(subscription);
            }
            Err(status) => stream.refused = Some(status),
        }
        stream
    }

    /// The next bytes of the body; `None` ends it.
    pub async fn next(&mut self) -> Option<Bytes> {
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
            return Some(self.end_with(&status));
        }
        loop {
            if let Some(revision) = self.bookmark.take() {
                return Some(self.frames.bookmark(revision, false));
            }
            let subscription = self.subscription.as_mut()?;
            let events = tokio::select! {
                // First: a watch whose events never pause ends in time, too.
                biased;
                () = self.alarm.as_mut() => {
                    let now = Instant::now();
                    if !self.takes_bookmarks || now >= self.ends {
                        self.ended = true;
                        return None;
                    }
                    self.alarm.as_mut().reset(next_bookmark(now, self.ends).unwrap_or(self.ends));
                    // Read before the look for events: all up to it have been seen then, unless there are too many.
                    let published = self.store.published();
                    let events = self.pacing.ready(subscription);
                    self.bookmark = Some(subscription.seen_up_to(published));
                    events
                }
                events = self.pacing.next(subscription) => events,
            };
            let chunk = match events {
                Ok(events) => self.frames.converted(&events, subscription.readers()).await,
                Err(missed) => Err(expired(missed)),
            };
            match chunk {
                Ok(Some(chunk)) => return Some(chunk),
                // Nothing of a batch is for this client: others have their turn before the next one.
                Ok(None) => tokio::task::consume_budget().await,
                Err(status) => return Some(self.end_with(&status)),
            }
        }
    }

    async fn initial_chunk(&mut self) -> Result<Bytes, Status> {
        let (mut objects, mut size) = (Vec::new(), 0usize);
        while let Some(next) = self.initial.front()
            && (objects.is_empty() || size.saturating_add(next.size()) <= CHUNK)
        {
            size = size.saturating_add(next.size());
            objects.extend(self.initial.pop_front());
        }
        self.frames.sent.inc_by(objects.len() as u64);
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

/// When the next bookmark is due: about each minute, and shortly before the end, so that the next watch goes on from
/// there.
fn next_bookmark(now: Instant, ends: Instant) -> Option<Instant> {
    let last = ends.checked_sub(LAST_BOOKMARK)?;
    let jitter = BOOKMARK_JITTER * (2.0 * rand::random::<f64>() - 1.0);
    (last > now).then(|| later(now, BOOKMARK_EVERY.mul_f64(1.0 + jitter)).min(last))
}

/// Changes that the client did not see are forgotten: it has to list again.
pub fn expired(expired: Expired) -> Status {
    Status::expired(format!("too old resource version: {} ({})", expired.asked, expired.oldest))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::{
            read::{Managers, frames::Select},
            tests::{Server, config_map},
        },
        request::{
            accept::Accepted,
            query::IncludeObject,
            selector::{FieldSelector, LabelSelector},
        },
    };

    const MAPS: &str = "/api/v1/namespaces/default/configmaps";

    /// A watch of ConfigMaps with these labels, from `after` on, that takes bookmarks.
    fn watch(server: &Server, labels: &str, after: u64) -> WatchStream {
        let kind = server.api.kinds().snapshot().by_resource("configmaps").unwrap().clone();
        let select = Select {
            kind: kind.clone(),
            labels: labels.parse::<LabelSelector>().unwrap(),
            fields: FieldSelector::default(),
            name: None,
        };
        let frames = Frames {
            sent: server.api.metrics().requests().watch_events("", "v1", "ConfigMap"),
            kind,
            accepted: Accepted::default(),
            managers: Managers::Shown,
            include: IncludeObject::None,
            prefix: String::new(),
            select,
            columns_sent: false,
        };
        let begins = Instant::now();
        let ends = later(begins, Duration::from_secs(3600));
        let terms = Terms { begins, ends, bookmarks: true, in_process: true };
        let subscription = server.api.store().watch("configmaps", after).unwrap();
        let start = Start { initial: None, after, subscription };
        WatchStream::new(server.api.store_handle(), frames, &terms, Ok(start))
    }

    /// A timer of this very moment fires a millisecond later.
    fn let_alarm_be_over(stream: &mut WatchStream) {
        stream.alarm.as_mut().reset(Instant::now().checked_sub(Duration::from_secs(1)).unwrap());
    }

    fn frames(chunk: &[u8]) -> Vec<Value> {
        serde_json::Deserializer::from_slice(chunk).into_iter().collect::<Result<_, _>>().unwrap()
    }

    fn is_bookmark_at(chunk: &[u8], revision: u64) -> bool {
        let frames = frames(chunk);
        let at = frames[0]["object"]["metadata"]["resourceVersion"].as_str().and_then(|at| at.parse().ok());
        frames[0]["type"] == "BOOKMARK" && at == Some(revision)
    }

    #[tokio::test]
    async fn a_client_far_behind_holds_no_more_than_one_chunk_and_is_told_all_in_order() {
        let server = Server::start().await;
        let after = server.api.store().published();
        let mut stream = watch(&server, "", after);
        let (large, count) = ("x".repeat(256 << 10), 200);
        for n in 0..count {
            let mut map = config_map(&format!("large-{n}"), json!({}));
            map["data"]["large"] = large.as_str().into();
            assert_eq!(server.post(MAPS, map).await.code, 201);
        }
        for n in 0..count {
            assert_eq!(server.post(MAPS, config_map(&format!("small-{n}"), json!({}))).await.code, 201);
        }
        let mut names = Vec::new();
        let mut small_chunks = 0;
        while names.len() < 2 * count {
            let chunk = stream.next().await.unwrap();
            let frames = frames(&chunk);
            assert!(chunk.len() <= CHUNK || frames.len() == 1, "{} bytes, {} frames", chunk.len(), frames.len());
            assert!(chunk.len() < CHUNK + large.len(), "{} bytes", chunk.len());
            small_chunks += usize::from(frames.len() > 1);
            names.extend(frames.iter().map(|frame| frame["object"]["metadata"]["name"].as_str().unwrap().to_owned()));
        }
        let all = |size: &str| (0..count).map(|n| format!("{size}-{n}")).collect::<Vec<_>>();
        assert_eq!(names, [all("large"), all("small")].concat());
        assert!((1..=10).contains(&small_chunks), "small objects come many at a time: {small_chunks}");
    }

    #[tokio::test]
    async fn a_large_change_is_one_text_for_all_watchers() {
        let server = Server::start().await;
        let after = server.api.store().published();
        let mut watches: Vec<WatchStream> = (0..2).map(|_| watch(&server, "", after)).collect();
        for n in 0..3 {
            let mut map = config_map(&format!("large-{n}"), json!({}));
            map["data"]["large"] = "x".repeat(100 << 10).into();
            server.post(MAPS, map).await;
        }
        for _ in 0..3 {
            let mut places = Vec::new();
            for watch in &mut watches {
                places.push(watch.next().await.unwrap());
            }
            assert_eq!(places[0].as_ptr(), places[1].as_ptr());
        }
    }

    #[tokio::test]
    async fn bookmarks_come_in_time_though_no_change_is_selected() {
        let server = Server::start().await;
        let mut stream = watch(&server, "in=yes", server.api.store().published());
        server.post(MAPS, config_map("a", json!({}))).await;
        let_alarm_be_over(&mut stream);
        let bookmark = stream.next().await.unwrap();
        assert!(is_bookmark_at(&bookmark, server.api.store().published()));
        assert!(stream.next().now_or_never().is_none(), "one each minute");
        assert!(stream.alarm.deadline() > Instant::now() + Duration::from_secs(50));
    }

    #[tokio::test]
    async fn a_bookmark_follows_the_changes_before_it_and_says_no_more_than_the_client_was_told() {
        let server = Server::start().await;
        let mut stream = watch(&server, "", server.api.store().published());
        let mut last = Vec::new();
        for n in 0..2 {
            let mut map = config_map(&format!("large-{n}"), json!({}));
            map["data"]["large"] = "x".repeat(100 << 10).into();
            let made = server.post(MAPS, map).await;
            last.push(made.json["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap());
        }
        let_alarm_be_over(&mut stream);
        let first = stream.next().await.unwrap();
        assert_eq!(frames(&first)[0]["object"]["metadata"]["name"], "large-0");
        assert!(is_bookmark_at(&stream.next().await.unwrap(), last[0]));
        assert_eq!(frames(&stream.next().await.unwrap())[0]["object"]["metadata"]["name"], "large-1");
        let_alarm_be_over(&mut stream);
        assert!(is_bookmark_at(&stream.next().await.unwrap(), server.api.store().published()));
    }

    #[test]
    fn bookmarks_come_about_each_minute_and_before_the_end() {
        let now = Instant::now();
        let after = |seconds: u64| later(now, Duration::from_secs(seconds));
        for _ in 0..100 {
            let at = next_bookmark(now, after(3600)).unwrap();
            assert!(after(54) <= at && at <= after(66));
        }
        assert_eq!(next_bookmark(now, after(30)), Some(after(28)));
        assert_eq!(next_bookmark(now, after(2)), None);
    }
}
