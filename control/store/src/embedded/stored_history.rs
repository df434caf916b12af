//! The latest changes in the store's file, so that watches go on over a restart: who saw not quite the last change of
//! its resource does not have to list anew, and of ten thousand watchers nearly all are such.
//!
//! A row holds some of them. Of each change it says what became of which key, and how the text before differs from the
//! text after: the texts themselves are the objects, so a small change costs a small record. Read from the latest
//! change backwards, the records give every text in between.
//!
//! Where the object's resource is encrypted, so is what the record says of the text before.
//!
//! Nothing depends on it: where it does not fit the objects, the history begins after that place.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition};

use super::row::{RowChange, SEALED, code, event_type, number};
use crate::{
    Decode, Event, EventType, History, Key, Object, Snapshot,
    references::References,
    seal::{Binding, Form, SealError, Sealer},
};

/// Revision of the last of some changes → how many changes, then a [`Record`] for each.
pub const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");

/// What the history may hold. Beyond that, an eighth of it is dropped.
const MAX_CHANGES: usize = 32_768;
const MAX_BYTES: usize = 32 << 20;
/// Changes in one row, which are dropped together.
const ROW_CHANGES: usize = 128;
/// How much of a resource's objects its history may hold when it is made of the stored one: as much as later.
const MAX_BYTES_REBUILT: usize = crate::history::MAX_BYTES;
/// Changes that nobody asked for so long after the opening are too old for a watch.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// How much the history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySize {
    changes: usize,
    bytes: usize,
}

impl HistorySize {
    /// Counts what `history` holds.
    pub fn of(history: &impl ReadableTable<u64, &'static [u8]>) -> Result<Self, redb::StorageError> {
        let mut size = Self::default();
        for row in history.iter()? {
            size.add(row?.1.value());
        }
        Ok(size)
    }

    fn add(&mut self, row: &[u8]) {
        self.changes += count(row);
        self.bytes += row.len();
    }

    fn remove(&mut self, row: &[u8]) {
        self.changes = self.changes.saturating_sub(count(row));
        self.bytes = self.bytes.saturating_sub(row.len());
    }

    fn exceeds(self, eighths: usize) -> bool {
        self.changes > MAX_CHANGES / 8 * eighths || self.bytes > MAX_BYTES / 8 * eighths
    }
}

/// A row of [`HISTORY`].
pub struct HistoryRow {
    /// The revision of its last change.
    last: u64,
    bytes: Vec<u8>,
}

/// The rows for some changes.
pub fn rows_of(changes: &[RowChange], sealer: &Sealer) -> Result<Vec<HistoryRow>, SealError> {
    let mut rows = Vec::with_capacity(changes.len().div_ceil(ROW_CHANGES));
    for part in changes.chunks(ROW_CHANGES) {
        let Some(last) = part.last() else { continue };
        let mut bytes = Vec::with_capacity(64 * part.len());
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        for change in part {
            Record::write(change, sealer, &mut bytes)?;
        }
        rows.push(HistoryRow { last: last.revision, bytes });
    }
    Ok(rows)
}

/// Adds rows to the history, and drops the oldest where it is too long. Answers with the revision up to which it was
/// dropped, if it was.
pub fn append(
    history: &mut Table<'_, u64, &'static [u8]>,
    rows: Vec<HistoryRow>,
    size: &mut HistorySize,
) -> Result<Option<u64>, redb::StorageError> {
    for HistoryRow { last, bytes } in rows {
        history.insert(last, bytes.as_slice())?;
        size.add(&bytes);
    }
    let mut dropped = None;
    if size.exceeds(8) {
        while size.exceeds(7)
            && let Some((revision, row)) = history.pop_first()?
        {
            size.remove(row.value());
            dropped = Some(revision.value());
        }
    }
    Ok(dropped)
}

/// Empties the history.
pub fn clear(history: &mut Table<'_, u64, &'static [u8]>) -> Result<(), redb::StorageError> {
    if history.is_empty()? { Ok(()) } else { history.retain(|_, _| false) }
}

fn count(row: &[u8]) -> usize {
    row.first_chunk::<4>().map_or(0, |count| u32::from_be_bytes(*count) as usize)
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    revision: u64,
    event_type: EventType,
    name: Arc<str>,
    /// Of a change that is no addition.
    before: Option<Before>,
}

/// The text before a change, encoded against the text after it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Before {
    revision: u64,
    /// Length of the text after.
    after: u32,
    /// So many bytes at its beginning and at its end are the same before.
    same: (u32, u32),
    /// What stood between them.
    middle: Box<[u8]>,
}

impl Record {
    /// The kind has [`SEALED`] where the text before is sealed: then its length (4 bytes) stands before it.
    fn write(change: &RowChange, sealer: &Sealer, out: &mut Vec<u8>) -> Result<(), SealError> {
        let before = change.previous.as_ref().map(|(revision, json)| {
            // A deleted object is not there any more to tell its last text by: its change has no text.
            Before::of(*revision, &json.get(), &change.json.get()).bytes()
        });
        let sealed = match (&before, sealer.get()) {
            (Some(before), Some(seal)) => change.binding(Form::Before).seal(seal, before)?,
            (None, _) | (_, None) => None,
        };
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        out.push(code(change.event_type) | if sealed.is_some() { SEALED } else { 0 });
        out.extend_from_slice(&change.revision.to_be_bytes());
        text(out, change.resource());
        text(out, change.name());
        match (sealed, before) {
            (Some((_, sealed)), _) => {
                out.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
                out.extend_from_slice(&sealed);
            }
            (None, Some(before)) => out.extend_from_slice(&before),
            (None, None) => {}
        }
        Ok(())
    }

    /// Takes a record from `row`, with its resource.
    fn read<'a>(row: &mut &'a [u8], sealer: &Sealer) -> Option<(&'a str, Self)> {
        let kind = *row.split_off_first()?;
        let event_type = event_type(kind & !SEALED)?;
        let revision = u64::from_be_bytes(*number(row)?);
        let resource = text(row)?;
        let name = Arc::from(text(row)?);
        let before = match (event_type, kind & SEALED != 0) {
            (EventType::Added, false) => None,
            (EventType::Modified | EventType::Deleted, false) => Some(Before::read(row)?),
            (_, true) => {
                let length = u32::from_be_bytes(*number(row)?);
                let sealed = row.split_off(..length as usize)?;
                let key = format!("{resource}/{name}");
                // Without its key, it is as a damaged one: nothing depends on it.
                let opened = Binding { key: &key, revision, form: Form::Before }.open(sealer.get(), sealed).ok()?;
                Some(Before::read(&mut &opened.value[..])?)
            }
        };
        Some((resource, Self { revision, event_type, name, before }))
    }
}

impl Before {
    fn of(revision: u64, before: &[u8], after: &[u8]) -> Self {
        let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
        let tails = before[head..].iter().rev().zip(after[head..].iter().rev());
        let tail = tails.take_while(|(a, b)| a == b).count();
        let middle = before[head..before.len() - tail].into();
        Self { revision, after: after.len() as u32, same: (head as u32, tail as u32), middle }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.middle.len().saturating_add(24));
        out.extend_from_slice(&self.revision.to_be_bytes());
        for number in [self.after, self.same.0, self.same.1, self.middle.len() as u32] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.middle);
        out
    }

    fn read(row: &mut &[u8]) -> Option<Self> {
        let revision = u64::from_be_bytes(*number(row)?);
        let [after, head, tail, length] =
            [number(row)?, number(row)?, number(row)?, number(row)?].map(|n| u32::from_be_bytes(*n));
        let middle = row.split_off(..length as usize)?.into();
        Some(Self { revision, after, same: (head, tail), middle })
    }

    /// The text before, if `after` is the text that it was encoded against.
    fn text(&self, after: &[u8]) -> Option<Vec<u8>> {
        if after.len() != self.after as usize {
            return None;
        }
        let head = after.get(..self.same.0 as usize)?;
        let tail = after.get(after.len().checked_sub(self.same.1 as usize)?..)?;
        Some([head, &self.middle, tail].concat())
    }
}

fn text<'a>(row: &mut &'a [u8]) -> Option<&'a str> {
    let length = u16::from_be_bytes(*number(row)?);
    std::str::from_utf8(row.split_off(..usize::from(length))?).ok()
}

/// The changes of each resource, from the oldest.
#[derive(Debug, Default)]
pub struct Records {
    /// All changes after this revision are there.
    pub since: u64,
    by_resource: HashMap<Box<str>, Vec<Record>>,
}

impl Records {
    /// Reads the whole history. A damaged row makes those before it worthless.
    pub fn read(
        history: &impl ReadableTable<u64, &'static [u8]>,
        since: u64,
        sealer: &Sealer,
    ) -> Result<Self, redb::StorageError> {
        let mut records = Self { since, by_resource: HashMap::new() };
        for row in history.iter()? {
            let (revision, row) = row?;
            let row = row.value();
            let mut rest = row.get(4..).unwrap_or_default();
            for _ in 0..count(row) {
                let Some((resource, record)) = Record::read(&mut rest, sealer) else {
                    records = Self { since: revision.value(), by_resource: HashMap::new() };
                    break;
                };
                match records.by_resource.get_mut(resource) {
                    Some(list) => list.push(record),
                    None => drop(records.by_resource.insert(resource.into(), vec![record])),
                }
            }
        }
        Ok(records)
    }
}

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
        let (since, mut records) = {
            let mut all = self.records.lock();
            (all.since, all.by_resource.remove(resource)?)
        };
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_encoded_against_the_one_after(
            head in "[ab]{0,6}", tail in "[ab]{0,6}", before in "[ab]{0,6}", after in "[ab]{0,6}"
        ) {
            let [before, after] = [before, after].map(|middle| format!("{head}{middle}{tail}").into_bytes());
            let encoded = Before::of(7, &before, &after);
            prop_assert_eq!(encoded.text(&after), Some(before));
            prop_assert_eq!(encoded.text(&[&after[..], b"x"].concat()), None);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut row = bytes.as_slice();
            while Record::read(&mut row, &Sealer::default()).is_some() {}
        }
    }
}
