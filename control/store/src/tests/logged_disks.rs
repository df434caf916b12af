//! Disks that remember all that was done to them, so that a test can say what a loss of power leaves.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use redb::{BackendError, Builder, Database, StorageBackend};

use super::header;
use crate::{
    DamagedBases, Decode, Draft, Embedded,
    embedded::{
        dense_copy::UnfinishedCopy,
        disk::Disk,
        file::{File, Limits},
        tables::Tables,
        write_ahead::LogFile,
    },
    seal::{Seal, Sealer},
};

/// The tables, and the two files of the write-ahead log.
pub const DISKS: usize = 3;

/// What each disk holds.
pub type Contents = [Vec<u8>; DISKS];

/// What was done to a disk.
#[derive(Clone, Debug)]
pub enum Operation {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
    Sync,
}

/// Disks that remember all that was done to them, in the order in which it was.
#[derive(Clone, Debug, Default)]
pub struct LoggedDisks(Arc<Mutex<Log>>);

/// One of them.
#[derive(Clone, Debug)]
pub struct LoggedDisk {
    disks: LoggedDisks,
    number: usize,
}

#[derive(Debug, Default)]
pub struct Log {
    /// Before the first operation.
    formatted: Contents,
    contents: Contents,
    operations: Vec<(usize, Operation)>,
    /// How many syncs of each disk fail from now on: the last of them loses what it should have made durable.
    failing_syncs: [usize; DISKS],
    limits: Limits,
    /// How many of the next openings of the tables panic.
    panicking_openings: usize,
    /// How many bytes each disk takes; none is no limit.
    space: [Option<usize>; DISKS],
    /// After how many further writes each disk is full for one of them.
    full_after: [Option<usize>; DISKS],
    /// A file of the real disk; the next store finds what a stop left of its copy.
    copy_of: Option<PathBuf>,
}

impl LoggedDisks {
    pub fn with(contents: Contents) -> Self {
        Self(Arc::new(Mutex::new(Log { formatted: contents.clone(), contents, ..Log::default() })))
    }

    /// Disks with an empty store.
    pub fn formatted() -> Self {
        let disks = Self::default();
        drop(disks.open());
        let contents = disks.contents();
        Self::with(contents)
    }

    pub fn contents(&self) -> Contents {
        self.0.lock().unwrap().contents.clone()
    }

    pub fn operations(&self) -> Vec<(usize, Operation)> {
        self.0.lock().unwrap().operations.clone()
    }

    /// How many operations were made so far.
    pub fn now(&self) -> usize {
        self.0.lock().unwrap().operations.len()
    }

    fn disk(&self, number: usize) -> LoggedDisk {
        LoggedDisk { disks: self.clone(), number }
    }

    pub fn try_open(&self) -> Result<Embedded, crate::OpenError> {
        self.try_open_with(header)
    }

    /// The same, with another reader of rows.
    pub fn open_with(
        &self,
        decode: impl Fn(&str, &str, &[u8]) -> Result<Draft, serde_json::Error> + Send + Sync + 'static,
    ) -> Embedded {
        self.try_open_with(decode).unwrap()
    }

    /// The same, of a program that keeps headers.
    pub fn open_decoding(&self, decode: impl Decode + 'static) -> Embedded {
        self.try_open_with(decode).unwrap()
    }

    /// The same, of a store whose values are sealed.
    pub fn open_sealed(&self, seal: Arc<dyn Seal>) -> Embedded {
        self.try_open_sealed(seal).unwrap()
    }

    pub fn try_open_sealed(&self, seal: Arc<dyn Seal>) -> Result<Embedded, crate::OpenError> {
        self.try_open_by(header, Sealer::new(Some(seal)))
    }

    fn try_open_with(&self, decode: impl Decode + 'static) -> Result<Embedded, crate::OpenError> {
        self.try_open_by(decode, Sealer::default())
    }

    fn try_open_by(&self, decode: impl Decode + 'static, sealer: Sealer) -> Result<Embedded, crate::OpenError> {
        let disk = self.disk(0);
        let open = move |builder: &Builder| {
            disk.panic_at_opening();
            builder.create_with_backend(disk.clone())
        };
        let log = [1, 2].map(|number| {
            let disk = self.disk(number);
            LogFile {
                path: format!("log {number}").into(),
                open: Box::new(move || Ok(Box::new(disk.clone()) as Box<dyn Disk>)),
            }
        });
        let (limits, copy_of) = {
            let log = self.0.lock().unwrap();
            (log.limits, log.copy_of.clone())
        };
        let unfinished_copy = copy_of.map_or_else(UnfinishedCopy::default, |path| UnfinishedCopy::of(&path));
        let tables = Tables::open_with(Path::new("the disk"), Box::new(open), unfinished_copy)?.sealed_by(sealer);
        Embedded::load(File::open_log(tables, log, limits)?, decode, DamagedBases::Refuse)
    }

    /// The same disks, for a store with these limits.
    pub fn limited(self, limits: Limits) -> Self {
        self.0.lock().unwrap().limits = limits;
        self
    }

    /// The same disks, for a store that finds what a stop left of the copy of this file.
    pub fn with_copy_of(self, path: &Path) -> Self {
        self.0.lock().unwrap().copy_of = Some(path.to_owned());
        self
    }

    /// Has a disk take no more than it holds, or whatever comes.
    pub fn limit_space(&self, disk: usize, is_limited: bool) {
        let mut log = self.0.lock().unwrap();
        log.space[disk] = is_limited.then(|| log.contents[disk].len());
    }

    /// Has a disk take so many bytes more than it holds.
    pub fn leave_space(&self, disk: usize, bytes: usize) {
        let mut log = self.0.lock().unwrap();
        log.space[disk] = Some(log.contents[disk].len() + bytes);
    }

    /// Has a disk be full for one write, after so many others.
    pub fn fill_once_after(&self, disk: usize, writes: usize) {
        self.0.lock().unwrap().full_after[disk] = Some(writes);
    }

    /// Whether that write is still to come.
    pub fn is_to_be_filled(&self, disk: usize) -> bool {
        self.0.lock().unwrap().full_after[disk].is_some()
    }

    /// The database of the tables, while no store has it.
    pub fn database(&self) -> Database {
        Builder::new().create_with_backend(self.disk(0)).unwrap()
    }

    /// Has so many of the next syncs of a disk fail.
    pub fn fail(&self, disk: usize, syncs: usize) {
        self.0.lock().unwrap().failing_syncs[disk] = syncs;
    }

    /// How many of them did not fail yet.
    pub fn failing_syncs(&self, disk: usize) -> usize {
        self.0.lock().unwrap().failing_syncs[disk]
    }

    /// Has so many of the next openings of the tables panic.
    pub fn panic_at_openings(&self, count: usize) {
        self.0.lock().unwrap().panicking_openings = count;
    }

    /// How many of them did not panic yet.
    pub fn openings_that_panic(&self) -> usize {
        self.0.lock().unwrap().panicking_openings
    }

    pub fn open(&self) -> Embedded {
        self.try_open().unwrap()
    }
}

impl LoggedDisk {
    fn panic_at_opening(&self) {
        let left = {
            let mut log = self.disks.0.lock().unwrap();
            let left = log.panicking_openings;
            log.panicking_openings = left.saturating_sub(1);
            left
        };
        assert_eq!(left, 0, "the database panics");
    }

    fn operate(&self, operation: Operation) -> io::Result<()> {
        let mut log = self.disks.0.lock().unwrap();
        let end = match &operation {
            Operation::Write { offset, bytes } => *offset as usize + bytes.len(),
            Operation::SetLen(len) => *len as usize,
            Operation::Sync => 0,
        };
        if log.space[self.number].is_some_and(|space| end > space) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !matches!(operation, Operation::Sync)
            && let Some(writes) = log.full_after[self.number]
        {
            log.full_after[self.number] = writes.checked_sub(1);
            if writes == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        apply(&mut log.contents[self.number], &operation);
        log.operations.push((self.number, operation));
        Ok(())
    }

    fn content<T>(&self, look: impl FnOnce(&Vec<u8>) -> T) -> T {
        look(&self.disks.0.lock().unwrap().contents[self.number])
    }

    fn sync_or_fail(&self) -> io::Result<()> {
        {
            let mut log = self.disks.0.lock().unwrap();
            if log.failing_syncs[self.number] > 0 {
                log.failing_syncs[self.number] -= 1;
                if log.failing_syncs[self.number] > 0 {
                    return Err(io::Error::other("the disk failed"));
                }
                let durable = crashed(&log.formatted, &log.operations, log.operations.len(), Unsynced::Lost);
                let is_own = |(number, _): &(usize, Operation)| *number == self.number;
                let synced =
                    log.operations.iter().rposition(|entry| is_own(entry) && matches!(entry.1, Operation::Sync));
                let kept = synced.map_or(0, |last| last + 1);
                let mut at = 0;
                log.operations.retain(|entry| {
                    at += 1;
                    at <= kept || !is_own(entry)
                });
                log.contents[self.number] = durable[self.number].clone();
                return Err(io::Error::other("the disk failed"));
            }
        }
        self.operate(Operation::Sync)
    }
}

pub fn apply(content: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write { offset, bytes } => {
            let start = *offset as usize;
            content.resize(content.len().max(start + bytes.len()), 0);
            content[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Operation::SetLen(len) => content.resize(*len as usize, 0),
        Operation::Sync => {}
    }
}

impl StorageBackend for LoggedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content(Vec::len) as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        self.content(|content| {
            let bytes = content.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate(Operation::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_or_fail()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(Operation::Write { offset, bytes: data.to_vec() })
    }

    fn try_lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

impl Disk for LoggedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content(Vec::len) as u64)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.content(Vec::clone))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.operate(Operation::Write { offset, bytes: bytes.to_vec() })
    }

    fn shorten(&self, len: u64) -> io::Result<()> {
        self.operate(Operation::SetLen(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_or_fail()
    }
}

/// What becomes of the operations between the last sync and the crash.
#[derive(Clone, Copy, Debug)]
pub enum Unsynced {
    Lost,
    /// Those with a set bit are there, as a disk that reorders writes may have it.
    Some(u64),
    /// All are there, but of the last write only the first half.
    Torn,
}

/// The disks after a crash at `at` operations, from what they held `before` them. A sync of one disk makes nothing of
/// another durable.
pub fn crashed(before: &Contents, operations: &[(usize, Operation)], at: usize, unsynced: Unsynced) -> Contents {
    let mut contents = before.clone();
    for (number, content) in contents.iter_mut().enumerate() {
        let own: Vec<(usize, &Operation)> = operations[..at]
            .iter()
            .enumerate()
            .filter(|(_, (disk, _))| *disk == number)
            .map(|(index, (_, operation))| (index, operation))
            .collect();
        let synced = own.iter().rposition(|(_, operation)| matches!(operation, Operation::Sync));
        let (synced, rest) = own.split_at(synced.map_or(0, |last| last + 1));
        synced.iter().for_each(|(_, operation)| apply(content, operation));
        for (index, operation) in rest {
            match (unsynced, operation) {
                (Unsynced::Lost, _) => {}
                (Unsynced::Some(bits), _) if bits >> (index % 64) & 1 == 0 => {}
                (Unsynced::Torn, Operation::Write { offset, bytes }) if index + 1 == at => {
                    let bytes = bytes[..bytes.len() / 2].to_vec();
                    apply(content, &Operation::Write { offset: *offset, bytes });
                }
                (Unsynced::Some(_) | Unsynced::Torn, _) => apply(content, operation),
            }
        }
    }
    contents
}
