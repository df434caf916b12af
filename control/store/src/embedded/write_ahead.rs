//! The write-ahead log: what makes a batch durable, with one sequential write and one sync.
//!
//! Two files, used in turns. Records go to the **active** one; once it has enough, the other becomes active, and what
//! the first holds is brought into the tables meanwhile. Then the first is free again.
//!
//! It knows changes as bytes with revisions, and nothing of tables.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    disk::{Disk, OpenDisk},
    row::RowChange,
    segment::{self, Content, Segment, Use},
};

/// A file of the log: what errors call it, and how it is opened.
pub struct LogFile {
    /// `…/objects.redb.log0`
    pub path: PathBuf,
    /// Opens or makes it.
    pub open: OpenDisk,
}

/// The log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed, or is full.
    #[error("cannot {operation} the log {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file was damaged after it was written.
    #[error(
        "the log {} is damaged before byte {at}, where writes follow that were answered; restore a backup, or move the file away \
         to go on without what was written last",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// The file does not belong to the store beside it.
    #[error("the log {} belongs to another store; move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The store beside the log is older than the log's beginning.
    #[error(
        "the store is at revision {store}, and its log {} begins after {log}: one of them was replaced; restore both \
         together, or move the log away",
        path.display()
    )]
    Gap {
        /// The file.
        path: PathBuf,
        /// The revision of the tables.
        store: u64,
        /// The revision before the log's first record.
        log: u64,
    },
}

impl LogError {
    /// Whether the disk is full.
    pub fn no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_space(source))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. } | Self::Damaged { path, .. } | Self::Foreign { path } | Self::Gap { path, .. } => {
                path
            }
        }
    }
}

/// Whether an error says that the disk is full.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The open log, or a closed one after an I/O error.
pub struct WriteAheadLog {
    files: [LogFile; 2],
    store: u64,
    /// Nothing after an error that leaves open what became durable.
    segments: Option<[Segment; 2]>,
    active: usize,
    /// Nothing in the file that is not active is missing in the tables.
    other_is_free: bool,
    /// The revision of the last record, or of the tables where they have all.
    last: u64,
}

impl WriteAheadLog {
    /// Opens the log of the store with the number `store`, whose tables are at revision `applied`. Answers with what the
    /// tables lack.
    pub fn open(files: [LogFile; 2], store: u64, applied: u64) -> Result<(Self, Vec<RowChange>), LogError> {
        let mut log = Self { files, store, segments: None, active: 0, other_is_free: true, last: applied };
        let changes = log.read(applied)?;
        Ok((log, changes))
    }

    /// Opens the log again after an error, and makes durable what it holds. Answers with the revision of the last write.
    pub fn reopen(&mut self) -> Result<u64, LogError> {
        let (last, active) = (self.last, self.active);
        let changes = self.read(last)?;
        for at in [0, 1] {
            if let Err(source) = self.segments()?[at].sync() {
                self.segments = None;
                return Err(self.failed("sync", at, source));
            }
        }
        // The use that had begun with the failed write is gone.
        self.other_is_free |= self.active != active;
        self.last = changes.last().map_or(last, |change| change.revision);
        Ok(self.last)
    }

    /// Whether it takes records.
    pub fn is_open(&self) -> bool {
        self.segments.is_some()
    }

    /// Closes the log until [`Self::reopen`] finds out what is durable.
    pub fn close(&mut self) {
        self.segments = None;
    }

    /// The active file.
    pub fn path(&self) -> &Path {
        &self.files[self.active].path
    }

    /// How many bytes the records in the active file take.
    pub fn active_size(&self) -> u64 {
        self.segments.as_ref().map_or(0, |segments| segments[self.active].size())
    }

    /// Whether the file that is not active can be used.
    pub fn other_is_free(&self) -> bool {
        self.other_is_free
    }

    /// The tables have all that the file holds that is not active.
    pub fn free_other(&mut self) {
        self.other_is_free = true;
    }

    /// Makes changes durable, as one record. `frees` says that they will make space.
    ///
    /// # Errors
    /// A full disk is noticed before anything is written, and leaves the log open. Any other error closes it.
    pub fn append(&mut self, changes: &[RowChange], frees: bool) -> Result<(), LogError> {
        let Some(last) = changes.last() else { return Ok(()) };
        let mut payload = Vec::with_capacity(changes.iter().map(|change| change.json.len() + 128).sum());
        changes.iter().for_each(|change| change.write(&mut payload));
        let active = self.active;
        match self.segments()?[active].reserve(payload.len(), frees) {
            Ok(()) => {}
            Err(source) if is_no_space(&source) && self.other_is_free => {
                self.rotate()?;
                let active = self.active;
                let reserved = self.segments()?[active].reserve(payload.len(), frees);
                reserved.map_err(|source| self.failed("extend", active, source))?;
            }
            Err(source) => return Err(self.failed("extend", active, source)),
        }
        let active = self.active;
        self.segments()?[active].append(&payload).map_err(|source| {
            self.segments = None;
            self.failed("write to", active, source)
        })?;
        self.last = last.revision;
        Ok(())
    }

    /// Makes the free file the active one.
    pub fn rotate(&mut self) -> Result<(), LogError> {
        let (active, other, store, base) = (self.active, 1 - self.active, self.store, self.last);
        let segments = self.segments()?;
        let generation = segments[active].used().map_or(0, |used| used.generation).saturating_add(1);
        let begun = segments[other].begin(Use { store, generation, base });
        begun.map_err(|source| self.failed("begin", other, source))?;
        (self.active, self.other_is_free) = (other, false);
        Ok(())
    }

    /// Opens both files, and reads the changes after a revision. The file of the later use becomes active.
    fn read(&mut self, after: u64) -> Result<Vec<RowChange>, LogError> {
        let [(first, disk), (second, other)] = [self.read_file(0)?, self.read_file(1)?];
        let generation = |content: &Content| content.used.map(|used| used.generation);
        self.active = usize::from(generation(&second) > generation(&first));
        let mut changes = Vec::new();
        let mut known = after;
        let contents = [&first, &second];
        for at in [1 - self.active, self.active] {
            let before = changes.len();
            for record in &contents[at].records {
                self.take(at, record, after, &mut changes)?;
            }
            if let Some((offset, record)) = &contents[at].stray {
                let mut missing = Vec::new();
                self.take(at, record, after, &mut missing)?;
                if !missing.is_empty() {
                    return Err(LogError::Damaged { path: self.files[at].path.clone(), at: *offset });
                }
            }
            if at != self.active {
                self.other_is_free &= changes.is_empty();
            }
            let base = contents[at].used.map_or(0, |used| used.base);
            if changes.len() > before && base > known {
                return Err(LogError::Gap { path: self.files[at].path.clone(), store: known, log: base });
            }
            known = changes.last().map_or(after, |change| change.revision);
        }
        let segment = |at: usize, disk, content: &Content| {
            Segment::new(disk, content).map_err(|source| self.failed("open", at, source))
        };
        let mut segments = [segment(0, disk, &first)?, segment(1, other, &second)?];
        if contents[self.active].used.is_none() {
            let used = Use { store: self.store, generation: 1, base: known };
            let begun = segments[self.active].begin(used);
            begun.map_err(|source| self.failed("begin", self.active, source))?;
        }
        self.segments = Some(segments);
        self.last = known;
        Ok(changes)
    }

    fn read_file(&self, at: usize) -> Result<(Content, Box<dyn Disk>), LogError> {
        let disk = (self.files[at].open)().map_err(|source| self.failed("open", at, source))?;
        let bytes = disk.read().map_err(|source| self.failed("read", at, source))?;
        let content = segment::read(&Bytes::from(bytes));
        match content.used {
            Some(used) if used.store != self.store => Err(LogError::Foreign { path: self.files[at].path.clone() }),
            _ => Ok((content, disk)),
        }
    }

    /// Adds the changes of a record that come after a revision.
    fn take(&self, at: usize, record: &Bytes, after: u64, changes: &mut Vec<RowChange>) -> Result<(), LogError> {
        let mut rest = record.clone();
        while !rest.is_empty() {
            // Its checksum is right: a program that this one does not know wrote it.
            let Some(change) = RowChange::read(&mut rest) else {
                return Err(LogError::Damaged { path: self.files[at].path.clone(), at: 0 });
            };
            if change.revision > after {
                changes.push(change);
            }
        }
        Ok(())
    }

    fn segments(&mut self) -> Result<&mut [Segment; 2], LogError> {
        let path = &self.files[self.active].path;
        self.segments.as_mut().ok_or_else(|| LogError::Io {
            operation: "write to",
            path: path.clone(),
            source: io::Error::other("it was closed after an error"),
        })
    }

    fn failed(&self, operation: &'static str, at: usize, source: io::Error) -> LogError {
        LogError::Io { operation, path: self.files[at].path.clone(), source }
    }
}
