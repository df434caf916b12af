//! A copy of the tables without the space that they do not use any more: a database gives none of it back, and what is
//! left of a larger one would be read with each start.
//!
//! The copy takes the place of the file in one step, when it is whole and durable. A crash before leaves the file as it
//! was, beside a part of the copy, which the next opening removes.

use std::{fs, io, path::Path};

use redb::{
    Builder, Database, Durability, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    TableHandle, Value, WriteTransaction,
};

use super::{
    quarantine::QUARANTINE,
    stored_base::BASES,
    stored_history::HISTORY,
    tables::{CACHE_BYTES, LAST_CHANGES, META, OBJECTS},
};

/// Writes the copy to a file of its own, durably. Answers with false where the database has a table that this program
/// does not know, so that a copy would lack it.
pub fn write(database: &Database, path: &Path) -> Result<bool, redb::Error> {
    let from = database.begin_read()?;
    let known = [OBJECTS.name(), BASES.name(), HISTORY.name(), QUARANTINE.name(), META.name(), LAST_CHANGES.name()];
    if from.list_tables()?.any(|table| !known.contains(&table.name())) || from.list_multimap_tables()?.next().is_some()
    {
        return Ok(false);
    }
    remove(path)?;
    let copy = Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
    let mut to = copy.begin_write()?;
    to.set_durability(Durability::Immediate)?;
    to.set_quick_repair(true);
    copy_table(&from, &to, OBJECTS)?;
    copy_table(&from, &to, BASES)?;
    copy_table(&from, &to, HISTORY)?;
    copy_table(&from, &to, QUARANTINE)?;
    copy_table(&from, &to, META)?;
    copy_table(&from, &to, LAST_CHANGES)?;
    to.commit()?;
    Ok(true)
}

/// Removes a copy, if there is one.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<(), redb::Error> {
    let rows = match from.open_table(definition) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        opened => opened?,
    };
    let mut copy = to.open_table(definition)?;
    for row in rows.iter()? {
        let (key, value) = row?;
        copy.insert(key.value(), value.value())?;
    }
    Ok(())
}
