//! The store's file: a redb database of objects by key, and the revision of the last write.
//!
//! It decides how a batch becomes durable and how the file comes back after an I/O error; never what is written.
//!
//! `tests/power_loss.rs` shows how durable a batch is: at each step it drops everything that was not synced.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::fd::AsRawFd,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

use tracing::warn;

use super::{
    change_log::{self, LogSize, Records},
    quarantine::{self, Loaded, Moves, ReadRow},
};
use crate::{CommitError, Event, EventType};

/// `resource/name` → revision (8 bytes, big endian), then JSON text.
pub const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
/// `revision` → the revision of the last write; `layout` → [`LAYOUT`].
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Resource → the revision of its last write. Valid for writes after `changes_since` in [`META`], while `changes_at`
/// there equals the store's revision: an older program, which does not know this table, advances the revision alone.
const CHANGES: TableDefinition<&str, u64> = TableDefinition::new("changes");
/// Version of what stands in the tables. A store of a newer layout is not opened.
const LAYOUT: u64 = 1;
/// All reads are answered from memory; the cache only serves the write path.
const CACHE_BYTES: usize = 16 << 20;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The database failed, or its disk did.
    #[error("cannot {operation} the store {}", path.display())]
    Redb {
        /// What was tried.
        operation: &'static str,
        /// The store's file.
        path: PathBuf,
        /// What redb said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A newer program wrote the file: use that one.
    #[error("the store {} has layout {found}; this program knows layouts up to {LAYOUT}", path.display())]
    Layout {
        /// The store's file.
        path: PathBuf,
        /// The layout's number in the file.
        found: u64,
    },
}

impl FileError {
    fn new(operation: &'static str, path: &Path, source: redb::Error) -> Self {
        Self::Redb { operation, path: path.to_owned(), source: Box::new(source) }
    }

    /// Whether the disk is full.
    pub fn no_space(&self) -> bool {
        let Self::Redb { source, .. } = self else { return false };
        matches!(&**source, redb::Error::Io(e)
            if matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    }

    /// What the writers of a batch that failed are told.
    pub fn for_writers(&self) -> CommitError {
        match self {
            error if error.no_space() => match error {
                Self::Redb { path, .. } | Self::Layout { path, .. } => {
                    CommitError::Full { path: path.display().to_string() }
                }
            },
            Self::Redb { source, .. } => CommitError::Unavailable { message: format!("{self}: {source}") },
            _ => CommitError::Unavailable { message: self.to_string() },
        }
    }
}

/// The open database, or none after an I/O error until the next write opens it again.
pub struct File {
    path: PathBuf,
    open_database: OpenDatabase,
    database: Option<Database>,
    /// [`CHANGES`] is valid.
    knows_changes: bool,
    /// [`change_log::LOG`] is right.
    knows_log: bool,
    /// How much is in it, as far as known.
    log_size: Option<LogSize>,
    /// Rows that the next commit moves. The store is at their revision already, the file is not.
    moves: Option<Moves>,
    /// The next commit empties the log, and does not write to it.
    without_log: bool,
}

/// The revision of the last write to each resource, as far as the file knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LastChanges {
    by_resource: HashMap<String, u64>,
    /// Resources that are not named had no write after it.
    others: u64,
}

impl LastChanges {
    /// No write to `resource` came after this revision.
    pub fn of(&self, resource: &str) -> u64 {
        self.by_resource.get(resource).copied().unwrap_or(self.others)
    }
}

/// Opens or makes the database where its bytes are kept.
pub type OpenDatabase = Box<dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send>;

impl File {
    /// Opens or makes the file `path`.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        if !path.exists() {
            create(path).map_err(|source| FileError::new("create", path, source))?;
        }
        let at = path.to_owned();
        let open = move |builder: &Builder| {
            forget_cached_pages(&at)?;
            builder.open(&at)
        };
        Self::open_with(path, Box::new(open))
    }

    /// Opens or makes the database with `open_database`; `name` is what errors call it.
    pub fn open_with(name: &Path, open_database: OpenDatabase) -> Result<Self, FileError> {
        let mut file = Self {
            path: name.to_owned(),
            open_database,
            database: None,
            knows_changes: false,
            knows_log: false,
            log_size: None,
            moves: None,
            without_log: false,
        };
        file.reopen()?;
        Ok(file)
    }

    /// Opens the database again if an error closed it, and then returns the revision that the store has with the last
    /// durable write.
    pub fn reopen(&mut self) -> Result<Option<u64>, FileError> {
        if self.database.is_some() {
            return Ok(None);
        }
        let open = || -> Result<(Database, u64, u64), redb::Error> {
            let database = (self.open_database)(Builder::new().set_cache_size(CACHE_BYTES))?;
            let transaction = database.begin_write()?;
            let (revision, layout, fresh) = {
                transaction.open_table(OBJECTS)?;
                let mut meta = transaction.open_table(META)?;
                let layout = meta.get("layout")?.map(|v| v.value());
                if layout.is_none() {
                    meta.insert("layout", LAYOUT)?;
                    meta.insert("revision", 0)?;
                }
                let revision = meta.get("revision")?.map_or(0, |v| v.value());
                (revision, layout.unwrap_or(LAYOUT), layout.is_none())
            };
            if fresh {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok((database, revision, layout))
        };
        let (database, revision, layout) = open().map_err(|source| self.error("open", source))?;
        if layout > LAYOUT {
            return Err(FileError::Layout { path: self.path.clone(), found: layout });
        }
        self.database = Some(database);
        self.moves.take_if(|moves| moves.revision <= revision);
        Ok(Some(self.moves.as_ref().map_or(revision, |moves| moves.revision)))
    }

    /// Reads every object, and moves those aside that cannot be read; on a full disk, the next commit does.
    pub fn load(&mut self, read: &mut ReadRow<'_>) -> Result<Loaded, FileError> {
        let Some(database) = &self.database else { return Err(self.error("read", redb::Error::DatabaseClosed)) };
        let (loaded, moves) = quarantine::load(database, read).map_err(|source| self.error("read", source))?;
        self.moves = moves;
        if self.moves.is_none() {
            return Ok(loaded);
        }
        match self.commit(&[]) {
            Ok(()) => {}
            // Reads are answered from memory. Without them and deletions nobody could make space.
            Err(error) if error.no_space() => {
                warn!("no space is left to move unreadable objects aside; the next write does");
                if let Err(error) = self.reopen() {
                    warn!(error = &error as &dyn std::error::Error, "the next write opens the store again");
                }
            }
            Err(error) => return Err(error),
        }
        Ok(loaded)
    }

    /// When each resource was written last, in a store whose last write is at `revision`.
    pub fn last_changes(&mut self, revision: u64) -> Result<LastChanges, FileError> {
        let known = match &self.database {
            Some(database) => last_changes(database, revision).map_err(|source| self.error("read", source))?,
            // It waits for space, and for moves that nobody saw.
            None if self.moves.is_some() => None,
            None => return Err(self.error("read", redb::Error::DatabaseClosed)),
        };
        self.knows_changes = known.is_some();
        Ok(known.unwrap_or(LastChanges { by_resource: HashMap::new(), others: revision }))
    }

    /// The latest changes, up to the revision of the last write; nothing where the file does not know them.
    pub fn change_log(&mut self, revision: u64) -> Result<Option<Records>, FileError> {
        // Without the log, watches begin at the last change of their resource.
        let Some(database) = &self.database else { return Ok(None) };
        let records = read_log(database, revision).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the log of changes; clients will list again");
            None
        });
        self.knows_log = records.is_some();
        Ok(records)
    }

    /// Makes a batch durable. An error closes the database; [`File::reopen`] then tells whether the batch became
    /// durable.
    pub fn commit(&mut self, events: &[Event]) -> Result<(), FileError> {
        let Some(database) = &self.database else {
            return Err(self.error("write to", redb::Error::DatabaseClosed));
        };
        // A panic in the database must not end the committer, and with it all writes.
        let with_log = !std::mem::take(&mut self.without_log);
        let log = self.knows_log && with_log;
        let known = Known { changes: self.knows_changes, log, log_size: self.log_size.take(), with_log };
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| write(database, self.moves.as_ref(), events, known)));
        match made.unwrap_or_else(|_| Err(redb::Error::Corrupted("the database panicked".into()))) {
            Ok(log_size) => {
                self.moves = None;
                self.knows_changes |= !events.is_empty();
                self.knows_log |= !events.is_empty();
                self.log_size = log_size;
                Ok(())
            }
            Err(source) => {
                self.database = None;
                Err(self.error("write to", source))
            }
        }
    }

    /// Has the next commit empty the log of changes, and write nothing to it.
    pub fn drop_log(&mut self) {
        self.without_log = true;
    }

    /// Closes the database until the next [`File::reopen`].
    pub fn close(&mut self) {
        self.database = None;
    }

    fn error(&self, operation: &'static str, source: redb::Error) -> FileError {
        FileError::new(operation, &self.path, source)
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
    // A sync of the file does not make its name durable.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()?;
    Ok(())
}

/// Makes the next reads come from the disk.
///
/// After a failed sync, Linux keeps the pages that it could not write and calls them clean: they would be read as if
/// they were durable, and no later sync would write them. Pages that wait to be written stay.
fn forget_cached_pages(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    // SAFETY: the descriptor is open for as long as `file` lives, and the call touches no memory of this process.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
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
    /// Whether the batch is added to the log.
    with_log: bool,
}

/// Makes a batch durable; answers with the size of the log after it, as far as known.
fn write(
    database: &Database,
    moves: Option<&Moves>,
    events: &[Event],
    known: Known,
) -> Result<Option<LogSize>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|e| redb::Error::from(StorageError::Corrupted(e.to_string())))?;
    if let Some(moves) = moves {
        moves.make(&transaction)?;
    }
    let mut log_size = known.log_size;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut key = String::new();
        let mut value = Vec::new();
        for event in events {
            key.clear();
            key.push_str(&event.key.resource);
            key.push('/');
            key.push_str(&event.key.name);
            if event.event_type == EventType::Deleted {
                objects.remove(key.as_str())?;
                continue;
            }
            value.clear();
            value.extend_from_slice(&event.object.revision.to_be_bytes());
            value.extend_from_slice(event.object.json());
            objects.insert(key.as_str(), value.as_slice())?;
        }
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            let (mut meta, mut changes) = (transaction.open_table(META)?, transaction.open_table(CHANGES)?);
            let mut log = transaction.open_table(change_log::LOG)?;
            if !known.log {
                change_log::clear(&mut log)?;
                meta.insert("history_since", first.object.revision.saturating_sub(1))?;
            }
            let mut size = match known.log_size {
                Some(size) => size,
                None => LogSize::of(&log)?,
            };
            let dropped = match known.with_log {
                true => change_log::append(&mut log, events, &mut size)?,
                false => Some(last.object.revision),
            };
            if let Some(dropped) = dropped {
                meta.insert("history_since", dropped)?;
            }
            log_size = Some(size);
            meta.insert("history_at", last.object.revision)?;
            if !known.changes {
                changes.retain(|_, _| false)?;
                meta.insert("changes_since", first.object.revision.saturating_sub(1))?;
            }
            let last_of: BTreeMap<&str, u64> =
                events.iter().map(|event| (&*event.key.resource, event.object.revision)).collect();
            for (resource, revision) in last_of {
                changes.insert(resource, revision)?;
            }
            meta.insert("changes_at", last.object.revision)?;
            meta.insert("revision", last.object.revision)?;
        }
    }
    transaction.commit()?;
    Ok(log_size)
}
