//! A copy of the tables without the space that they do not use any more: a database gives none of it back, and what is
//! left of a larger one would be read with each start.
//!
//! The copy takes the place of the file in one step, when it is whole and durable. It is written a part at a time, and
//! a stop that is cut short leaves the parts that are durable: the next one compares them with the file, which may have
//! changed since, and writes only what differs. So the copy is done in the end, however little time a stop has.

use std::{
    cmp::Ordering,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use redb::{
    AccessGuard, Builder, Database, Durability, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTableMetadata, TableDefinition, TableError, TableHandle, Value,
};
use tracing::{debug, info, warn};

use super::{
    disk::{self, sync_parent},
    freed_texts::FreedTexts,
    last_changes::LAST_CHANGES,
    quarantine::QUARANTINE,
    stored_base::BASES,
    stored_history::HISTORY,
    tables::{CACHE_BYTES, META, OBJECTS},
};

/// How many bytes of rows become durable together, about.
const BYTES_AT_ONCE: usize = 8 << 20;
/// What stays free of a disk beside a copy: its pages are written anew as it grows, and others have files there.
const SPARE: u64 = 2 * BYTES_AT_ONCE as u64;

/// Why there is no copy. What there is of one is removed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A copy would lack a table: the newer program that made it can make the copy.
    #[error("this program does not know all of its tables, and a copy would lack them")]
    UnknownTable,
    /// It is not begun, since the disk would be full before it is whole: make space.
    #[error("a copy needs about {needed} bytes, and {free} are free")]
    NoRoom {
        /// Bytes of the copy, with what is to stay free.
        needed: u64,
        /// Bytes that are free, with those of the part that was there.
        free: u64,
    },
    /// The database failed, or its disk did.
    #[error(transparent)]
    Redb(#[from] redb::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Redb(error.into())
    }
}

/// Where the copy of the file `path` is made.
pub fn path_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".copy");
    name.into()
}

/// What earlier stops made of a copy. It waits for the next stop, and is given up where its space is needed before.
#[derive(Clone, Debug, Default)]
pub struct UnfinishedCopy(Arc<Mutex<Option<PathBuf>>>);

impl UnfinishedCopy {
    /// Of the file `path`.
    pub fn of(path: &Path) -> Self {
        Self(Arc::new(Mutex::new(Some(path_of(path)).filter(|copy| copy.exists()))))
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Removes it, for an operation that found the disk full; `true` if there is more space now. A second call does
    /// nothing: where removing fails, the next stop goes on with the copy.
    pub fn give_up(&self) -> bool {
        let Some(copy) = self.0.lock().take() else { return false };
        match fs::remove_file(&copy) {
            Ok(()) => {
                warn!(path = %copy.display(), "the disk is full; a part of a copy was removed to make space");
                true
            }
            Err(error) => {
                warn!(%error, path = %copy.display(), "the disk is full, and a part of a copy cannot be removed");
                false
            }
        }
    }
}

/// Puts a copy in the place of the file `path`, whose database is open. It is not begun where that comes to nothing:
/// each stop would write until the disk is full, and others would find it so.
pub fn replace(database: Database, path: &Path) -> Result<(), CopyError> {
    let at = path_of(path);
    if has_unknown_table(&database)? {
        return Err(CopyError::UnknownTable);
    }
    let part = fs::metadata(&at).map_or(0, |part| part.len());
    check_room(&database, path, disk::free_bytes(path)?.saturating_add(part))?;
    let copy = open_or_begin(&at, path)?;
    update(&database, &copy)?;
    // Its free places never had what those of the file have. Last: until it has the name, the file says so.
    FreedTexts::None.commit(&copy)?;
    drop(copy);
    // The lock of the old file is held until the new one has its name: nobody writes to a file that is to go.
    fs::rename(&at, path)?;
    sync_parent(path)?;
    drop(database);
    Ok(())
}

/// Whether so many free bytes do for a copy. No copy is longer than the file, whose rows are looked through only where
/// that is not free.
pub fn check_room(database: &Database, path: &Path, free: u64) -> Result<(), CopyError> {
    let longest = fs::metadata(path)?.len().saturating_add(SPARE);
    if free >= longest {
        return Ok(());
    }
    let from = database.begin_read().map_err(redb::Error::from)?;
    let tables = [
        bytes_of(&from, OBJECTS)?,
        bytes_of(&from, BASES)?,
        bytes_of(&from, HISTORY)?,
        bytes_of(&from, QUARANTINE)?,
        bytes_of(&from, META)?,
        bytes_of(&from, LAST_CHANGES)?,
    ];
    let needed = tables.into_iter().fold(SPARE, u64::saturating_add).min(longest);
    if free >= needed { Ok(()) } else { Err(CopyError::NoRoom { needed, free }) }
}

/// How many bytes a table's rows take, with the pages that lead to them.
fn bytes_of<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<u64, redb::Error> {
    let Some(table) = open(from, definition)? else { return Ok(0) };
    let stats = table.stats()?;
    Ok(stats.stored_bytes().saturating_add(stats.metadata_bytes()))
}

/// Removes what there is of a copy.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what there is of a copy of the file `path`, durably.
pub fn discard(path: &Path) -> Result<(), redb::Error> {
    remove(&path_of(path))?;
    Ok(sync_parent(path)?)
}

/// What an earlier stop made of the copy, or an empty one that those may read who may read the file `original`.
fn open_or_begin(path: &Path, original: &Path) -> Result<Database, redb::Error> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    if path.exists() {
        match builder.open(path) {
            Ok(copy) if !has_unknown_table(&copy)? => {
                info!(path = %path.display(), "a copy of the store is made to its end");
                return Ok(copy);
            }
            Ok(_) => debug!("a part of a copy has unknown tables; it is begun anew"),
            Err(error) => debug!(%error, "a part of a copy cannot be opened; it is begun anew"),
        }
        remove(path)?;
    }
    let copy = builder.create(path)?;
    fs::set_permissions(path, fs::metadata(original)?.permissions())?;
    Ok(copy)
}

fn has_unknown_table(database: &Database) -> Result<bool, redb::Error> {
    let known = [OBJECTS.name(), BASES.name(), HISTORY.name(), QUARANTINE.name(), META.name(), LAST_CHANGES.name()];
    let tables = database.begin_read()?;
    let has_unknown = tables.list_tables()?.any(|table| !known.contains(&table.name()));
    Ok(has_unknown || tables.list_multimap_tables()?.next().is_some())
}

/// Makes the tables of `copy` what those of `database` are, durably.
pub fn update(database: &Database, copy: &Database) -> Result<(), redb::Error> {
    let from = database.begin_read()?;
    update_table(&from, copy, OBJECTS)?;
    update_table(&from, copy, BASES)?;
    update_table(&from, copy, HISTORY)?;
    update_table(&from, copy, QUARANTINE)?;
    update_table(&from, copy, META)?;
    update_table(&from, copy, LAST_CHANGES)
}

/// A row that the copy lacks or has otherwise; without a value, one that only the copy has.
type Difference<K, V> = (AccessGuard<'static, K>, Option<AccessGuard<'static, V>>);

fn update_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    copy: &Database,
    definition: TableDefinition<'_, K, V>,
) -> Result<(), redb::Error> {
    let earlier = copy.begin_read()?;
    let (rows, copied) = (open(from, definition)?, open(&earlier, definition)?);
    if rows.is_none() && copied.is_none() {
        return Ok(());
    }
    let is_new = copied.is_none();
    let mut rows = rows.map(|table| table.range::<K::SelfType<'static>>(..)).transpose()?.into_iter().flatten();
    let mut copied = copied.map(|table| table.range::<K::SelfType<'static>>(..)).transpose()?.into_iter().flatten();
    let (mut row, mut old) = (rows.next().transpose()?, copied.next().transpose()?);
    let (mut differences, mut bytes): (Vec<Difference<K, V>>, usize) = (Vec::new(), 0);
    loop {
        let order = match (&row, &old) {
            (None, None) => break,
            (Some((key, _)), Some((known, _))) => compare::<K>(&key.value(), &known.value()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let taken = match order {
            Ordering::Less => std::mem::replace(&mut row, rows.next().transpose()?),
            Ordering::Greater => {
                let gone = std::mem::replace(&mut old, copied.next().transpose()?);
                if let Some((key, _)) = gone {
                    bytes = bytes.saturating_add(K::as_bytes(&key.value()).as_ref().len());
                    differences.push((key, None));
                }
                None
            }
            Ordering::Equal => {
                let known = std::mem::replace(&mut old, copied.next().transpose()?);
                let taken = std::mem::replace(&mut row, rows.next().transpose()?);
                taken
                    .zip(known)
                    .filter(|(new, known)| !is_same::<V>(&new.1.value(), &known.1.value()))
                    .map(|(new, _)| new)
            }
        };
        if let Some((key, value)) = taken {
            let length = V::as_bytes(&value.value()).as_ref().len();
            bytes = bytes.saturating_add(K::as_bytes(&key.value()).as_ref().len()).saturating_add(length);
            differences.push((key, Some(value)));
        }
        if bytes >= BYTES_AT_ONCE {
            write(copy, definition, differences.drain(..))?;
            bytes = 0;
        }
    }
    if is_new || !differences.is_empty() {
        write(copy, definition, differences.drain(..))?;
    }
    Ok(())
}

/// Makes differences a part of the copy, durably.
fn write<K: Key + 'static, V: Value + 'static>(
    copy: &Database,
    definition: TableDefinition<'_, K, V>,
    differences: impl Iterator<Item = Difference<K, V>>,
) -> Result<(), redb::Error> {
    let mut transaction = copy.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    // A part of a copy is opened again without reading all of it.
    transaction.set_quick_repair(true);
    {
        let mut table = transaction.open_table(definition)?;
        for (key, value) in differences {
            match value {
                Some(value) => drop(table.insert(key.value(), value.value())?),
                None => drop(table.remove(key.value())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The table, if there is one.
fn open<K: Key + 'static, V: Value + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, redb::Error> {
    match transaction.open_table(definition) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn compare<K: Key>(a: &K::SelfType<'_>, b: &K::SelfType<'_>) -> Ordering {
    K::compare(K::as_bytes(a).as_ref(), K::as_bytes(b).as_ref())
}

fn is_same<V: Value>(a: &V::SelfType<'_>, b: &V::SelfType<'_>) -> bool {
    V::as_bytes(a).as_ref() == V::as_bytes(b).as_ref()
}
