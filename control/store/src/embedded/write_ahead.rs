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
    segment::{self, Content, Segment, SegmentHeader},
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
        "the log {} is damaged before byte {at}, where writes follow that were answered; restore a backup, or move \
         the file away to go on without what was written last",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// A program that this one does not know wrote it.
    #[error(
        "the log {} has a record that this program does not know; start the newer one that wrote it",
        path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
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
            Self::Io { path, .. }
            | Self::Damaged { path, .. }
            | Self::Unknown { path }
            | Self::Foreign { path }
            | Self::Gap { path, .. } => path,
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
    /// The revision of the last write in each file.
    ends: [u64; 2],
    /// The tables have all up to this revision.
    applied: u64,
    /// The revision of the last write.
    last: u64,
}

impl WriteAheadLog {
    /// Opens the log of the store with the number `store`, whose tables are at revision `applied`. Answers with what
    /// the tables lack.
    pub fn open(files: [LogFile; 2], store: u64, applied: u64) -> Result<(Self, Vec<RowChange>), LogError> {
        let mut log = Self { files, store, segments: None, active: 0, ends: [0; 2], applied, last: applied };
        let changes = log.read(applied)?;
        log.last = last_of(&changes, applied);
        Ok((log, changes))
    }

    /// Opens the log again after an error, and makes durable what it holds. Answers with the revision of the last
    /// write, and with what the log turns out to hold beside what was known of it: the batch in doubt, or nothing.
    pub fn reopen(&mut self) -> Result<(u64, Vec<RowChange>), LogError> {
        let changes = self.read(self.last)?;
        for at in [0, 1] {
            if let Err(source) = self.segments()?[at].sync() {
                self.segments = None;
                return Err(self.failed("sync", at, source));
            }
        }
        // Only now: what was read but not synced is still in doubt, and the next try must find it once more.
        self.last = last_of(&changes, self.last);
        Ok((self.last, changes))
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

    /// Whether the file that is not active can be used: the tables lack nothing that it holds.
    pub fn other_is_free(&self) -> bool {
        self.ends[1 - self.active] <= self.applied
    }

    /// The tables have all up to a revision.
    pub fn tables_have(&mut self, revision: u64) {
        self.applied = self.applied.max(revision);
    }

    /// Makes changes durable, as one record. `frees` says that they will make space.
    ///
    /// # Errors
    /// An error before the record is written leaves the log open: a full disk is noticed there as a rule. One while it
    /// is written or synced closes it.
    pub fn append(&mut self, changes: &[RowChange], frees: bool) -> Result<(), LogError> {
        let Some(last) = changes.last() else { return Ok(()) };
        let mut payload = Vec::with_capacity(changes.iter().map(|change| change.len() + 128).sum());
        changes.iter().for_each(|change| change.write(&mut payload));
        self.begin_first_use()?;
        let active = self.active;
        match self.segments()?[active].reserve(payload.len(), frees) {
            Ok(()) => {}
            Err(source) if is_no_space(&source) && self.other_is_free() => {
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
        (self.last, self.ends[active]) = (last.revision, last.revision);
        Ok(())
    }

    /// A new log has no use yet: to open it takes no space.
    fn begin_first_use(&mut self) -> Result<(), LogError> {
        let (active, store, base) = (self.active, self.store, self.last);
        let segment = &mut self.segments()?[active];
        if segment.header().is_some() {
            return Ok(());
        }
        let begun = segment.begin(SegmentHeader { store, generation: 1, base });
        begun.map_err(|source| self.failed("begin", active, source))
    }

    /// Makes the free file the active one.
    pub fn rotate(&mut self) -> Result<(), LogError> {
        let (active, other, store, base) = (self.active, 1 - self.active, self.store, self.last);
        let segments = self.segments()?;
        let generation = segments[active].header().map_or(0, |header| header.generation).saturating_add(1);
        let begun = segments[other].begin(SegmentHeader { store, generation, base });
        begun.map_err(|source| self.failed("begin", other, source))?;
        (self.active, self.ends[other]) = (other, 0);
        Ok(())
    }

    /// Opens both files, and reads the changes after a revision. The file of the later use becomes active.
    fn read(&mut self, after: u64) -> Result<Vec<RowChange>, LogError> {
        let [(first, disk, bytes), (second, other, other_bytes)] = [self.read_file(0)?, self.read_file(1)?];
        if first.header.is_none() {
            self.must_be_unused(0, &bytes, second.header, after)?;
        }
        if second.header.is_none() {
            self.must_be_unused(1, &other_bytes, first.header, after)?;
        }
        let generation = |content: &Content| content.header.map(|header| header.generation);
        self.active = usize::from(generation(&second) > generation(&first));
        let mut changes = Vec::new();
        let mut known = after;
        let contents = [&first, &second];
        for at in [1 - self.active, self.active] {
            let before = changes.len();
            self.ends[at] = 0;
            let base = contents[at].header.map_or(0, |header| header.base);
            for record in &contents[at].records {
                // A record of a use whose header was lost, so that the next use has its generation once more.
                if first_revision(record).is_some_and(|first| first <= base) {
                    break;
                }
                self.ends[at] = self.take(at, record, after, &mut changes)?;
            }
            if let Some((offset, record)) = &contents[at].stray
                && self.take(at, record, after, &mut Vec::new())? > after
            {
                return Err(LogError::Damaged { path: self.files[at].path.clone(), at: *offset });
            }
            if changes.len() > before && base > known {
                return Err(LogError::Gap { path: self.files[at].path.clone(), store: known, log: base });
            }
            known = last_of(&changes, after);
        }
        let segment = |at: usize, disk, content: &Content| {
            Segment::new(disk, content).map_err(|source| self.failed("open", at, source))
        };
        self.segments = Some([segment(0, disk, &first)?, segment(1, other, &second)?]);
        Ok(changes)
    }

    /// A file whose header cannot be read was not used, and has zeros there; or it is damaged: then its records are
    /// those of the use before or after the other file's.
    fn must_be_unused(
        &self,
        at: usize,
        bytes: &Bytes,
        other: Option<SegmentHeader>,
        after: u64,
    ) -> Result<(), LogError> {
        if segment::has_no_header(bytes) {
            return Ok(());
        }
        let generation = other.map_or(0, |header| header.generation);
        for generation in [generation.saturating_sub(1), generation.saturating_add(1)] {
            let header = SegmentHeader { store: self.store, generation, base: 0 };
            for record in segment::records(header, bytes) {
                if self.take(at, &record, after, &mut Vec::new())? > after {
                    return Err(LogError::Damaged { path: self.files[at].path.clone(), at: 0 });
                }
            }
        }
        Ok(())
    }

    fn read_file(&self, at: usize) -> Result<(Content, Box<dyn Disk>, Bytes), LogError> {
        let disk = (self.files[at].open)().map_err(|source| self.failed("open", at, source))?;
        let bytes = disk.read().map_err(|source| self.failed("read", at, source))?;
        let bytes = Bytes::from(bytes);
        let content = segment::read(&bytes);
        match content.header {
            Some(header) if header.store != self.store => Err(LogError::Foreign { path: self.files[at].path.clone() }),
            _ => Ok((content, disk, bytes)),
        }
    }

    /// Adds the changes of a record that come after a revision. Answers with the revision of the last one.
    fn take(&self, at: usize, record: &Bytes, after: u64, changes: &mut Vec<RowChange>) -> Result<u64, LogError> {
        let mut rest = record.clone();
        let mut last = 0;
        while !rest.is_empty() {
            // Its checksum is right.
            let Some(change) = RowChange::read(&mut rest) else {
                return Err(LogError::Unknown { path: self.files[at].path.clone() });
            };
            last = change.revision;
            if change.revision > after {
                changes.push(change);
            }
        }
        Ok(last)
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

/// The revision of the last change; without changes, the one before them.
fn last_of(changes: &[RowChange], before: u64) -> u64 {
    changes.last().map_or(before, |change| change.revision)
}

/// The revision of a record's first change.
fn first_revision(record: &Bytes) -> Option<u64> {
    RowChange::read(&mut record.clone()).map(|change| change.revision)
}
