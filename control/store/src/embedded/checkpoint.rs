//! One checkpoint: changes of the log, written into the tables in one transaction of the database.

use std::collections::{BTreeMap, HashMap};

use redb::{Database, Durability, ReadableTable, StorageError, WriteTransaction};
use tracing::warn;

use super::{
    last_changes::LAST_CHANGES,
    packed_row,
    quarantine::Moves,
    row::{RowChange, RowText},
    stored_base::{self, BASES, RowWriter, StoredBases},
    stored_history::{self, HistorySize},
    tables::{META, OBJECTS, SEALED_LAYOUT},
    unpacked_rows::PackingBatch,
};
use crate::{
    Decode, EventType,
    seal::{Binding, Form, Sealer},
};

type ObjectTable<'t> = redb::Table<'t, &'static str, &'static [u8]>;
type BaseTable<'t> = redb::Table<'t, u64, &'static [u8]>;

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

/// How objects are written: see `packed_row.rs`.
pub struct Rows<'a> {
    /// Who makes headers. Rows have none without it.
    pub decode: Option<&'a dyn Decode>,
    /// Rows that are packed with the changes.
    pub packing: PackingBatch<'a>,
    /// Seals what the history gets, and opens what is compared.
    pub sealer: &'a Sealer,
}

impl Rows<'_> {
    /// The mark of the headers of the object with this key, if they are kept.
    fn mark(&self, key: &str) -> Option<u64> {
        self.decode?.mark(key.split_once('/')?.0)
    }
}

/// Writes changes; answers with the size of the history after them, as far as known.
pub fn write(
    database: &Database,
    moves: Option<&Moves>,
    changes: &[RowChange],
    (known, rows, bases): (Known, &mut Rows<'_>, &mut StoredBases),
    part: Part,
) -> Result<Option<HistorySize>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|e| redb::Error::from(StorageError::Corrupted(e.to_string())))?;
    // The file says which space is free: after a crash, an opening need not read all of it to know.
    transaction.set_quick_repair(true);
    let history_size = match part {
        Part::Deletions => {
            write_objects(&transaction, changes, (rows, bases), part)?;
            None
        }
        Part::WithHistory | Part::WithoutHistory => {
            if let Some(moves) = moves {
                moves.make(&transaction)?;
            }
            let size = write_changes(&transaction, changes, (&known, rows.sealer), part == Part::WithHistory)?;
            write_objects(&transaction, changes, (rows, bases), part)?;
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

/// Brings the table of objects to what it is after all changes, with the bases, and counts the checkpoint.
fn write_objects(
    transaction: &WriteTransaction,
    changes: &[RowChange],
    (rows, bases): (&mut Rows<'_>, &mut StoredBases),
    part: Part,
) -> Result<(), redb::Error> {
    let mut objects = transaction.open_table(OBJECTS)?;
    let mut writer = RowWriter::new(transaction.open_table(BASES)?, bases);
    let has_sealed = changes.iter().any(|change| change.sealed.is_some());
    let latest: BTreeMap<&str, &RowChange> = changes.iter().map(|change| (&*change.key, change)).collect();
    for (key, change) in latest {
        let row = match (change.json.object(), part) {
            _ if change.event_type == EventType::Deleted => None,
            (_, Part::Deletions) => continue,
            _ if change.sealed.is_some() => change.value(),
            (Some(object), _) => Some(writer.row(object, rows.mark(key))?),
            (None, _) => change.value(),
        };
        let previous = match row {
            Some(row) => objects.insert(key, row.as_slice())?,
            None => objects.remove(key)?,
        };
        if let Some(previous) = previous {
            writer.removed(previous.value());
        }
    }
    rows.packing.write(&mut objects, &mut writer, (rows.decode, rows.sealer))?;
    let changes = writer.finish()?;
    let mut meta = transaction.open_table(META)?;
    if has_sealed && meta.get("layout")?.is_none_or(|layout| layout.value() < SEALED_LAYOUT) {
        meta.insert("layout", SEALED_LAYOUT)?;
    }
    let number = meta.get("checkpoints")?.map_or(0, |number| number.value()).saturating_add(1);
    meta.insert("checkpoints", number)?;
    bases.will_change(number, changes);
    Ok(())
}

/// Tells the tables beside the objects of changes that the objects do not have yet.
fn write_changes(
    transaction: &WriteTransaction,
    changes: &[RowChange],
    (known, sealer): (&Known, &Sealer),
    with_history: bool,
) -> Result<Option<HistorySize>, redb::Error> {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return Ok(None) };
    let (mut meta, mut last_of) = (transaction.open_table(META)?, transaction.open_table(LAST_CHANGES)?);
    let mut history = transaction.open_table(stored_history::HISTORY)?;
    let tables = (&transaction.open_table(OBJECTS)?, &transaction.open_table(BASES)?);
    let whole = with_previous(tables, changes, sealer)?.filter(|_| with_history);
    let rows = whole.and_then(|whole| {
        let sealed = stored_history::rows_of(&whole, sealer);
        sealed.inspect_err(|error| warn!(error = error as &dyn std::error::Error, "the history is emptied")).ok()
    });
    let mut size = match (known.history, &rows, known.history_size) {
        (true, Some(_), Some(size)) => size,
        (true, Some(_), None) => HistorySize::of(&history)?,
        (false, _, _) | (true, None, _) => {
            stored_history::clear(&mut history)?;
            meta.insert("history_since", first.revision.saturating_sub(1))?;
            HistorySize::default()
        }
    };
    let dropped = match rows {
        Some(rows) => stored_history::append(&mut history, rows, &mut size)?,
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
    (objects, bases): (&ObjectTable<'_>, &BaseTable<'_>),
    changes: &[RowChange],
    sealer: &Sealer,
) -> Result<Option<Vec<RowChange>>, redb::Error> {
    if changes.iter().any(RowChange::is_locked) {
        return Ok(None);
    }
    let mut before: HashMap<&str, (u64, RowText)> = HashMap::new();
    let mut whole = Vec::with_capacity(changes.len());
    for change in changes {
        let previous = match (&change.previous, change.event_type) {
            (_, EventType::Added) => None,
            (Some(previous), _) => Some(previous.clone()),
            (None, _) => match before.get(&*change.key) {
                Some(previous) => Some(previous.clone()),
                None => stored((objects, bases), &change.key, sealer)?,
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
    (objects, bases): (&ObjectTable<'_>, &BaseTable<'_>),
    key: &str,
    sealer: &Sealer,
) -> Result<Option<(u64, RowText)>, redb::Error> {
    let Some(row) = objects.get(key)? else { return Ok(None) };
    if let Some((revision, sealed)) = packed_row::sealed_of(row.value()) {
        let opened = Binding { key, revision, form: Form::Row }.open(sealer.get(), sealed).ok();
        let read = opened.and_then(|opened| packed_row::text(&opened.value, |_| None).ok());
        return Ok(read.map(|(revision, json)| (revision, RowText::Read(json.into()))));
    }
    let base = packed_row::base_of(row.value()).map(|number| stored_base::get(bases, number)).transpose()?;
    // One that cannot be read is told of when it is loaded.
    let read = packed_row::text(row.value(), |_| base.flatten()).ok();
    Ok(read.map(|(revision, json)| (revision, RowText::Read(json.into()))))
}
