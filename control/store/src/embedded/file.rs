//! The store's file: a write-ahead log, which makes batches durable, and tables, into which what the log holds is
//! brought from time to time (a **checkpoint**).
//!
//! ```text
//! batch ──▶ write-ahead log (one write, one sync) ──▶ answered
//!                └── once it has some MiB, in a thread of its own ──▶ tables (redb)
//! opening: tables, and then what the log has beyond them
//! ```
//!
//! It decides how a batch becomes durable and how the file comes back after an I/O error; never what is written.
//!
//! `tests/power_loss.rs` shows how durable a batch is: at each step it drops everything that was not synced.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{
    checkpoint_thread::{CheckpointJob, CheckpointResult, Checkpoints},
    dense_copy::UnfinishedCopy,
    disk,
    error::{FileError, with_causes},
    last_changes::LastChanges,
    quarantine::{Loaded, RowReader},
    row::RowChange,
    stored_history::Records,
    tables::Tables,
    tables_owner::TablesOwner,
    write_ahead::{LogError, LogFile, WriteAheadLog},
};
use crate::{
    Decode, Event,
    seal::{SealError, Sealer},
};

/// How long the log's active file may become, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From here on its changes are brought into the tables.
    pub checkpoint: u64,
    /// From here on writes wait for the checkpoint under way, or are refused while none succeeds.
    pub full: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { checkpoint: 8 << 20, full: 64 << 20 }
    }
}

/// A checkpoint that failed is tried again after so long, then after twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// Told at the start and at a stop that leaves it so.
const FREED_TEXTS: &str = "texts from before encryption stand in free places of the store's file until a stop has \
                           replaced it by a copy; see that there is space for that";
/// How often the log tells of checkpoints that fail.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The open log and the tables.
pub struct File {
    tables: TablesOwner,
    checkpoints: Checkpoints,
    log: WriteAheadLog,
    limits: Limits,
    /// The revision that the store had when it was read.
    loaded: u64,
    /// How many bytes of text the tables lack.
    waiting: u64,
    /// Checkpoints that are over, until somebody counts them.
    finished: Vec<FinishedCheckpoint>,
    /// What the log has and the tables lack, but for what a checkpoint under way is bringing into them.
    newer: Vec<RowChange>,
    /// Seals values, of objects whose headers this makes.
    sealer: Sealer,
    decode: Option<Arc<dyn Decode>>,
    /// The last checkpoint failed.
    retry: Option<CheckpointRetry>,
    unfinished_copy: UnfinishedCopy,
}

/// How a checkpoint went.
pub struct FinishedCheckpoint {
    /// How long it took.
    pub took: Duration,
    /// Whether the tables have what they lacked.
    pub succeeded: bool,
}

/// When to try again after a checkpoint that failed.
struct CheckpointRetry {
    message: String,
    no_space: bool,
    told: Instant,
    wait: Duration,
    again: Instant,
}

impl File {
    /// Opens or makes the file `path`, and the log's files beside it.
    pub fn open(path: &Path, sealer: Sealer) -> Result<Self, FileError> {
        let tables = Tables::open(path)?.sealed_by(sealer);
        let file = |number: u8| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".log{number}"));
            let path = PathBuf::from(name);
            let at = path.clone();
            LogFile { path, open: Box::new(move || disk::open(&at)) }
        };
        Self::open_log(tables, [file(0), file(1)], Limits::default())
    }

    /// Opens what belongs to `tables`, and brings into them what the log has beyond them.
    pub fn open_log(tables: Tables, files: [LogFile; 2], limits: Limits) -> Result<Self, FileError> {
        let (log, mut newer) = WriteAheadLog::open(files, tables.store(), tables.revision())?;
        let sealer = tables.sealer().clone();
        newer.iter_mut().for_each(|change| change.open(&sealer));
        let unfinished_copy = tables.unfinished_copy().clone();
        let tables = TablesOwner::File(Box::new(tables));
        let mut file = Self {
            tables,
            checkpoints: Checkpoints::start(),
            log,
            limits,
            loaded: 0,
            waiting: size(&newer),
            finished: Vec::new(),
            newer,
            sealer,
            decode: None,
            retry: None,
            unfinished_copy,
        };
        if file.has_freed_texts() == Some(true) {
            warn!("{FREED_TEXTS}");
        }
        if !file.newer.is_empty() {
            debug!(changes = file.newer.len(), "the log has writes that the tables lack");
            file.checkpoint_or_wait_for_space("bring the log into the tables")?;
        }
        Ok(file)
    }

    /// Whether it takes batches.
    pub fn is_open(&self) -> bool {
        self.log.is_open()
    }

    /// How many bytes of text the log has that the tables lack.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting
    }

    /// Whether free places of the tables' file may have texts that are encrypted now; `None` while a checkpoint is
    /// under way.
    pub fn has_freed_texts(&self) -> Option<bool> {
        match &self.tables {
            TablesOwner::File(tables) => Some(tables.has_freed_texts()),
            TablesOwner::CheckpointThread | TablesOwner::Lost => None,
        }
    }

    /// The checkpoints that ended since the last call.
    pub fn take_finished(&mut self) -> Vec<FinishedCheckpoint> {
        std::mem::take(&mut self.finished)
    }

    /// Opens the log again if an error closed it, and then returns the revision that the store has with the last
    /// durable write.
    pub fn reopen(&mut self) -> Result<Option<u64>, FileError> {
        if self.log.is_open() {
            return Ok(None);
        }
        let (revision, mut found) = self.log.reopen()?;
        found.iter_mut().for_each(|change| change.open(&self.sealer));
        self.waiting = self.waiting.saturating_add(size(&found));
        self.newer.extend(found);
        // Rows that were moved aside at the opening made a revision that the log has no record of.
        Ok(Some(revision.max(self.loaded)))
    }

    /// Reads every object, and moves those aside that cannot be read; on a full disk, the next checkpoint does.
    pub fn load(&mut self, reader: &mut RowReader<'_>) -> Result<Loaded, FileError> {
        let tables = self.tables.get(self.log.path())?;
        let loaded = tables.load(&self.newer, reader)?;
        let has_moves = tables.has_moves();
        self.loaded = loaded.revision;
        if has_moves {
            self.checkpoint_or_wait_for_space("move unreadable objects aside")?;
        }
        Ok(loaded)
    }

    /// Keeps the headers of what is written from now on, and in time those that the file lacks. Before the loading,
    /// which may make a checkpoint.
    pub fn keep_headers(&mut self, decode: Arc<dyn Decode>) {
        self.decode = Some(decode.clone());
        if let TablesOwner::File(tables) = &mut self.tables {
            tables.keep_headers(decode);
        }
    }

    /// When each resource was written last, in a store whose last write is at `revision`.
    pub fn last_changes(&mut self, revision: u64) -> Result<LastChanges, FileError> {
        match self.newer.is_empty() {
            true => self.tables.get(self.log.path())?.last_changes(revision),
            false => Ok(LastChanges::unknown(revision)),
        }
    }

    /// The latest changes, up to the revision of the last write; nothing where the file does not know them.
    pub fn history(&mut self, revision: u64) -> Result<Option<Records>, FileError> {
        if !self.newer.is_empty() {
            // The checkpoint that brings it into the tables empties the history.
            return Ok(None);
        }
        let tables = self.tables.get(self.log.path())?;
        let records = tables.history(revision)?;
        if tables.has_texts_to_remove() {
            self.checkpoint_or_go_on();
        }
        Ok(records)
    }

    /// Who seals values.
    pub fn sealer(&self) -> Sealer {
        self.sealer.clone()
    }

    /// Whether values of a resource are sealed.
    pub fn seals(&self, resource: &str) -> bool {
        self.sealer.seals(resource)
    }

    /// What [`Self::commit`] takes of some events: their values are sealed where those of their resource are to be.
    /// Where `is_sealed` says that none is, nothing can fail.
    pub fn changes_of(&self, events: &[Event], is_sealed: bool) -> Result<Vec<RowChange>, SealError> {
        if !is_sealed {
            return Ok(events.iter().map(RowChange::of).collect());
        }
        events.iter().map(|event| RowChange::sealed(event, &self.sealer, self.decode.as_deref())).collect()
    }

    /// Makes a batch durable. After an error that leaves open whether it is, the file is closed; [`File::reopen`] then
    /// tells. `frees` says that it will make space.
    pub fn commit(&mut self, changes: Vec<RowChange>, frees: bool) -> Result<(), FileError> {
        self.collect();
        if self.log.active_size() > self.limits.full
            && let Err(error) = self.rotate()
            && !(frees && error.no_space() && self.log.active_size() <= self.limits.full.saturating_mul(2))
        {
            return Err(error);
        }
        let mut made = self.log.append(&changes, frees);
        let is_full = made.as_ref().is_err_and(LogError::no_space);
        // Before anything else is tried, and anything is refused.
        if is_full && self.unfinished_copy.give_up() && self.log.is_open() {
            made = self.log.append(&changes, frees);
        }
        if made.as_ref().is_err_and(LogError::no_space) && self.log.is_open() && self.make_room().is_ok() {
            made = self.log.append(&changes, frees);
        }
        made?;
        self.waiting = self.waiting.saturating_add(size(&changes));
        self.newer.extend(changes);
        self.begin_checkpoint();
        Ok(())
    }

    /// Closes the log until the next [`File::reopen`].
    pub fn close(&mut self) {
        self.log.close();
    }

    /// Brings all into the tables, so that the next opening need not.
    pub fn finish(&mut self) {
        self.wait();
        let mut made = if self.newer.is_empty() { Ok(()) } else { self.checkpoint() };
        if let Err(error) = &made {
            let error = error as &dyn std::error::Error;
            warn!(error, "the tables lack what the log has; the next opening brings it into them");
        }
        let TablesOwner::File(tables) = &mut self.tables else { return };
        while made.is_ok() && tables.has_unpacked_rows() {
            made = tables.pack_rows().inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                warn!(error, "rows of the tables cannot be packed; they are with later writes, or at the next stop");
            });
        }
        if made.is_ok()
            && let Err(error) = tables.close_smaller()
        {
            let (freed_texts, error) = (tables.has_freed_texts(), &error as &dyn std::error::Error);
            warn!(
                error,
                freed_texts, "the store's file cannot be made as small as what it holds; the next stop tries again"
            );
            if freed_texts {
                warn!("{FREED_TEXTS}");
            }
        }
    }

    /// Begins a checkpoint in its own thread, if one is due.
    fn begin_checkpoint(&mut self) {
        let due = match &self.retry {
            Some(failed) => Instant::now() >= failed.again,
            None => self.log.active_size() >= self.limits.checkpoint || !self.log.other_is_free(),
        };
        if !due || !matches!(self.tables, TablesOwner::File(_)) {
            return;
        }
        if self.log.other_is_free()
            && let Err(error) = self.rotate_log()
        {
            return self.note_failure(&error.into());
        }
        let TablesOwner::File(tables) = std::mem::replace(&mut self.tables, TablesOwner::CheckpointThread) else {
            return;
        };
        if self.checkpoints.jobs.send(CheckpointJob { tables, changes: std::mem::take(&mut self.newer) }).is_err() {
            self.tables = TablesOwner::Lost;
        }
    }

    /// Takes the tables back if the checkpoint under way is over.
    fn collect(&mut self) {
        match self.checkpoints.done.try_recv() {
            Ok(done) => self.checkpointed(done),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => self.tables = TablesOwner::Lost,
        }
    }

    /// The same, after it.
    fn wait(&mut self) {
        if !matches!(self.tables, TablesOwner::CheckpointThread) {
            return;
        }
        match self.checkpoints.done.recv() {
            Ok(done) => self.checkpointed(done),
            Err(mpsc::RecvError) => self.tables = TablesOwner::Lost,
        }
    }

    fn checkpointed(&mut self, done: CheckpointResult) {
        let CheckpointResult { tables, mut changes, outcome, took } = done;
        self.tables = TablesOwner::File(tables);
        self.note(&changes, &outcome, took);
        if outcome.is_err() {
            changes.append(&mut self.newer);
            self.newer = changes;
        }
    }

    /// Takes note of what became of a checkpoint with these changes.
    fn note(&mut self, changes: &[RowChange], outcome: &Result<(), FileError>, took: Duration) {
        self.finished.push(FinishedCheckpoint { took, succeeded: outcome.is_ok() });
        match outcome {
            Ok(()) => {
                if self.retry.take().is_some() {
                    info!("what the log had was brought into the tables");
                }
                self.waiting = self.waiting.saturating_sub(size(changes));
                self.log.tables_have(changes.last().map_or(0, |change| change.revision));
            }
            Err(error) => self.note_failure(error),
        }
    }

    /// Has the log go on in the other file, as soon as that is free.
    fn rotate(&mut self) -> Result<(), FileError> {
        self.make_room()?;
        Ok(self.rotate_log()?)
    }

    fn rotate_log(&mut self) -> Result<(), LogError> {
        match self.log.rotate() {
            Err(error) if error.no_space() && self.unfinished_copy.give_up() => self.log.rotate(),
            done => done,
        }
    }

    /// Makes a checkpoint, or waits for the one under way, so that the log has a free file.
    fn make_room(&mut self) -> Result<(), FileError> {
        self.wait();
        if self.log.other_is_free() {
            return Ok(());
        }
        match &self.retry {
            Some(failed) if Instant::now() < failed.again => {
                let (message, no_space) = (failed.message.clone(), failed.no_space);
                Err(FileError::Behind { path: self.log.path().to_owned(), message, no_space })
            }
            _ => self.checkpoint(),
        }
    }

    /// Brings all that the log has into the tables.
    fn checkpoint(&mut self) -> Result<(), FileError> {
        let begun = Instant::now();
        let made = self.tables.get(self.log.path()).and_then(|tables| tables.apply(&self.newer));
        // Only once the tables have them: until then no file of the log that holds them may be used again.
        let changes = if made.is_ok() { std::mem::take(&mut self.newer) } else { Vec::new() };
        self.note(&changes, &made, begun.elapsed());
        made
    }

    fn checkpoint_or_wait_for_space(&mut self, to: &str) -> Result<(), FileError> {
        match self.checkpoint() {
            // Reads are answered from memory. Without them and deletions nobody could make space.
            Err(error) if error.no_space() => {
                warn!("no space is left to {to}; a later write does");
                Ok(())
            }
            done => done,
        }
    }

    /// For what a later checkpoint does as well: it told of an error.
    fn checkpoint_or_go_on(&mut self) {
        if self.checkpoint().is_err() {
            debug!("what the tables should not hold is taken out by a later checkpoint");
        }
    }

    fn note_failure(&mut self, error: &FileError) {
        let now = Instant::now();
        let wait = self.retry.as_ref().map_or(FIRST_RETRY, |failed| failed.wait.saturating_mul(2).min(LAST_RETRY));
        let told = self.retry.as_ref().map(|failed| failed.told).filter(|told| now.duration_since(*told) < TOLD_EVERY);
        let cause: &dyn std::error::Error = error;
        if told.is_none() {
            warn!(error = cause, "the log cannot be brought into the tables; this is tried again");
        }
        let (told, again) = (told.unwrap_or(now), now.checked_add(wait).unwrap_or(now));
        self.retry =
            Some(CheckpointRetry { message: with_causes(cause), no_space: error.no_space(), told, wait, again });
    }
}

/// How many bytes of text changes have.
fn size(changes: &[RowChange]) -> u64 {
    changes.iter().map(|change| change.len() as u64).sum()
}
