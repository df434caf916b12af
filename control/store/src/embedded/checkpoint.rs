//! One checkpoint: changes of the log, written into the tables in one transaction of the database.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Weak,
};

use bytes::Bytes;
use redb::{Database, Durability, ReadableTable, StorageError, WriteTransaction};

use super::{
    quarantine::Moves,
    row::{RowChange, RowText},
    stored_header::{self, HEADERS},
    stored_history::{self, HistorySize},
    tables::{LAST_CHANGES, META, OBJECTS},
};
use crate::{Decode, EventType, Object};

/// What of a set of changes is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All, and the changes are added to the history.
    WithHistory,
    /// All but headers, and the history is emptied.
    WithoutHistory,
    /// Deletions alone. The tables' revision stays: all changes come once more.
    Deletions,
}

/// Which tables beside the objects are right.
pub struct Known {
    pub last_changes: bool,
    pub history: bool,
    pub history_size: Option<HistorySize>,
}

/// The headers of objects: see `stored_header.rs`.
pub struct Headers<'a> {
    /// Who makes them.
    pub decode: Option<&'a dyn Decode>,
    /// Objects in the file whose headers it lacks. One that is gone needs none.
    pub lacked: &'a [(Box<str>, Weak<Object>)],
}

impl Headers<'_> {
    /// The row of the object with this key, if it has one.
    fn row(&self, key: &str, object: &Object) -> Option<Vec<u8>> {
        let mark = self.decode?.mark(key.split_once('/')?.0)?;
        Some(stored_header::row(object, mark))
    }
}

/// Writes changes; answers with the size of the history after them, as far as known.
pub fn write(
    database: &Database,
    moves: Option<&Moves>,
    changes: &[RowChange],
    (known, headers): (Known, &Headers<'_>),
    part: Part,
) -> Result<Option<HistorySize>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|e| redb::Error::from(StorageError::Corrupted(e.to_string())))?;
    let history_size = match part {
        Part::Deletions => {
            write_objects(&transaction, changes, headers, true)?;
            None
        }
        Part::WithHistory | Part::WithoutHistory => {
            if let Some(moves) = moves {
                moves.make(&transaction)?;
            }
            let size = write_changes(&transaction, changes, &known, part == Part::WithHistory)?;
            write_lacked(&transaction, headers)?;
            write_objects(&transaction, changes, headers, false)?;
            let mut meta = transaction.open_table(META)?;
            let last = changes.last().map(|change| change.revision).max(moves.map(|moves| moves.revision));
            if let Some(revision) = last {
                meta.insert("revision", revision)?;
            }
            size.or(known.history_size)
        }
    };
    transaction.commit()?;
    Ok(history_size)
}

/// Brings the table of objects to what it is after all changes.
fn write_objects(
    transaction: &WriteTransaction,
    changes: &[RowChange],
    headers: &Headers<'_>,
    deletions_only: bool,
) -> Result<(), redb::Error> {
    let (mut objects, mut header_rows) = (transaction.open_table(OBJECTS)?, transaction.open_table(HEADERS)?);
    let latest: BTreeMap<&str, &RowChange> = changes.iter().map(|change| (&*change.key, change)).collect();
    for (key, change) in latest {
        match change.value() {
            None => {
                objects.remove(key)?;
                header_rows.remove(key)?;
            }
            Some(_) if deletions_only => {}
            Some(value) => {
                objects.insert(key, value.as_slice())?;
                match change.json.object().and_then(|object| headers.row(key, object)) {
                    Some(row) => drop(header_rows.insert(key, row.as_slice())?),
                    None => drop(header_rows.remove(key)?),
                }
            }
        }
    }
    Ok(())
}

/// Adds headers of objects that are as they were when the file was read.
fn write_lacked(transaction: &WriteTransaction, headers: &Headers<'_>) -> Result<(), redb::Error> {
    if headers.lacked.is_empty() {
        return Ok(());
    }
    let (objects, mut rows) = (transaction.open_table(OBJECTS)?, transaction.open_table(HEADERS)?);
    for (key, object) in headers.lacked {
        let Some(object) = object.upgrade() else { continue };
        let row = objects.get(&**key)?;
        if row.is_some_and(|row| row.value().starts_with(&object.revision.to_be_bytes()))
            && let Some(header) = headers.row(key, &object)
        {
            rows.insert(&**key, header.as_slice())?;
        }
    }
    Ok(())
}

/// Tells the tables beside the objects of changes that the objects do not have yet.
fn write_changes(
    transaction: &WriteTransaction,
    changes: &[RowChange],
    known: &Known,
    with_history: bool,
) -> Result<Option<HistorySize>, redb::Error> {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return Ok(None) };
    let (mut meta, mut last_of) = (transaction.open_table(META)?, transaction.open_table(LAST_CHANGES)?);
    let mut history = transaction.open_table(stored_history::HISTORY)?;
    let whole = with_previous(&transaction.open_table(OBJECTS)?, changes)?;
    let whole = whole.filter(|_| with_history);
    let mut size = match (known.history, &whole, known.history_size) {
        (true, Some(_), Some(size)) => size,
        (true, Some(_), None) => HistorySize::of(&history)?,
        (false, _, _) | (true, None, _) => {
            stored_history::clear(&mut history)?;
            meta.insert("history_since", first.revision.saturating_sub(1))?;
            HistorySize::default()
        }
    };
    let dropped = match &whole {
        Some(changes) => stored_history::append(&mut history, changes, &mut size)?,
        None => Some(last.revision),
    };
    if let Some(dropped) = dropped {
        meta.insert("history_since", dropped)?;
    }
    meta.insert("history_at", last.revision)?;
    if !known.last_changes {
        last_of.retain(|_, _| false)?;
        meta.insert("changes_since", first.revision.saturating_sub(1))?;
    }
    let by_resource: BTreeMap<&str, u64> = changes.iter().map(|change| (change.resource(), change.revision)).collect();
    for (resource, revision) in by_resource {
        last_of.insert(resource, revision)?;
    }
    meta.insert("changes_at", last.revision)?;
    Ok(Some(size))
}

/// The changes with what was there before each, which the write-ahead log does not tell. Nothing where it is not known.
fn with_previous(
    objects: &redb::Table<'_, &'static str, &'static [u8]>,
    changes: &[RowChange],
) -> Result<Option<Vec<RowChange>>, redb::Error> {
    let mut before: HashMap<&str, (u64, RowText)> = HashMap::new();
    let mut whole = Vec::with_capacity(changes.len());
    for change in changes {
        let previous = match (&change.previous, change.event_type) {
            (_, EventType::Added) => None,
            (Some(previous), _) => Some(previous.clone()),
            (None, _) => match before.get(&*change.key) {
                Some(previous) => Some(previous.clone()),
                None => stored(objects, &change.key)?,
            },
        };
        if previous.is_none() && change.event_type != EventType::Added {
            return Ok(None);
        }
        before.insert(&change.key, (change.revision, change.json.clone()));
        whole.push(change.after(previous));
    }
    Ok(Some(whole))
}

/// Revision and text of an object in the table.
fn stored(
    objects: &redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<(u64, RowText)>, redb::Error> {
    let Some(row) = objects.get(key)? else { return Ok(None) };
    let split = row.value().split_first_chunk::<8>();
    Ok(split.map(|(revision, json)| (u64::from_be_bytes(*revision), RowText::Read(Bytes::copy_from_slice(json)))))
}
