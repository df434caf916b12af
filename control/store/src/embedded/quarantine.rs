//! Rows of the file that this program cannot read: moved aside at the opening, with their bytes, so that one of them
//! stops neither the others nor the program, and no later write takes their place unseen.
//!
//! Each opening tries them again: a program that can read one puts it back, if its key is still free.
//!
//! On a full disk nothing can be moved at the opening. The first write that succeeds does it then, in its own
//! transaction and before all else.

use std::collections::HashMap;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use tracing::{info, warn};

use super::{
    row::RowChange,
    tables::{META, OBJECTS},
};

/// As the objects: key → revision and JSON text, whatever is left of them.
const QUARANTINE: TableDefinition<&str, &[u8]> = TableDefinition::new("quarantine");

/// Reads one row: the resource, the key in it, the revision, the JSON text.
pub type ReadRow<'a> = dyn FnMut(&str, &str, u64, &[u8]) -> Result<(), serde_json::Error> + 'a;

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
/// `newer` are writes that the tables lack. Of them, too, those that cannot be read are reported; they are moved once the
/// tables have them.
pub fn load(
    database: &Database,
    newer: &[RowChange],
    read: &mut ReadRow<'_>,
) -> Result<(Loaded, Option<Moves>), redb::Error> {
    let mut loaded = Loaded::default();
    let mut moves = Moves::default();
    let transaction = database.begin_read()?;
    let objects = transaction.open_table(OBJECTS)?;
    let newest: HashMap<&str, &RowChange> = newer.iter().map(|change| (&*change.key, change)).collect();
    for entry in objects.iter()? {
        let (key, value) = entry?;
        if newest.contains_key(key.value()) {
            continue;
        }
        if let Err(error) = read_row(read, key.value(), value.value()) {
            warn!(key = key.value(), %error, "a stored object cannot be read; it is kept aside, and not served");
            moves.unreadable.push(key.value().to_owned());
        }
    }
    for (key, change) in &newest {
        let Some(value) = change.value() else { continue };
        if let Err(error) = read_row(read, key, &value) {
            warn!(key, %error, "a stored object cannot be read; it is not served");
            loaded.quarantined += 1;
        }
    }
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
                match read_row(read, key.value(), value.value()) {
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

fn read_row(read: &mut ReadRow<'_>, key: &str, value: &[u8]) -> Result<(), RowError> {
    let (resource, name) = key.split_once('/').ok_or(RowError::NoResource)?;
    let (revision, json) = value.split_first_chunk::<8>().ok_or(RowError::Cut)?;
    Ok(read(resource, name, u64::from_be_bytes(*revision), json)?)
}
