//! What the stored history said when the store was opened, until each resource's history was made of it.
//!
//! Nothing depends on it: where a record does not fit the objects, the history begins after that place.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    stored_history::{Records, ResourceRecords},
    stored_record::Record,
};
use crate::{Decode, Event, EventType, History, Key, Object, Snapshot, references::References};

/// How much of a resource's objects its history may hold when it is made of the stored one: as much as later.
const MAX_BYTES_REBUILT: usize = crate::history::MAX_BYTES;
/// Changes that nobody asked for so long after the opening are too old for a watch.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// What the stored history said when the store was opened, until each resource's history was made of it.
pub struct Recovered {
    state: Snapshot,
    records: Mutex<Records>,
    decode: Arc<dyn Decode>,
    opened: Instant,
}

impl Recovered {
    /// `state` are the objects as they were read with the history.
    pub fn new(state: Snapshot, records: Records, decode: Arc<dyn Decode>, now: Instant) -> Self {
        Self { state, records: Mutex::new(records), decode, opened: now }
    }

    /// Whether nobody needs it any more.
    pub fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) > KEPT_FOR
    }

    /// The history of a resource that had changes. The first to ask gets it.
    pub fn take(&self, resource: &str) -> Option<History> {
        let ResourceRecords { since, mut records } = self.records.lock().take(resource)?;
        let resource: Arc<str> = Arc::from(resource);
        let (mut dropped, mut references) = (since, References::default());
        let mut known: HashMap<Arc<str>, Option<Arc<Object>>> = HashMap::new();
        let mut events = Vec::with_capacity(records.len());
        // A small record may stand for a change of a large object, whose two texts are then held.
        let mut bytes = 0_usize;
        while let Some(record) = records.pop() {
            if bytes > MAX_BYTES_REBUILT {
                dropped = record.revision;
                break;
            }
            let current = match known.remove(&record.name) {
                Some(object) => object,
                None => self.state.get(&resource, &record.name).cloned(),
            };
            let (name, revision) = (record.name.clone(), record.revision);
            let Some(event) = self.event(&resource, record, current, &mut references) else {
                dropped = revision;
                break;
            };
            bytes += event.object.size() + event.previous.as_ref().map_or(0, |previous| previous.size());
            known.insert(name, event.previous.clone());
            events.push(Arc::new(event));
        }
        events.reverse();
        Some(History::of(dropped, events, Instant::now()))
    }

    /// The change after which the key held `current`; nothing where the two do not fit.
    fn event(
        &self,
        resource: &Arc<str>,
        record: Record,
        current: Option<Arc<Object>>,
        references: &mut References,
    ) -> Option<Event> {
        let Record { revision, event_type, name, before } = record;
        let previous = match &before {
            None => None,
            Some(before) => {
                let text = match (&current, event_type) {
                    (None, EventType::Deleted) => before.text(&[])?,
                    (Some(after), EventType::Modified) => before.text(&after.json())?,
                    _ => return None,
                };
                Some(Arc::new(self.object((resource, references), &name, &text, before.revision)?))
            }
        };
        let object = match (event_type, &previous, current) {
            (EventType::Deleted, Some(previous), None) => {
                Arc::new(Object::kept(previous.draft(), revision, event_type, (resource, references)))
            }
            (EventType::Added | EventType::Modified, _, Some(object)) if object.revision == revision => {
                // A row of JSON does not tell what the write did.
                match object.event_type() == event_type {
                    true => object,
                    false => Arc::new(Object::kept(object.draft(), revision, event_type, (resource, references))),
                }
            }
            _ => return None,
        };
        let key = Key { resource: resource.clone(), name };
        Some(Event { event_type, key, object, previous })
    }

    fn object(
        &self,
        references: (&Arc<str>, &mut References),
        name: &str,
        text: &[u8],
        revision: u64,
    ) -> Option<Object> {
        let draft = self.decode.decode(references.0, name, text).ok()?;
        let object = Object::kept(draft, revision, EventType::Added, references);
        // Text that was put together wrongly would not be the same when it is laid out anew.
        (*object.json() == *text).then_some(object)
    }
}
