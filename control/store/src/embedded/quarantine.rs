//! Rows of the file that this program cannot read: moved aside at the opening, with their bytes, so that one of them
//! stops neither the others nor the program, and no later write takes their place unseen.
//!
//! Each opening tries them again: a program that can read one puts it back, if its key is still free.
//!
//! On a full disk nothing can be moved at the opening. The next checkpoint does it then, before all else.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use tracing::{info, warn};

use super::{
    loading::{self, Row},
    row::RowChange,
    stored_header::{HEADERS, Made, ObjectMaker},
    tables::{META, OBJECTS},
};
use crate::{Decode, Object};

/// As the objects: key → revision and JSON text, whatever is left of them.
const QUARANTINE: TableDefinition<&str, &[u8]> = TableDefinition::new("quarantine");

/// What becomes of rows that are read.
pub struct RowReader<'a> {
    /// Makes the objects.
    pub decode: &'a dyn Decode,
    /// Takes an object of a resource, with its key in it.
    pub keep: &'a mut dyn FnMut(&str, &str, Arc<Object>),
}

/// Why a row of the file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
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

/// What an opening found to be done by the next changes.
#[derive(Default)]
pub struct Found {
    /// Rows to be moved.
    pub moves: Option<Moves>,
    /// Objects whose headers the file lacks, by their keys.
    pub without_header: Vec<(Box<str>, Weak<Object>)>,
}

/// Reads every row; those that cannot be read are reported, and are to be moved aside.
///
/// `newer` are writes that the tables lack. Of them, too, those that cannot be read are reported; they are moved at the
/// next opening after the tables have them.
pub fn load(
    database: &Database,
    newer: &[RowChange],
    reader: &mut RowReader<'_>,
) -> Result<(Loaded, Found), redb::Error> {
    let mut loaded = Loaded::default();
    let (mut moves, mut without_header) = (Moves::default(), Vec::new());
    let transaction = database.begin_read()?;
    let objects = transaction.open_table(OBJECTS)?;
    let newest: HashMap<&str, &RowChange> = newer.iter().map(|change| (&*change.key, change)).collect();
    let headers = match transaction.open_table(HEADERS) {
        Err(TableError::TableDoesNotExist(_)) => None,
        opened => Some(opened?),
    };
    let mut headers =
        headers.iter().map(|headers| headers.iter()).collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
    let mut header = headers.next().transpose()?;
    let rows = objects.iter()?.map(|entry| {
        let (key, value) = entry?;
        // Both tables have the same order.
        while header.as_ref().is_some_and(|(of, _)| of.value() < key.value()) {
            header = headers.next().transpose()?;
        }
        let own = header.as_ref().filter(|(of, _)| of.value() == key.value());
        let header = own.map(|(_, row)| row.value().to_vec());
        Ok::<_, redb::Error>(Row { key: key.value().to_owned(), value: value.value().to_vec(), header })
    });
    let rows = rows.filter(|row| !matches!(row, Ok(row) if newest.contains_key(&*row.key)));
    loading::make_all(reader.decode, rows, &mut |(key, made)| {
        moves.unreadable.extend(reader.take_or_report(key, made, &mut without_header));
    })?;
    let newer_rows = newest.iter().filter_map(|(key, change)| {
        Some(Ok::<_, redb::Error>(Row { key: (*key).to_owned(), value: change.value()?, header: None }))
    });
    loading::make_all(reader.decode, newer_rows, &mut |(key, made)| {
        loaded.quarantined += u64::from(reader.take_or_report(key, made, &mut Vec::new()).is_some());
    })?;
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
        return Ok((loaded, Found { moves: None, without_header }));
    }
    // No watch saw the objects go or come: at a new revision, all clients list again.
    loaded.revision += 1;
    loaded.quarantined = loaded.quarantined + moves.unreadable.len() as u64 - moves.readable.len() as u64;
    moves.revision = loaded.revision;
    Ok((loaded, Found { moves: Some(moves), without_header }))
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
    /// Takes what was made of a row; answers with its key if that cannot be read.
    fn take_or_report(
        &mut self,
        key: String,
        made: Result<Made, RowError>,
        without_header: &mut Vec<(Box<str>, Weak<Object>)>,
    ) -> Option<String> {
        match made.and_then(|made| self.take(&key, made)) {
            Ok(object) => {
                without_header.extend(object.map(|object| (key.into(), object)));
                None
            }
            Err(error) => {
                warn!(key, %error, "a stored object cannot be read; it is kept aside, and not served");
                Some(key)
            }
        }
    }

    fn read_one(&mut self, key: &str, value: &[u8]) -> Result<(), RowError> {
        let made = loading::make(&mut ObjectMaker::new(self.decode), key, value, None)?;
        self.take(key, made).map(drop)
    }

    /// Answers with the object if the file lacks its header.
    fn take(&mut self, key: &str, made: Made) -> Result<Option<Weak<Object>>, RowError> {
        let (resource, name) = key.split_once('/').ok_or(RowError::NoResource)?;
        let object = Arc::new(made.object);
        let lacking = made.lacks_header.then(|| Arc::downgrade(&object));
        (self.keep)(resource, name, object);
        Ok(lacking)
    }
}
