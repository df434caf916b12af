//! The latest changes in the store's file, so that watches go on over a restart: who saw not quite the last change of
//! its resource does not have to list anew, and of ten thousand watchers nearly all are such.
//!
//! A row holds some of them. Of each change it says what became of which key, and how the text before differs from the
//! text after: the texts themselves are the objects, so a small change costs a small record. Read from the latest
//! change backwards, the records give every text in between.
//!
//! Where the object's resource is encrypted, so is what the record says of the text before. A text that cannot be
//! encrypted, as while a key service is away, is left out: the history of that resource begins after it, that of all
//! others goes on. The same holds when records are read: a text that does not open is not known, and neither is one
//! that stands as it is though its resource is encrypted now. Such ones, of before the encryption, are taken out of the
//! table ([`remove_texts`]).
//!
//! Nothing depends on it: where it does not fit the objects, the history begins after that place.

use std::collections::{BTreeSet, HashMap};

use redb::{ReadableTable, ReadableTableMetadata, StorageError, Table, TableDefinition};
use tracing::warn;

use super::{
    row::RowChange,
    stored_record::{Previous, Record, StoredBefore, StoredRecord, write_record},
};
use crate::seal::Sealer;

/// Revision of the last of some changes → how many changes, then a [`Record`] for each.
pub const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");

/// What the history may hold. Beyond that, an eighth of it is dropped.
const MAX_CHANGES: usize = 32_768;
const MAX_BYTES: usize = 32 << 20;
/// Changes in one row, which are dropped together.
const ROW_CHANGES: usize = 128;

/// Resources.
pub type Resources = BTreeSet<Box<str>>;

/// How much the history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySize {
    changes: usize,
    bytes: usize,
}

impl HistorySize {
    /// Counts what `history` holds.
    pub fn of(history: &impl ReadableTable<u64, &'static [u8]>) -> Result<Self, StorageError> {
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

/// What adding to the history did.
#[derive(Debug, Default)]
pub struct Appended {
    /// The revision up to which it was dropped, if it was.
    pub dropped: Option<u64>,
    /// Resources with texts that stand in it as they are.
    pub plain: Resources,
}

/// A row of [`HISTORY`] while it is made.
#[derive(Default)]
struct HistoryRow {
    changes: usize,
    /// The revision of its last change.
    last: u64,
    records: Vec<u8>,
}

impl HistoryRow {
    /// The row, which is empty from then on. Nothing where it was.
    fn take(&mut self) -> Option<(u64, Vec<u8>)> {
        let Self { changes, last, records } = std::mem::take(self);
        let count = u32::try_from(changes).unwrap_or(u32::MAX).to_be_bytes();
        (changes > 0).then(|| (last, [&count[..], &records].concat()))
    }
}

/// Gives the rows for some changes to `put`, each as soon as it is full: there may be many changes.
fn write_rows<'a>(
    changes: impl Iterator<Item = Result<(&'a RowChange, Previous), StorageError>>,
    sealer: &Sealer,
    mut put: impl FnMut(u64, &[u8]) -> Result<(), StorageError>,
) -> Result<Resources, StorageError> {
    let (mut row, mut plain, mut failed) = (HistoryRow::default(), Resources::new(), Resources::new());
    for change in changes {
        let (change, previous) = change?;
        let resource = change.resource();
        match write_record(change, &previous, sealer, &mut row.records) {
            Ok(false) => {}
            Ok(true) if plain.contains(resource) => {}
            Ok(true) => drop(plain.insert(resource.into())),
            Err(error) => {
                if failed.insert(resource.into()) {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, resource, "the history of a resource begins anew, since it cannot be encrypted");
                }
            }
        }
        (row.changes, row.last) = (row.changes.saturating_add(1), change.revision);
        if row.changes == ROW_CHANGES
            && let Some((last, row)) = row.take()
        {
            put(last, &row)?;
        }
    }
    if let Some((last, row)) = row.take() {
        put(last, &row)?;
    }
    Ok(plain)
}

/// Adds changes to the history, and drops the oldest where it is too long.
pub fn append<'a>(
    history: &mut Table<'_, u64, &'static [u8]>,
    changes: impl Iterator<Item = Result<(&'a RowChange, Previous), StorageError>>,
    sealer: &Sealer,
    size: &mut HistorySize,
) -> Result<Appended, StorageError> {
    let plain = write_rows(changes, sealer, |last, row| {
        history.insert(last, row)?;
        size.add(row);
        Ok(())
    })?;
    let mut dropped = None;
    if size.exceeds(8) {
        while size.exceeds(7)
            && let Some((revision, row)) = history.pop_first()?
        {
            size.remove(row.value());
            dropped = Some(revision.value());
        }
    }
    Ok(Appended { dropped, plain })
}

/// Takes the texts that stand as they are out of the records of these resources. Answers with the revision up to which
/// the history was dropped, since a row is damaged.
pub fn remove_texts(
    history: &mut Table<'_, u64, &'static [u8]>,
    resources: &Resources,
    size: &mut HistorySize,
) -> Result<Option<u64>, StorageError> {
    let (mut changed, mut damaged) = (Vec::new(), None);
    for row in history.iter()? {
        let (revision, row) = row?;
        match without_texts(row.value(), resources) {
            None => damaged = Some(revision.value()),
            Some(None) => {}
            Some(Some(_)) => changed.push(revision.value()),
        }
    }
    while let Some(damaged) = damaged
        && history.first()?.is_some_and(|(revision, _)| revision.value() <= damaged)
        && let Some((_, row)) = history.pop_first()?
    {
        size.remove(row.value());
    }
    for revision in changed {
        let Some(row) = history.get(revision)?.map(|row| row.value().to_vec()) else { continue };
        if let Some(Some(without)) = without_texts(&row, resources) {
            size.remove(&row);
            size.add(&without);
            history.insert(revision, without.as_slice())?;
        }
    }
    Ok(damaged)
}

/// The row without these resources' texts, where it has any. Nothing where it is damaged.
fn without_texts(row: &[u8], resources: &Resources) -> Option<Option<Vec<u8>>> {
    let (head, mut rest) = row.split_at_checked(4)?;
    let (mut without, mut has_text) = (head.to_vec(), false);
    for _ in 0..count(row) {
        let before = rest;
        let record = StoredRecord::read(&mut rest)?;
        if matches!(record.before, StoredBefore::Text(_)) && resources.contains(record.resource) {
            has_text = true;
            StoredRecord { before: StoredBefore::Unknown, ..record }.write(&mut without);
        } else {
            without.extend_from_slice(before.get(..before.len().saturating_sub(rest.len()))?);
        }
    }
    Some(has_text.then_some(without))
}

/// Empties the history.
pub fn clear(history: &mut Table<'_, u64, &'static [u8]>) -> Result<(), StorageError> {
    if history.is_empty()? { Ok(()) } else { history.retain(|_, _| false) }
}

fn count(row: &[u8]) -> usize {
    row.first_chunk::<4>().map_or(0, |count| u32::from_be_bytes(*count) as usize)
}

/// The changes of one resource, from the oldest.
#[derive(Debug, Default)]
pub struct ResourceRecords {
    /// All changes after this revision are there.
    pub since: u64,
    pub records: Vec<Record>,
}

/// The changes of each resource.
#[derive(Debug, Default)]
pub struct Records {
    /// All changes after this revision are there, but for what a resource says of itself.
    since: u64,
    by_resource: HashMap<Box<str>, ResourceRecords>,
    /// Resources with texts that stand in the table as they are.
    pub plain: Resources,
}

impl Records {
    /// Reads the whole history. A damaged row makes those before it worthless, a record that is not known those of its
    /// resource.
    pub fn read(
        history: &impl ReadableTable<u64, &'static [u8]>,
        since: u64,
        sealer: &Sealer,
    ) -> Result<Self, StorageError> {
        let mut all = Self { since, ..Self::default() };
        for row in history.iter()? {
            let (revision, row) = row?;
            let row = row.value();
            let mut rest = row.get(4..).unwrap_or_default();
            for _ in 0..count(row) {
                let Some(record) = StoredRecord::read(&mut rest) else {
                    // What they have is still to be taken out.
                    (all.since, all.by_resource) = (revision.value(), HashMap::new());
                    break;
                };
                all.add(record, sealer);
            }
        }
        Ok(all)
    }

    fn add(&mut self, record: StoredRecord<'_>, sealer: &Sealer) {
        let (resource, revision) = (record.resource, record.revision);
        if matches!(record.before, StoredBefore::Text(_)) && !self.plain.contains(resource) {
            self.plain.insert(resource.into());
        }
        if !self.by_resource.contains_key(resource) {
            let since = self.since;
            self.by_resource.insert(resource.into(), ResourceRecords { since, records: Vec::new() });
        }
        let Some(of_resource) = self.by_resource.get_mut(resource) else { return };
        match record.known(sealer) {
            Some(record) => of_resource.records.push(record),
            None => *of_resource = ResourceRecords { since: revision, records: Vec::new() },
        }
    }

    /// Takes the changes of a resource, if there are any.
    pub fn take(&mut self, resource: &str) -> Option<ResourceRecords> {
        self.by_resource.remove(resource).filter(|of_resource| !of_resource.records.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{Event, EventType, Key, Object, references::References, tests::draft};

    fn change(revision: u64) -> RowChange {
        let key = Key { resource: "things".into(), name: "a".into() };
        let references = (&key.resource, &mut References::default());
        let object = Arc::new(Object::kept(draft("value"), revision, EventType::Added, references));
        RowChange::of(&Event { event_type: EventType::Added, key, object, previous: None })
    }

    #[test]
    fn a_row_is_given_on_before_the_changes_of_the_next_are_asked_for() {
        let changes: Vec<RowChange> = (1..=2 * ROW_CHANGES as u64 + 1).map(change).collect();
        let (asked, mut given) = (Cell::new(0), Vec::new());
        let counted = changes.iter().map(|change| {
            asked.set(asked.get() + 1);
            Ok((change, Previous::None))
        });
        let put = |last, row: &[u8]| {
            given.push((last, count(row), asked.get()));
            Ok(())
        };
        let plain = write_rows(counted, &Sealer::default(), put).unwrap();
        let (one, two) = (ROW_CHANGES, 2 * ROW_CHANGES);
        assert_eq!(given, [(one as u64, one, one), (two as u64, one, two), (two as u64 + 1, 1, two + 1)]);
        assert!(plain.is_empty(), "no text of before is in it");
    }

    proptest! {
        #[test]
        fn any_row_is_looked_through_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            without_texts(&bytes, &Resources::new());
        }
    }
}
