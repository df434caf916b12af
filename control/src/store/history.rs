//! The recent changes of one resource, for its watchers.
//!
//! Bounded by count, bytes and age. A watcher that asks for changes that were dropped is told so, and lists again.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Expired, Key, Object};

/// What a write did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    /// `ADDED` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// What stands before the object in a watch frame.
    pub fn frame_start(self) -> &'static [u8] {
        match self {
            Self::Added => br#"{"type":"ADDED","object":"#,
            Self::Modified => br#"{"type":"MODIFIED","object":"#,
            Self::Deleted => br#"{"type":"DELETED","object":"#,
        }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    pub event_type: EventType,
    pub key: Key,
    /// The object after the change; of a deletion, its last state at the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
}

/// Recent changes in order, and the revision up to which they were dropped.
#[derive(Debug)]
pub struct History {
    events: VecDeque<(Instant, Arc<Event>)>,
    bytes: usize,
    dropped: u64,
}

/// What a history may hold.
const MAX_EVENTS: usize = 65_536;
const MAX_BYTES: usize = 64 << 20;
const MAX_AGE: Duration = Duration::from_secs(300);

impl History {
    /// An empty history that knows nothing of changes up to `revision`.
    pub fn new(revision: u64) -> Self {
        Self { events: VecDeque::new(), bytes: 0, dropped: revision }
    }

    fn push(&mut self, now: Instant, event: Arc<Event>) {
        self.bytes += event.object.size();
        self.events.push_back((now, event));
    }

    fn trim(&mut self, now: Instant) {
        while self.events.front().is_some_and(|(at, _)| {
            self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES || now.duration_since(*at) > MAX_AGE
        }) {
            self.drop_first();
        }
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(2 * self.events.len());
        }
    }

    fn forget(&mut self, revision: u64) {
        while self.events.front().is_some_and(|(_, event)| event.object.revision <= revision) {
            self.drop_first();
        }
        self.dropped = self.dropped.max(revision);
    }

    fn drop_first(&mut self) {
        if let Some((_, event)) = self.events.pop_front() {
            self.bytes -= event.object.size();
            self.dropped = event.object.revision;
        }
    }

    fn after(&self, revision: u64, at_most: usize) -> Result<Vec<Arc<Event>>, Expired> {
        if revision < self.dropped {
            return Err(Expired { asked: revision, oldest: self.dropped });
        }
        let first = self.events.partition_point(|(_, event)| event.object.revision <= revision);
        Ok(self.events.range(first..).take(at_most).map(|(_, event)| event.clone()).collect())
    }
}

/// The history of one resource with those who wait for more of it.
#[derive(Debug)]
pub struct Topic {
    history: RwLock<History>,
    latest: watch::Sender<u64>,
}

impl Topic {
    pub fn new(revision: u64) -> Self {
        Self { history: RwLock::new(History::new(revision)), latest: watch::Sender::new(revision) }
    }

    /// Adds a batch of changes and wakes the watchers once.
    pub fn publish(&self, events: Vec<Arc<Event>>) {
        let Some(last) = events.last().map(|event| event.object.revision) else { return };
        let now = Instant::now();
        {
            let mut history = self.history.write();
            for event in events {
                history.push(now, event);
            }
            history.trim(now);
        }
        self.latest.send_replace(last);
    }

    pub fn forget(&self, revision: u64) {
        self.history.write().forget(revision);
    }

    /// Drops what is too old at `now`. Returns how many bytes of objects that was.
    pub fn trim(&self, now: Instant) -> usize {
        let mut history = self.history.write();
        let before = history.bytes;
        history.trim(now);
        before - history.bytes
    }

    pub fn subscribe(self: &Arc<Self>, after: u64) -> Result<Subscription, Expired> {
        let latest = self.latest.subscribe();
        self.history.read().after(after, 0)?;
        Ok(Subscription { topic: self.clone(), latest, seen: after })
    }
}

/// A reader of one resource's changes.
#[derive(Debug)]
pub struct Subscription {
    topic: Arc<Topic>,
    latest: watch::Receiver<u64>,
    seen: u64,
}

/// How many changes a reader takes at once.
const BATCH: usize = 512;

impl Subscription {
    /// The next changes: at least one, in order. Cancel safe: changes not returned are returned by the next call.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, Expired> {
        loop {
            self.latest.mark_unchanged();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.latest.changed().await.is_err() {
                // The topic lives as long as this subscription, so its sender does.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The changes that are there already, maybe none.
    pub fn ready(&mut self) -> Result<Vec<Arc<Event>>, Expired> {
        let events = self.topic.history.read().after(self.seen, BATCH)?;
        if let Some(last) = events.last() {
            self.seen = last.object.revision;
        }
        Ok(events)
    }
}
