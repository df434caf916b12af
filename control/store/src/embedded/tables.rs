//! The tables of the store: a redb database of objects by key, and the revision of the last write in them.
//!
//! They hold what the write-ahead log had up to some moment. It is decided here how changes come in and how the database
//! comes back after an I/O error; never what is written.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    hash::{BuildHasher, RandomState},
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    WriteTransaction,
};
use tracing::warn;

use super::{
    change_log::{self, LogSize, Records},
    disk::{forget_cached_pages, sync_parent},
    file::FileError,
    quarantine::{self, Loaded, Moves, RowReader},
    row::RowChange,
};
use crate::EventType;

/// `resource/name` → revision (8 bytes, big endian), then JSON text.
pub const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
/// `revision` → the revision of the last write; `layout` → [`LAYOUT`]; `store` → a random number of the store.
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Resource → the revision of its last write. Valid for writes after `changes_since` in [`META`], while `changes_at`
/// there equals the store's revision: an older program, which does not know this table, advances the revision alone.
const CHANGES: TableDefinition<&str, u64> = TableDefinition::new("changes");
/// Version of what stands in the file. A store of a newer layout is not opened. Since 2 the latest writes may be in the
/// write-ahead log alone, of which an older program knows nothing.
pub const LAYOUT: u64 = 2;
/// All reads are answered from memory; the cache only serves the write path.
const CACHE_BYTES: usize = 16 << 20;

/// The revision of the last write to each resource, as far as the file knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LastChanges {
    by_resource: HashMap<String, u64>,
    /// Resources that are not named had no write after it.
    others: u64,
}

impl LastChanges {
    /// Of a store whose last write is at `revision`, when nothing else is known.
    pub fn unknown(revision: u64) -> Self {
        Self { by_resource: HashMap::new(), others: revision }
    }

    /// No write to `resource` came after this revision.
    pub fn of(&self, resource: &str) -> u64 {
        self.by_resource.get(resource).copied().unwrap_or(self.others)
    }
}

/// Opens or makes the database where its bytes are kept.
pub type OpenDatabase = Box<dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send>;

/// The open database, or none after an I/O error until the next [`Tables::apply`] opens it again.
pub struct Tables {
    path: PathBuf,
    open_database: OpenDatabase,
    database: Option<Database>,
    /// The random number of the store.
    store: u64,
    /// The revision of the last write in the tables.
    revision: u64,
    /// [`CHANGES`] is valid.
    knows_changes: bool,
    /// [`change_log::LOG`] is right.
    knows_log: bool,
    /// How much is in it, as far as known.
    log_size: Option<LogSize>,
    /// Rows that the next changes move. The store is at their revision already, the tables are not.
    moves: Option<Moves>,
}

/// What of a set of changes is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All, and the changes are added to the log of changes.
    WithLog,
    /// All, and the log of changes is emptied.
    WithoutLog,
    /// Deletions alone. The tables' revision stays: all changes come once more.
    Deletions,
}

impl Tables {
    /// Opens or makes the database in the file `path`.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        if !path.exists() {
            create(path).map_err(|source| FileError::redb("create", path, source))?;
        }
        let at = path.to_owned();
        let open = move |builder: &Builder| {
            forget_cached_pages(&fs::File::open(&at).map_err(DatabaseError::from)?).map_err(DatabaseError::from)?;
            builder.open(&at)
        };
        Self::open_with(path, Box::new(open))
    }

    /// Opens or makes the database with `open_database`; `name` is what errors call it.
    pub fn open_with(name: &Path, open_database: OpenDatabase) -> Result<Self, FileError> {
        let mut tables = Self {
            path: name.to_owned(),
            open_database,
            database: None,
            store: 0,
            revision: 0,
            knows_changes: false,
            knows_log: false,
            log_size: None,
            moves: None,
        };
        tables.reopen()?;
        Ok(tables)
    }

    /// A random number that the store has from its beginning.
    pub fn store(&self) -> u64 {
        self.store
    }

    /// The revision of the last write in the tables.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision that the store has with the rows where they belong.
    pub fn moved_revision(&self) -> u64 {
        self.moves.as_ref().map_or(0, |moves| moves.revision)
    }

    /// Opens the database again if an error closed it.
    fn reopen(&mut self) -> Result<(), FileError> {
        if self.database.is_some() {
            return Ok(());
        }
        let opened = open(&self.open_database).map_err(|source| self.error("open", source))?;
        if opened.layout > LAYOUT {
            return Err(FileError::Layout { path: self.path.clone(), found: opened.layout });
        }
        (self.database, self.revision, self.store) = (Some(opened.database), opened.revision, opened.store);
        self.moves.take_if(|moves| moves.revision <= opened.revision);
        Ok(())
    }

    /// Reads every object as it is after `newer`, and finds those that cannot be read; the next changes move them aside.
    pub fn load(&mut self, newer: &[RowChange], reader: &mut RowReader<'_>) -> Result<Loaded, FileError> {
        self.reopen()?;
        let Some(database) = &self.database else { return Err(self.error("read", redb::Error::DatabaseClosed)) };
        let (loaded, moves) = quarantine::load(database, newer, reader).map_err(|source| self.error("read", source))?;
        self.moves = moves;
        Ok(loaded)
    }

    /// Whether rows wait to be moved aside.
    pub fn has_moves(&self) -> bool {
        self.moves.is_some()
    }

    /// When each resource was written last, in a store whose last write is at `revision`.
    pub fn last_changes(&mut self, revision: u64) -> Result<LastChanges, FileError> {
        self.reopen()?;
        let Some(database) = &self.database else { return Err(self.error("read", redb::Error::DatabaseClosed)) };
        let known = last_changes(database, revision).map_err(|source| self.error("read", source))?;
        self.knows_changes = known.is_some();
        Ok(known.unwrap_or_else(|| LastChanges::unknown(revision)))
    }

    /// The latest changes, up to the revision of the last write; nothing where the file does not know them.
    pub fn change_log(&mut self, revision: u64) -> Result<Option<Records>, FileError> {
        self.reopen()?;
        // Without the log, watches begin at the last change of their resource.
        let Some(database) = &self.database else { return Ok(None) };
        let records = read_log(database, revision).unwrap_or_else(|error| {
            warn!(%error, "cannot read the log of changes; clients will list again");
            None
        });
        self.knows_log = records.is_some();
        Ok(records)
    }

    /// Writes changes in the order of their revisions, durably. They may be written already, in part or in whole.
    ///
    /// On a full disk deletions come first, and the log of changes is given up: what is to make space must not need it.
    pub fn apply(&mut self, changes: &[RowChange]) -> Result<(), FileError> {
        self.reopen()?;
        let Err(error) = self.write(changes, Part::WithLog) else { return Ok(()) };
        let deletes = changes.iter().any(|change| change.event_type == EventType::Deleted);
        if !error.no_space() || !deletes {
            return Err(error);
        }
        for part in [Part::Deletions, Part::WithoutLog] {
            self.reopen()?;
            self.write(changes, part)?;
        }
        Ok(())
    }

    /// An error closes the database.
    fn write(&mut self, changes: &[RowChange], part: Part) -> Result<(), FileError> {
        let Some(database) = &self.database else {
            return Err(self.error("write to", redb::Error::DatabaseClosed));
        };
        let log_size = self.log_size.take();
        let known = Known { changes: self.knows_changes, log: self.knows_log, log_size };
        // A panic in the database must not end the thread, and with it all writes.
        let made =
            std::panic::catch_unwind(AssertUnwindSafe(|| write(database, self.moves.as_ref(), changes, known, part)));
        match made.unwrap_or_else(|_| Err(redb::Error::Corrupted("the database panicked".into()))) {
            Ok(log_size) => {
                if part != Part::Deletions {
                    self.revision = changes.last().map_or(self.revision, |change| change.revision);
                    self.revision = self.revision.max(self.moved_revision());
                    self.moves = None;
                    self.knows_changes |= !changes.is_empty();
                    self.knows_log |= !changes.is_empty();
                    self.log_size = log_size;
                }
                Ok(())
            }
            Err(source) => {
                self.database = None;
                Err(self.error("write to", source))
            }
        }
    }

    fn error(&self, operation: &'static str, source: redb::Error) -> FileError {
        FileError::redb(operation, &self.path, source)
    }
}

/// Makes an empty database. It gets its name when it is complete: a crash leaves no file that cannot be opened.
fn create(path: &Path) -> Result<(), redb::Error> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    drop(Builder::new().create(&unfinished)?);
    fs::rename(&unfinished, path)?;
    sync_parent(path)?;
    Ok(())
}

/// What an opened database says of itself.
struct Opened {
    database: Database,
    revision: u64,
    layout: u64,
    store: u64,
}

fn open(open_database: &OpenDatabase) -> Result<Opened, redb::Error> {
    let database = open_database(Builder::new().set_cache_size(CACHE_BYTES))?;
    let transaction = database.begin_write()?;
    let (revision, layout, store, changed) = {
        transaction.open_table(OBJECTS)?;
        let mut meta = transaction.open_table(META)?;
        let layout = meta.get("layout")?.map(|value| value.value());
        let known = meta.get("store")?.map(|value| value.value());
        let store = known.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()));
        if layout.is_none() {
            meta.insert("revision", 0)?;
        }
        let is_older = layout.is_none_or(|layout| layout < LAYOUT);
        if is_older {
            meta.insert("layout", LAYOUT)?;
            meta.insert("store", store)?;
        }
        let revision = meta.get("revision")?.map_or(0, |value| value.value());
        (revision, layout.map_or(LAYOUT, |layout| layout.max(LAYOUT)), store, is_older)
    };
    if changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(Opened { database, revision, layout, store })
}

/// What [`CHANGES`] says; `None` where it is not valid.
fn last_changes(database: &Database, revision: u64) -> Result<Option<LastChanges>, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name: &str| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value()));
    let (Some(others), Some(at)) = (number("changes_since")?, number("changes_at")?) else { return Ok(None) };
    if at != revision {
        return Ok(None);
    }
    let mut by_resource = HashMap::new();
    for entry in transaction.open_table(CHANGES)?.iter()? {
        let (resource, last) = entry?;
        by_resource.insert(resource.value().to_owned(), last.value());
    }
    Ok(Some(LastChanges { by_resource, others }))
}

/// What the log says; nothing where it is not right.
fn read_log(database: &Database, revision: u64) -> Result<Option<Records>, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name: &str| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value()));
    match (number("history_since")?, number("history_at")?) {
        (Some(since), Some(at)) if at == revision => {
            Ok(Some(Records::read(&transaction.open_table(change_log::LOG)?, since)?))
        }
        _ => Ok(None),
    }
}

/// Which tables beside the objects are right.
struct Known {
    changes: bool,
    log: bool,
    log_size: Option<LogSize>,
}

/// Writes changes; answers with the size of the log after them, as far as known.
fn write(
    database: &Database,
    moves: Option<&Moves>,
    changes: &[RowChange],
    known: Known,
    part: Part,
) -> Result<Option<LogSize>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|e| redb::Error::from(StorageError::Corrupted(e.to_string())))?;
    let log_size = match part {
        Part::Deletions => {
            write_objects(&transaction, changes, true)?;
            None
        }
        Part::WithLog | Part::WithoutLog => {
            if let Some(moves) = moves {
                moves.make(&transaction)?;
            }
            let size = write_changes(&transaction, changes, &known, part == Part::WithLog)?;
            write_objects(&transaction, changes, false)?;
            let mut meta = transaction.open_table(META)?;
            let last = changes.last().map(|change| change.revision).max(moves.map(|moves| moves.revision));
            if let Some(revision) = last {
                meta.insert("revision", revision)?;
            }
            size.or(known.log_size)
        }
    };
    transaction.commit()?;
    Ok(log_size)
}

/// Brings the table of objects to what it is after all changes.
fn write_objects(
    transaction: &WriteTransaction,
    changes: &[RowChange],
    deletions_only: bool,
) -> Result<(), redb::Error> {
    let mut objects = transaction.open_table(OBJECTS)?;
    let latest: BTreeMap<&str, &RowChange> = changes.iter().map(|change| (&*change.key, change)).collect();
    for (key, change) in latest {
        match change.value() {
            None => drop(objects.remove(key)?),
            Some(_) if deletions_only => {}
            Some(value) => drop(objects.insert(key, value.as_slice())?),
        }
    }
    Ok(())
}

/// Tells the tables beside the objects of changes that the objects do not have yet.
fn write_changes(
    transaction: &WriteTransaction,
    changes: &[RowChange],
    known: &Known,
    with_log: bool,
) -> Result<Option<LogSize>, redb::Error> {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return Ok(None) };
    let (mut meta, mut last_of) = (transaction.open_table(META)?, transaction.open_table(CHANGES)?);
    let mut log = transaction.open_table(change_log::LOG)?;
    let whole = with_previous(&transaction.open_table(OBJECTS)?, changes)?;
    let whole = whole.filter(|_| with_log);
    let mut size = match (known.log, &whole, known.log_size) {
        (true, Some(_), Some(size)) => size,
        (true, Some(_), None) => LogSize::of(&log)?,
        (false, _, _) | (true, None, _) => {
            change_log::clear(&mut log)?;
            meta.insert("history_since", first.revision.saturating_sub(1))?;
            LogSize::default()
        }
    };
    let dropped = match &whole {
        Some(changes) => change_log::append(&mut log, changes, &mut size)?,
        None => Some(last.revision),
    };
    if let Some(dropped) = dropped {
        meta.insert("history_since", dropped)?;
    }
    meta.insert("history_at", last.revision)?;
    if !known.changes {
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
    let mut before: HashMap<&str, (u64, Bytes)> = HashMap::new();
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
) -> Result<Option<(u64, Bytes)>, redb::Error> {
    let Some(row) = objects.get(key)? else { return Ok(None) };
    let split = row.value().split_first_chunk::<8>();
    Ok(split.map(|(revision, json)| (u64::from_be_bytes(*revision), Bytes::copy_from_slice(json))))
}
