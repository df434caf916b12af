//! The store's file: a redb database of objects by key, and the revision of the last write.
//!
//! It decides how a batch becomes durable and how the file comes back after an I/O error; never what is written.

use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use crate::store::{CommitError, Event, EventType};

/// `resource/name` → revision (8 bytes, big endian), then JSON text.
const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
/// `revision` → the revision of the last write; `layout` → [`LAYOUT`].
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Version of what stands in the tables. A store of a newer layout is not opened.
const LAYOUT: u64 = 1;
/// All reads are answered from memory; the cache only serves the write path.
const CACHE_BYTES: usize = 16 << 20;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot {operation} the store {}", path.display())]
    Redb {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("the store {} has layout {found}; this program knows layouts up to {LAYOUT}", path.display())]
    Layout { path: PathBuf, found: u64 },
    #[error("the store {} is damaged at {key}: {message}", path.display())]
    Damaged { path: PathBuf, key: String, message: String },
}

impl FileError {
    fn no_space(&self) -> bool {
        let Self::Redb { source, .. } = self else { return false };
        matches!(&**source, redb::Error::Io(e)
            if matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    }

    /// What the writers of a batch that failed are told.
    pub fn for_writers(&self) -> CommitError {
        match self {
            error if error.no_space() => match error {
                Self::Redb { path, .. } | Self::Layout { path, .. } | Self::Damaged { path, .. } => {
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
    database: Option<Database>,
}

impl File {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut file = Self { path: path.to_owned(), database: None };
        file.reopen()?;
        Ok(file)
    }

    /// Opens the database again after an error, if need be. Answers the revision of the last durable write if it had to.
    pub fn reopen(&mut self) -> Result<Option<u64>, FileError> {
        if self.database.is_some() {
            return Ok(None);
        }
        let open = || -> Result<(Database, u64, u64), redb::Error> {
            let database = Database::builder().set_cache_size(CACHE_BYTES).create(&self.path)?;
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
        Ok(Some(revision))
    }

    /// Reads every object: `load(resource, name, revision, json)`. Answers the revision of the last write.
    pub fn load(&self, mut load: impl FnMut(&str, &str, u64, &[u8]) -> Result<(), String>) -> Result<u64, FileError> {
        let Some(database) = &self.database else { return Ok(0) };
        let read = |source: redb::Error| self.error("read", source);
        let transaction = database.begin_read().map_err(|e| read(e.into()))?;
        let objects = transaction.open_table(OBJECTS).map_err(|e| read(e.into()))?;
        for entry in objects.iter().map_err(|e| read(e.into()))? {
            let (key, value) = entry.map_err(|e| read(e.into()))?;
            let damaged =
                |message: String| FileError::Damaged { path: self.path.clone(), key: key.value().to_owned(), message };
            let (resource, name) =
                key.value().split_once('/').ok_or_else(|| damaged("the key names no resource".into()))?;
            let (revision, json) = value.value().split_first_chunk::<8>().ok_or_else(|| damaged("it is cut".into()))?;
            load(resource, name, u64::from_be_bytes(*revision), json).map_err(damaged)?;
        }
        let meta = transaction.open_table(META).map_err(|e| read(e.into()))?;
        let revision = meta.get("revision").map_err(|e| read(e.into()))?.map_or(0, |v| v.value());
        Ok(revision)
    }

    /// Makes a batch durable. After an error the database is closed, and whether the batch was made is told by
    /// [`File::reopen`].
    pub fn commit(&mut self, events: &[Event]) -> Result<(), FileError> {
        let Some(database) = &self.database else {
            return Err(self.error("write to", redb::Error::DatabaseClosed));
        };
        match write(database, events) {
            Ok(()) => Ok(()),
            Err(source) => {
                self.database = None;
                Err(self.error("write to", source))
            }
        }
    }

    /// Closes the database until the next [`File::reopen`].
    pub fn close(&mut self) {
        self.database = None;
    }

    fn error(&self, operation: &'static str, source: redb::Error) -> FileError {
        FileError::Redb { operation, path: self.path.clone(), source: Box::new(source) }
    }
}

fn write(database: &Database, events: &[Event]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|e| redb::Error::from(StorageError::Corrupted(e.to_string())))?;
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
        if let Some(last) = events.last() {
            transaction.open_table(META)?.insert("revision", last.object.revision)?;
        }
    }
    transaction.commit()?;
    Ok(())
}
