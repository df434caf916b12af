//! Rows of the file that this program cannot read: moved aside at the opening, with their bytes, so that one of them
//! stops neither the others nor the program, and no later write takes their place unseen.
//!
//! Each opening tries them again: a program that can read one puts it back, if its key is still free.
//!
//! On a full disk nothing can be moved at the opening. The first write that succeeds does it then, in its own
//! transaction and before all else.

use std::{collections::HashMap, num::NonZero, panic::resume_unwind, sync::Arc};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use tracing::{info, warn};

use super::{
    row::RowChange,
    tables::{META, OBJECTS},
};
use crate::{Draft, EventType, Object, references::References};

/// As the objects: key → revision and JSON text, whatever is left of them.
const QUARANTINE: TableDefinition<&str, &[u8]> = TableDefinition::new("quarantine");

/// Makes the header of an object: of the resource, the key in it, the stored JSON text.
pub type DecodeRow<'a> = dyn Fn(&str, &str, &[u8]) -> Result<Draft, serde_json::Error> + Sync + 'a;

/// What becomes of rows that are read.
pub struct RowReader<'a> {
    /// Called by several threads at a time.
    pub decode: &'a DecodeRow<'a>,
    /// Takes an object of a resource, with its key in it.
    pub keep: &'a mut dyn FnMut(&str, &str, Object),
}

/// A row's key and value.
type Row = (String, Vec<u8>);

/// Rows that are read together, and how many of them are worth a thread.
const ROWS: usize = 4096;
const ROWS_OF_A_THREAD: usize = 64;

/// Why a row of the file cannot be read.
#[derive(Debug, thiserror::Error)]
enum RowError {
    #[error("the key names no resource")]
    NoResource,
    #[error("it is cut")]
    Cut,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// What an opening read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The revision of the last write.
    pub revision: u64,
    /// Rows that are kept aside.
    pub quarantined: u64,
}

/// Rows that are to be moved, by their keys, in the transaction that makes a revision durable.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// The revision of the store with the rows where they belong.
    pub revision: u64,
    /// To the quarantine.
    unreadable: Vec<String>,
    /// Back from it.
    readable: Vec<String>,
}

/// Reads every row; those that cannot be read are reported, and are to be moved aside.
///
/// `newer` are writes that the tables lack. Of them, too, those that cannot be read are reported; they are moved once
/// the tables have them.
pub fn load(
    database: &Database,
    newer: &[RowChange],
    reader: &mut RowReader<'_>,
) -> Result<(Loaded, Option<Moves>), redb::Error> {
    let mut loaded = Loaded::default();
    let mut moves = Moves::default();
    let transaction = database.begin_read()?;
    let objects = transaction.open_table(OBJECTS)?;
    let newest: HashMap<&str, &RowChange> = newer.iter().map(|change| (&*change.key, change)).collect();
    let mut rows: Vec<Row> = Vec::new();
    for entry in objects.iter()? {
        let (key, value) = entry?;
        if newest.contains_key(key.value()) {
            continue;
        }
        rows.push((key.value().to_owned(), value.value().to_vec()));
        if rows.len() == ROWS {
            moves.unreadable.append(&mut reader.read(&mut rows));
        }
    }
    moves.unreadable.append(&mut reader.read(&mut rows));
    let newer_rows = newest.iter().filter_map(|(key, change)| Some(((*key).to_owned(), change.value()?)));
    loaded.quarantined += reader.read(&mut newer_rows.collect()).len() as u64;
    match transaction.open_table(QUARANTINE) {
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
        Ok(quarantine) => {
            for entry in quarantine.iter()? {
                let (key, value) = entry?;
                loaded.quarantined += 1;
                if objects.get(key.value())?.is_some() || newest.contains_key(key.value()) {
                    warn!(key = key.value(), "an object that cannot be served is kept aside: its key is taken");
                    continue;
                }
                match reader.read_one(key.value(), value.value()) {
                    Ok(()) => moves.readable.push(key.value().to_owned()),
                    Err(error) => {
                        warn!(key = key.value(), %error, "an object that cannot be read is still kept aside");
                    }
                }
            }
        }
    }
    loaded.revision = transaction.open_table(META)?.get("revision")?.map_or(0, |revision| revision.value());
    loaded.revision = newer.last().map_or(loaded.revision, |change| change.revision.max(loaded.revision));
    if moves.unreadable.is_empty() && moves.readable.is_empty() {
        return Ok((loaded, None));
    }
    // No watch saw the objects go or come: at a new revision, all clients list again.
    loaded.revision += 1;
    loaded.quarantined = loaded.quarantined + moves.unreadable.len() as u64 - moves.readable.len() as u64;
    moves.revision = loaded.revision;
    Ok((loaded, Some(moves)))
}

impl Moves {
    /// Moves the rows, as a part of `transaction`.
    pub fn make(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut quarantine = transaction.open_table(QUARANTINE)?;
        for key in &self.unreadable {
            if let Some(value) = objects.remove(key.as_str())? {
                keep(&mut quarantine, key, value.value())?;
            }
        }
        for key in &self.readable {
            if let Some(value) = quarantine.remove(key.as_str())? {
                objects.insert(key.as_str(), value.value())?;
                info!(key, "an object that was kept aside can be read again");
            }
        }
        transaction.open_table(META)?.insert("revision", self.revision)?;
        Ok(())
    }
}

/// Puts a row into the quarantine, beside what may be there under its key.
fn keep(quarantine: &mut redb::Table<'_, &str, &[u8]>, key: &str, value: &[u8]) -> Result<(), redb::Error> {
    let mut free = key.to_owned();
    while quarantine.get(free.as_str())?.is_some() {
        free.push('\'');
    }
    quarantine.insert(free.as_str(), value)?;
    Ok(())
}

impl RowReader<'_> {
    /// Reads rows and empties the list. Answers with the keys of those that cannot be read.
    fn read(&mut self, rows: &mut Vec<Row>) -> Vec<String> {
        let mut unreadable = Vec::new();
        let objects = decode_all(self.decode, rows);
        for ((key, _), object) in rows.drain(..).zip(objects) {
            if let Err(error) = self.take(&key, object) {
                warn!(key, %error, "a stored object cannot be read; it is kept aside, and not served");
                unreadable.push(key);
            }
        }
        unreadable
    }

    fn read_one(&mut self, key: &str, value: &[u8]) -> Result<(), RowError> {
        self.take(key, decode(self.decode, key, value, &mut Made::default()))
    }

    fn take(&mut self, key: &str, object: Result<Object, RowError>) -> Result<(), RowError> {
        let (resource, name) = key.split_once('/').ok_or(RowError::NoResource)?;
        (self.keep)(resource, name, object?);
        Ok(())
    }
}

/// Decodes rows on all cores: it is most of the work of a start.
fn decode_all(decode_row: &DecodeRow<'_>, rows: &[Row]) -> Vec<Result<Object, RowError>> {
    let each = |rows: &[Row]| -> Vec<_> {
        let mut made = Made::default();
        rows.iter().map(|(key, value)| decode(decode_row, key, value, &mut made)).collect()
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = rows.len().div_ceil(threads).max(ROWS_OF_A_THREAD);
    if rows.len() <= share {
        return each(rows);
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = rows.chunks(share).map(|part| scope.spawn(move || each(part))).collect();
        let joined = parts.into_iter().map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    })
}

/// What the objects of some rows are made with, beside the rows.
#[derive(Default)]
struct Made {
    resource: Arc<str>,
    references: References,
}

fn decode(decode_row: &DecodeRow<'_>, key: &str, value: &[u8], made: &mut Made) -> Result<Object, RowError> {
    let (resource, name) = key.split_once('/').ok_or(RowError::NoResource)?;
    let (revision, json) = value.split_first_chunk::<8>().ok_or(RowError::Cut)?;
    let draft = decode_row(resource, name, json)?;
    if *made.resource != *resource {
        made.resource = resource.into();
    }
    let references = (&made.resource, &mut made.references);
    Ok(Object::kept(draft, u64::from_be_bytes(*revision), EventType::Added, references))
}
