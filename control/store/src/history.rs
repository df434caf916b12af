//! Recent changes in order: of one resource, or of its objects with one indexed value.
//!
//! Bounded by count, bytes and age. A watcher that asks for changes that were dropped is told so, and lists again.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Expired, KEY_INDEX, Key, NAME_INDEX, NAMESPACE_INDEX, Object};

/// What a write did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// The key held nothing.
    Added,
    /// The key held an object.
    Modified,
    /// The key holds nothing any more.
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
    /// What the write did.
    pub event_type: EventType,
    /// Where.
    pub key: Key,
    /// The object after the change; of a deletion, its last state at the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
}

impl Event {
    /// The indexed values that concern it, as name and value: those that the object has, and those that the change took
    /// from it.
    pub fn terms(&self) -> impl Iterator<Item = (&str, &str)> {
        let header = self.object.header();
        let before = self.previous.iter().flat_map(|previous| previous.header().terms());
        let own = header.terms().chain(before.filter(move |term| !header.terms().any(|now| now == *term)));
        let general =
            [(NAME_INDEX, header.name()), (NAMESPACE_INDEX, header.namespace()), (KEY_INDEX, &*self.key.name)];
        own.chain(general)
    }
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
pub(super) const MAX_BYTES: usize = 64 << 20;
const MAX_AGE: Duration = Duration::from_secs(300);
/// How many events a reader takes at once, and how many bytes of objects unless the first has more. Every reader may
/// make a text of its own of what it takes: what all of them hold grows with this, not with how far they are behind.
const BATCH_EVENTS: usize = 512;
const BATCH_BYTES: usize = 64 << 10;

impl History {
    /// An empty history that knows nothing of changes up to `revision`.
    pub fn new(revision: u64) -> Self {
        Self { events: VecDeque::new(), bytes: 0, dropped: revision }
    }

    /// A history of these events, which are all there were after `revision`.
    pub fn of(revision: u64, events: Vec<Arc<Event>>, now: Instant) -> Self {
        let mut history = Self::new(revision);
        events.into_iter().for_each(|event| history.push(now, event));
        history
    }

    /// Adds to the front the events of `all` after `revision` that `take` selects, up to where this history begins.
    pub fn begin_at(&mut self, revision: u64, all: &History, take: impl Fn(&Event) -> bool) {
        let begin = revision.max(all.dropped);
        if begin >= self.dropped {
            return;
        }
        // A reader may begin at a revision whose events were not added yet: then they came later, and are here.
        let known = self.events.front().map_or(u64::MAX, |(_, first)| first.object.revision.saturating_sub(1));
        let missing = all.first_after(begin)..all.first_after(self.dropped.min(known)).max(all.first_after(begin));
        for (at, event) in all.events.range(missing).rev().filter(|(_, event)| take(event)) {
            self.bytes += event.object.size();
            self.events.push_front((*at, event.clone()));
        }
        self.dropped = begin;
    }

    /// The revision of the last event, or the one up to which all were dropped.
    pub fn latest(&self) -> u64 {
        self.events.back().map_or(self.dropped, |(_, event)| event.object.revision)
    }

    /// Bytes of the objects that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the next event.
    pub fn push(&mut self, now: Instant, event: Arc<Event>) {
        self.bytes += event.object.size();
        self.events.push_back((now, event));
    }

    /// Drops events that exceed the limit or are too old at `now`, and calls `dropped` with each.
    pub fn trim(&mut self, now: Instant, mut dropped: impl FnMut(&Event)) {
        while self.events.front().is_some_and(|(at, _)| {
            self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES || now.duration_since(*at) > MAX_AGE
        }) {
            if let Some(event) = self.drop_first() {
                dropped(&event);
            }
        }
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(2 * self.events.len());
        }
    }

    /// Drops the events up to `revision`.
    pub fn forget(&mut self, revision: u64) {
        while self.events.front().is_some_and(|(_, event)| event.object.revision <= revision) {
            self.drop_first();
        }
        self.dropped = self.dropped.max(revision);
    }

    fn drop_first(&mut self) -> Option<Arc<Event>> {
        let (_, event) = self.events.pop_front()?;
        self.bytes -= event.object.size();
        self.dropped = event.object.revision;
        Some(event)
    }

    /// All events after `revision`.
    pub fn after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Expired> {
        self.must_know(revision)?;
        Ok(self.events.range(self.first_after(revision)..).map(|(_, event)| event.clone()).collect())
    }

    /// The events after `revision` that a reader takes at once, and whether more follow.
    pub fn batch_after(&self, revision: u64) -> Result<(Vec<Arc<Event>>, bool), Expired> {
        self.must_know(revision)?;
        let mut following = self.events.range(self.first_after(revision)..).map(|(_, event)| event).peekable();
        let (mut batch, mut bytes) = (Vec::new(), 0usize);
        // One event at least: a batch is as large as the largest object at most.
        while batch.len() < BATCH_EVENTS
            && let Some(event) = following.next_if(|event| {
                bytes = bytes.saturating_add(event.object.size());
                batch.is_empty() || bytes <= BATCH_BYTES
            })
        {
            batch.push(event.clone());
        }
        Ok((batch, following.peek().is_some()))
    }

    /// Fails where changes after `revision` were dropped.
    pub fn must_know(&self, revision: u64) -> Result<(), Expired> {
        if revision < self.dropped {
            return Err(Expired { asked: revision, oldest: self.dropped });
        }
        Ok(())
    }

    fn first_after(&self, revision: u64) -> usize {
        self.events.partition_point(|(_, event)| event.object.revision <= revision)
    }
}
