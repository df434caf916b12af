//! One checkpoint: changes of the log, written into the tables in one transaction of the database.

use std::collections::{BTreeMap, HashMap};

use redb::{Database, Durability, ReadableTable, StorageError, WriteTransaction};

use super::{
    freed_texts::FreedTexts,
    last_changes::LAST_CHANGES,
    packed_row,
    quarantine::Moves,
    row::{RowChange, RowText},
    stored_base::{self, BASES, RowWriter, StoredBases},
    stored_history::{self, Appended, HISTORY, HistorySize, Resources},
    stored_record::Previous,
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
    /// Resources whose texts must not stand in the history as they are any more.
    pub texts_to_remove: Resources,
    /// Nobody reads what the history holds, and it must not stay.
    pub history_is_void: bool,
}

/// What a checkpoint did beside the objects.
#[derive(Debug, Default)]
pub struct Written {
    /// Of the history, as far as known.
    pub history_size: Option<HistorySize>,
    /// Resources whose texts were added to the history as they are.
    pub plain: Resources,
    /// Texts that are sealed from now on stood in places that are free now.
    pub frees_texts: bool,
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

/// Writes changes.
pub fn write(
    database: &Database,
    moves: Option<&Moves>,
    changes: &[RowChange],
    (known, rows, bases): (Known, &mut Rows<'_>, &mut StoredBases),
    part: Part,
) -> Result<Written, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|e| redb::Error::from(StorageError::Corrupted(e.to_string())))?;
    // The file says which space is free: after a crash, an opening need not read all of it to know.
    transaction.set_quick_repair(true);
    let written = match part {
        Part::Deletions => {
            let frees_texts = write_objects(&transaction, changes, (rows, bases), part)?;
            Written { frees_texts, ..Written::default() }
        }
        Part::WithHistory | Part::WithoutHistory => {
            if let Some(moves) = moves {
                moves.make(&transaction)?;
            }
            let size = remove_from_history(&transaction, &known, part)?;
            let history = (size, part == Part::WithHistory);
            let (history_size, plain) = write_changes(&transaction, changes, (&known, rows.sealer), history)?;
            let frees_texts = write_objects(&transaction, changes, (rows, bases), part)?;
            let mut meta = transaction.open_table(META)?;
            let last = changes.last().map(|change| change.revision).max(moves.map(|moves| moves.revision));
            if let Some(revision) = last {
                meta.insert("revision", revision)?;
            }
            let frees_texts = frees_texts || known.history_is_void || !known.texts_to_remove.is_empty();
            Written { history_size, plain, frees_texts }
        }
    };
    if written.frees_texts {
        FreedTexts::InFileAndCopy.write(&transaction)?;
    }
    transaction.commit()?;
    Ok(written)
}

/// Brings the table of objects to what it is after all changes, with the bases, and counts the checkpoint. Answers
/// whether rows that were not sealed went, of resources that are sealed now.
fn write_objects(
    transaction: &WriteTransaction,
    changes: &[RowChange],
    (rows, bases): (&mut Rows<'_>, &mut StoredBases),
    part: Part,
) -> Result<bool, redb::Error> {
    let mut objects = transaction.open_table(OBJECTS)?;
    let mut writer = RowWriter::new(transaction.open_table(BASES)?, bases);
    let has_sealed = changes.iter().any(|change| change.sealed.is_some());
    let mut frees_texts = false;
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
            let is_secret = change.sealed.is_some() || rows.sealer.seals(change.resource());
            frees_texts |= is_secret && !packed_row::is_sealed(previous.value());
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
    Ok(frees_texts)
}

/// Takes out of the history what must not stand in it any more. Answers with its size then, as far as known.
fn remove_from_history(
    transaction: &WriteTransaction,
    known: &Known,
    part: Part,
) -> Result<Option<HistorySize>, redb::Error> {
    if known.texts_to_remove.is_empty() && !known.history_is_void {
        return Ok(known.history_size);
    }
    let mut history = transaction.open_table(HISTORY)?;
    let mut meta = transaction.open_table(META)?;
    let at = meta.get("history_at")?.map(|at| at.value());
    let (dropped, size) = if known.history_is_void || part == Part::WithoutHistory {
        stored_history::clear(&mut history)?;
        (at, HistorySize::default())
    } else {
        let mut size = known.history_size.map_or_else(|| HistorySize::of(&history), Ok)?;
        let dropped = stored_history::remove_texts(&mut history, &known.texts_to_remove, &mut size)?;
        (dropped, size)
    };
    if let Some(dropped) = dropped {
        meta.insert("history_since", dropped)?;
    }
    Ok(Some(size))
}

/// Tells the tables beside the objects of changes that the objects do not have yet. Answers with the size of the
/// history, and with the resources whose texts were added to it as they are.
fn write_changes(
    transaction: &WriteTransaction,
    changes: &[RowChange],
    (known, sealer): (&Known, &Sealer),
    (history_size, with_history): (Option<HistorySize>, bool),
) -> Result<(Option<HistorySize>, Resources), redb::Error> {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
        return Ok((history_size, Resources::new()));
    };
    let (mut meta, mut last_of) = (transaction.open_table(META)?, transaction.open_table(LAST_CHANGES)?);
    let mut history = transaction.open_table(HISTORY)?;
    let mut size = match (known.history && with_history, history_size) {
        (true, Some(size)) => size,
        (true, None) => HistorySize::of(&history)?,
        (false, _) => {
            stored_history::clear(&mut history)?;
            meta.insert("history_since", first.revision.saturating_sub(1))?;
            HistorySize::default()
        }
    };
    let appended = if with_history {
        let (objects, bases) = (transaction.open_table(OBJECTS)?, transaction.open_table(BASES)?);
        let mut texts = PreviousTexts { objects: &objects, bases: &bases, sealer, written: HashMap::new() };
        let whole = changes.iter().map(|change| Ok((change, texts.before(change)?)));
        stored_history::append(&mut history, whole, sealer, &mut size)?
    } else {
        Appended { dropped: Some(last.revision), ..Appended::default() }
    };
    if let Some(dropped) = appended.dropped {
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
    Ok((Some(size), appended.plain))
}

/// What was there before each of some changes, which the write-ahead log does not tell.
struct PreviousTexts<'a, 't> {
    objects: &'a ObjectTable<'t>,
    bases: &'a BaseTable<'t>,
    sealer: &'a Sealer,
    /// By the changes so far: revision and text of each key, as far as known.
    written: HashMap<&'a str, Option<(u64, RowText)>>,
}

impl<'a> PreviousTexts<'a, '_> {
    /// What was there before a change. Asked for each, in their order.
    fn before(&mut self, change: &'a RowChange) -> Result<Previous, StorageError> {
        let previous = match (&change.previous, self.written.get(&*change.key)) {
            _ if change.event_type == EventType::Added => Previous::None,
            (Some((revision, text)), _) | (None, Some(Some((revision, text)))) => {
                Previous::Text(*revision, text.clone())
            }
            (None, Some(None)) => Previous::Unknown,
            (None, None) => self.stored(&change.key)?.map_or(Previous::Unknown, |(at, text)| Previous::Text(at, text)),
        };
        let written = (!change.is_locked()).then(|| (change.revision, change.json.clone()));
        self.written.insert(&change.key, written);
        Ok(previous)
    }

    /// Revision and text of an object in the table.
    fn stored(&self, key: &str) -> Result<Option<(u64, RowText)>, StorageError> {
        let Some(row) = self.objects.get(key)? else { return Ok(None) };
        let row = row.value();
        // One that cannot be read is told of when it is loaded.
        let read = if packed_row::is_sealed(row) {
            packed_row::sealed_of(key, row).and_then(|(revision, sealed)| {
                let opened = Binding { key, revision, form: Form::Row }.open(self.sealer.get(), sealed).ok()?;
                packed_row::text(&opened.value, |_| None).ok()
            })
        } else {
            let base = packed_row::base_of(row).map(|number| stored_base::get(self.bases, number)).transpose()?;
            packed_row::text(row, |_| base.flatten()).ok()
        };
        Ok(read.map(|(revision, json)| (revision, RowText::Read(json.into()))))
    }
}
