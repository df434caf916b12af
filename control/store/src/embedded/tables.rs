//! The tables of the store: a redb database of objects by key, and the revision of the last write in them.
//!
//! They hold what the write-ahead log had up to some moment. It is decided here how changes come in and how the
//! database comes back after an I/O error; never what is written.

mod closing;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTableMetadata, TableDefinition, TableError};
use tracing::{error, warn};

use super::{
    checkpoint::{self, Known, Part, Rows},
    damaged_bases::DamagedBases,
    dense_copy::{self, UnfinishedCopy},
    disk::{self, forget_cached_pages},
    error::FileError,
    freed_texts::FreedTexts,
    last_changes::LastChanges,
    opening::{self, OpenDatabase},
    quarantine::{self, Loaded, Moves, RowReader},
    read_ahead::ReadAhead,
    row::RowChange,
    stored_base::StoredBases,
    stored_history::{HISTORY, HistorySize, Records, Resources},
    unpacked_rows::{PackingBatch, UnpackedRows},
};
use crate::{Decode, EventType, references::References, seal::Sealer};

/// `resource/name` → revision (8 bytes, big endian), then the object: see `packed_row.rs`.
pub const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
/// `revision` → the revision of the last write; `layout` → [`LAYOUT`]; `store` → a random number of the store;
/// `checkpoints` → how many there were; `freed_texts`: see `freed_texts.rs`.
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Version of what stands in the file. A store of a newer layout is not opened. Since 2 the latest writes may be in the
/// write-ahead log alone, of which an older program knows nothing; since 3 objects are packed.
pub const LAYOUT: u64 = 3;
/// What a file has once something in it is sealed: older programs would take it for damaged.
pub const SEALED_LAYOUT: u64 = 4;
/// The last that this program knows.
pub const NEWEST_LAYOUT: u64 = SEALED_LAYOUT;
/// All reads are answered from memory; the cache only serves the write path.
pub const CACHE_BYTES: usize = 4 << 20;
/// A file is made smaller that is so many times as long as its rows, and so many bytes more.
const SPARSE_TIMES: u64 = 4;
const SPARSE_BYTES: u64 = 64 << 20;

/// Whether rows that wait for it are packed with some changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Some,
    None,
}

/// The open database, or none after an I/O error until the next [`Tables::apply`] opens it again.
pub struct Tables {
    path: PathBuf,
    open_database: OpenDatabase,
    database: Option<Database>,
    /// The random number of the store.
    store: u64,
    /// The revision of the last write in the tables.
    revision: u64,
    /// [`super::last_changes::LAST_CHANGES`] is valid.
    knows_last_changes: bool,
    /// [`HISTORY`] is right.
    knows_history: bool,
    /// How much is in it, as far as known.
    history_size: Option<HistorySize>,
    /// Resources whose texts stand in it as they are, if not more.
    plain_history: Resources,
    /// What stands in it is of no use, and some of it may be encrypted now.
    history_is_void: bool,
    /// Rows that the next changes move. The store is at their revision already, the tables are not.
    moves: Option<Moves>,
    /// Makes the headers that are kept, once the objects were read.
    decode: Option<Arc<dyn Decode>>,
    sealer: Sealer,
    /// Rows that the next opening could not take as they are.
    unpacked: UnpackedRows,
    /// What the rows of objects are encoded against.
    bases: StoredBases,
    /// The file is much larger than what it holds.
    is_sparse: bool,
    /// As the file says.
    freed_texts: FreedTexts,
    unfinished_copy: UnfinishedCopy,
}

impl Tables {
    /// Opens or makes the database in the file `path`.
    ///
    /// Where `path` is a symbolic link, the file that it names is meant, and stays where it is.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let path = &disk::resolved(path).map_err(|source| FileError::redb("find", path, source.into()))?;
        // Of a start that was cut short.
        dense_copy::remove(&opening::unfinished(path))
            .map_err(|source| FileError::redb("clean up", path, source.into()))?;
        if !path.exists() {
            opening::create(path).map_err(|source| FileError::redb("create", path, source))?;
        }
        let at = path.to_owned();
        let open = move |builder: &Builder| {
            forget_cached_pages(&fs::File::open(&at).map_err(DatabaseError::from)?).map_err(DatabaseError::from)?;
            builder.open(&at)
        };
        Self::open_with(path, Box::new(open), UnfinishedCopy::of(path))
    }

    /// Opens or makes the database with `open_database`; `name` is what errors call it.
    pub fn open_with(
        name: &Path,
        open_database: OpenDatabase,
        unfinished_copy: UnfinishedCopy,
    ) -> Result<Self, FileError> {
        let mut tables = Self {
            path: name.to_owned(),
            open_database,
            database: None,
            store: 0,
            revision: 0,
            knows_last_changes: false,
            knows_history: false,
            history_size: None,
            plain_history: Resources::new(),
            history_is_void: false,
            moves: None,
            decode: None,
            sealer: Sealer::default(),
            unpacked: UnpackedRows::default(),
            bases: StoredBases::default(),
            is_sparse: unfinished_copy.exists(),
            freed_texts: FreedTexts::None,
            unfinished_copy,
        };
        tables.reopen()?;
        Ok(tables)
    }

    /// Has values sealed and opened.
    pub fn sealed_by(mut self, sealer: Sealer) -> Self {
        self.sealer = sealer;
        self
    }

    /// Who seals values.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// What an earlier stop left of a smaller file.
    pub fn unfinished_copy(&self) -> &UnfinishedCopy {
        &self.unfinished_copy
    }

    /// A random number that the store has from its beginning.
    pub fn store(&self) -> u64 {
        self.store
    }

    /// The revision of the last write in the tables.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Opens the database again if an error closed it.
    fn reopen(&mut self) -> Result<(), FileError> {
        if self.database.is_some() {
            return Ok(());
        }
        let opened = self.with_space_of_copy(|tables| {
            opening::open(&tables.open_database).map_err(|source| tables.error("open", source))
        })?;
        if opened.layout > NEWEST_LAYOUT {
            return Err(FileError::Layout { path: self.path.clone(), found: opened.layout });
        }
        (self.database, self.revision, self.store) = (Some(opened.database), opened.revision, opened.store);
        self.moves.take_if(|moves| moves.revision <= opened.revision);
        self.bases.opened(opened.checkpoints, opened.last_base);
        self.is_sparse |= opened.was_older;
        self.freed_texts = opened.freed_texts;
        Ok(())
    }

    /// Reads every object as it is after `newer`, and finds those that cannot be read; the next changes move them
    /// aside.
    pub fn load(&mut self, newer: &[RowChange], reader: &mut RowReader<'_>) -> Result<Loaded, FileError> {
        self.reopen()?;
        let Some(database) = &self.database else { return Err(self.error("read", redb::Error::DatabaseClosed)) };
        let _ahead = ReadAhead::start(&self.path);
        let (mut loaded, found) =
            quarantine::load(database, newer, reader).map_err(|source| self.error("read", source))?;
        if reader.damaged_bases == DamagedBases::Refuse && !found.damage.is_empty() {
            return Err(FileError::DamagedBases { path: self.path.clone(), damage: found.damage });
        }
        let of_services = found.seal_damage.of_services();
        if !of_services.is_empty() {
            return Err(FileError::KeyService { path: self.path.clone(), damage: of_services });
        }
        if reader.damaged_bases == DamagedBases::Refuse && !found.seal_damage.is_empty() {
            return Err(FileError::Sealed { path: self.path.clone(), damage: found.seal_damage });
        }
        (self.moves, self.unpacked) = (found.moves, UnpackedRows::new(found.unpacked));
        self.bases.counted(&found.bases.0, found.bases.1);
        loaded.file_bytes = fs::metadata(&self.path).map_or(0, |file| file.len());
        let limit = loaded.row_bytes.saturating_mul(SPARSE_TIMES).saturating_add(SPARSE_BYTES);
        self.is_sparse |= loaded.file_bytes > limit;
        Ok(loaded)
    }

    /// Keeps the headers of what is written from now on.
    pub fn keep_headers(&mut self, decode: Arc<dyn Decode>) {
        self.decode = Some(decode);
    }

    /// Whether rows wait to be packed.
    pub fn has_unpacked_rows(&self) -> bool {
        !self.unpacked.is_empty()
    }

    /// Whether rows wait to be moved aside.
    pub fn has_moves(&self) -> bool {
        self.moves.is_some()
    }

    /// When each resource was written last, in a store whose last write is at `revision`.
    pub fn last_changes(&mut self, revision: u64) -> Result<LastChanges, FileError> {
        self.reopen()?;
        let Some(database) = &self.database else { return Err(self.error("read", redb::Error::DatabaseClosed)) };
        let known = LastChanges::read(database, revision).map_err(|source| self.error("read", source))?;
        self.knows_last_changes = known.is_some();
        Ok(known.unwrap_or_else(|| LastChanges::unknown(revision)))
    }

    /// The latest changes, up to the revision of the last write; nothing where the file does not know them.
    pub fn history(&mut self, revision: u64) -> Result<Option<Records>, FileError> {
        self.reopen()?;
        // Without it, watches begin at the last change of their resource.
        let Some(database) = &self.database else { return Ok(None) };
        let read = read_history(database, revision, &self.sealer).unwrap_or_else(|error| {
            warn!(%error, "cannot read the history; clients will list again");
            StoredHistory::Void
        });
        // Without encryption the next changes empty it.
        self.history_is_void = matches!(read, StoredHistory::Void) && self.sealer.get().is_some();
        let records = match read {
            StoredHistory::Records(records) => Some(records),
            StoredHistory::Void | StoredHistory::Empty => None,
        };
        self.plain_history = records.as_ref().map(|records| records.plain.clone()).unwrap_or_default();
        self.knows_history = records.is_some();
        Ok(records)
    }

    /// Whether the history holds texts that must not stand in it as they are.
    pub fn has_texts_to_remove(&self) -> bool {
        self.history_is_void || self.plain_history.iter().any(|resource| self.sealer.seals(resource))
    }

    /// Writes changes in the order of their revisions, durably. They may be written already, in part or in whole.
    ///
    /// Some rows that wait for it are packed on the way. On a full disk that is put off first; then deletions come
    /// first, and history and headers are given up: what is to make space must not need it.
    pub fn apply(&mut self, changes: &[RowChange]) -> Result<(), FileError> {
        self.unless_it_panics(|tables| tables.apply_or_panic(changes))
    }

    /// Packs some of the rows that wait for it, durably.
    pub fn pack_rows(&mut self) -> Result<(), FileError> {
        self.unless_it_panics(|tables| {
            tables.reopen()?;
            tables.write(&[], Part::WithHistory, Packing::Some)
        })
    }

    /// A panic in the database must not end the thread, and with it all writes.
    fn unless_it_panics(&mut self, work: impl FnOnce(&mut Self) -> Result<(), FileError>) -> Result<(), FileError> {
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|_| {
            error!("the database panicked; it is opened again");
            let database = self.database.take();
            // To close it may panic once more.
            drop(catch_unwind(AssertUnwindSafe(|| drop(database))));
            Err(self.error("write to", redb::Error::Corrupted("the database panicked".into())))
        })
    }

    /// Whether free places of the file may have texts that are encrypted now.
    pub fn has_freed_texts(&self) -> bool {
        self.freed_texts != FreedTexts::None
    }

    /// Tries an operation once more where the disk was full and there was a part of a copy to remove.
    fn with_space_of_copy<T>(
        &mut self,
        mut operation: impl FnMut(&mut Self) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        match operation(self) {
            Err(error) if error.no_space() && self.unfinished_copy.give_up() => operation(self),
            done => done,
        }
    }

    fn apply_or_panic(&mut self, changes: &[RowChange]) -> Result<(), FileError> {
        let mut tried = Err(self.error("write to", redb::Error::DatabaseClosed));
        for (part, packing) in [
            (Part::WithHistory, Packing::Some),
            // Whatever else can be done later.
            (Part::WithHistory, Packing::None),
            (Part::Deletions, Packing::None),
            (Part::WithoutHistory, Packing::None),
        ] {
            let is_needed = match (part, packing) {
                (Part::WithHistory, Packing::None) => self.has_unpacked_rows(),
                (Part::Deletions, _) => changes.iter().any(|change| change.event_type == EventType::Deleted),
                (Part::WithHistory | Part::WithoutHistory, _) => true,
            };
            if !is_needed {
                continue;
            }
            tried = self.with_space_of_copy(|tables| {
                tables.reopen()?;
                tables.write(changes, part, packing)
            });
            match &tried {
                // All changes come once more, now that there is space.
                Ok(()) if part == Part::Deletions => {}
                Ok(()) => return Ok(()),
                Err(error) if error.no_space() && part != Part::Deletions => {}
                Err(_) => return tried,
            }
        }
        tried
    }

    /// An error closes the database.
    fn write(&mut self, changes: &[RowChange], part: Part, packing: Packing) -> Result<(), FileError> {
        let Some(database) = &self.database else {
            return Err(self.error("write to", redb::Error::DatabaseClosed));
        };
        let history_size = self.history_size.take();
        let known = Known {
            last_changes: self.knows_last_changes,
            history: self.knows_history,
            history_size,
            texts_to_remove: self.plain_history.iter().filter(|name| self.sealer.seals(name)).cloned().collect(),
            history_is_void: self.history_is_void,
        };
        let removed = known.texts_to_remove.clone();
        let decode = match part {
            Part::WithHistory => self.decode.as_deref(),
            // The next opening finds what lacks its header.
            Part::WithoutHistory | Part::Deletions => None,
        };
        let (left, mut none) = (self.unpacked.left_after_batch(), References::default());
        let packing_batch = match packing {
            Packing::Some => self.unpacked.batch(left),
            Packing::None => PackingBatch::none(&mut none),
        };
        let mut rows = Rows { decode, packing: packing_batch, sealer: &self.sealer };
        match checkpoint::write(database, self.moves.as_ref(), changes, (known, &mut rows, &mut self.bases), part) {
            Ok(written) => {
                self.bases.committed();
                if packing == Packing::Some {
                    self.unpacked.packed(left);
                }
                if part != Part::Deletions {
                    self.revision = changes.last().map_or(self.revision, |change| change.revision);
                    self.revision = self.revision.max(self.moves.as_ref().map_or(0, |moves| moves.revision));
                    self.moves = None;
                    self.knows_last_changes |= !changes.is_empty();
                    self.knows_history |= !changes.is_empty();
                    self.history_size = written.history_size;
                    self.history_is_void = false;
                    self.plain_history.retain(|resource| !removed.contains(resource));
                    self.plain_history.extend(written.plain);
                }
                if written.frees_texts {
                    self.freed_texts = FreedTexts::InFileAndCopy;
                }
                Ok(())
            }
            Err(source) => {
                self.database = None;
                // It may be durable nevertheless.
                self.plain_history.extend(changes.iter().map(|change| change.resource().into()));
                Err(self.error("write to", source))
            }
        }
    }

    fn error(&self, operation: &'static str, source: redb::Error) -> FileError {
        FileError::redb(operation, &self.path, source)
    }
}

/// What the table of the history holds.
enum StoredHistory {
    /// The latest changes.
    Records(Records),
    /// Something else.
    Void,
    /// Nothing.
    Empty,
}

fn read_history(database: &Database, revision: u64, sealer: &Sealer) -> Result<StoredHistory, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name: &str| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value()));
    let (since, at) = (number("history_since")?, number("history_at")?);
    let history = match transaction.open_table(HISTORY) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(StoredHistory::Empty),
        opened => opened?,
    };
    match (since, at) {
        (Some(since), Some(at)) if at == revision => {
            Ok(StoredHistory::Records(Records::read(&history, since, sealer)?))
        }
        _ if history.is_empty()? => Ok(StoredHistory::Empty),
        _ => Ok(StoredHistory::Void),
    }
}
