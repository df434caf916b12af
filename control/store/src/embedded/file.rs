//! The store's file: a write-ahead log, which makes batches durable, and tables, into which what it holds is brought from
//! time to time.
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
    sync::mpsc,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::{
    change_log::Records,
    disk,
    quarantine::{Loaded, RowReader},
    row::RowChange,
    tables::{LAYOUT, LastChanges, Tables},
    write_ahead::{LogError, LogFile, WriteAheadLog, is_no_space},
};
use crate::{CommitError, Event, EventType};

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
    /// The log beside the database failed, or its disk did.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log holds more than it should, since the tables cannot be written.
    #[error("the log {} cannot be brought into the tables: {message}", path.display())]
    Behind {
        /// The log's file.
        path: PathBuf,
        /// What was wrong with the tables.
        message: String,
    },
}

impl FileError {
    /// An error of the database.
    pub fn redb(operation: &'static str, path: &Path, source: redb::Error) -> Self {
        Self::Redb { operation, path: path.to_owned(), source: Box::new(source) }
    }

    /// Whether the disk is full.
    pub fn no_space(&self) -> bool {
        match self {
            Self::Redb { source, .. } => matches!(&**source, redb::Error::Io(error) if is_no_space(error)),
            Self::Layout { .. } | Self::Behind { .. } => false,
            Self::Log(error) => error.no_space(),
        }
    }

    /// What the writers of a batch that failed are told.
    pub fn for_writers(&self) -> CommitError {
        if self.no_space() {
            let path = match self {
                Self::Redb { path, .. } | Self::Layout { path, .. } | Self::Behind { path, .. } => path,
                Self::Log(error) => error.path(),
            };
            return CommitError::Full { path: path.display().to_string() };
        }
        CommitError::Unavailable { message: with_causes(self) }
    }
}

/// The open log and the tables.
pub struct File {
    tables: Place,
    checkpoints: Checkpoints,
    log: WriteAheadLog,
    limits: Limits,
    /// What the log has and the tables lack, but for what a checkpoint under way is bringing into them.
    newer: Vec<RowChange>,
    /// The batch whose record failed: it may be durable.
    doubtful: Vec<RowChange>,
    /// The last checkpoint failed.
    failed: Option<Failed>,
}

/// Where the tables are.
enum Place {
    Here(Box<Tables>),
    /// With the thread that makes checkpoints.
    Away,
    /// That thread ended without giving them back.
    Lost,
}

/// When to try again after a checkpoint that failed.
struct Failed {
    message: String,
    wait: Duration,
    again: Instant,
}

impl File {
    /// Opens or makes the file `path`, and the log's files beside it.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let tables = Tables::open(path)?;
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
        let (log, newer) = WriteAheadLog::open(files, tables.store(), tables.revision())?;
        let tables = Place::Here(Box::new(tables));
        let mut file =
            Self { tables, checkpoints: Checkpoints::start(), log, limits, newer, doubtful: Vec::new(), failed: None };
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

    /// How many bytes of the log's active file are used.
    pub fn log_bytes(&self) -> u64 {
        self.log.active_size()
    }

    /// Opens the log again if an error closed it, and then returns the revision that the store has with the last
    /// durable write.
    pub fn reopen(&mut self) -> Result<Option<u64>, FileError> {
        if self.log.is_open() {
            return Ok(None);
        }
        let mut revision = self.log.reopen()?;
        let doubtful = std::mem::take(&mut self.doubtful);
        if doubtful.last().is_some_and(|change| change.revision == revision) {
            self.newer.extend(doubtful);
        }
        if let Place::Here(tables) = &self.tables {
            revision = revision.max(tables.moved_revision());
        }
        Ok(Some(revision))
    }

    /// Reads every object, and moves those aside that cannot be read; on a full disk, the next checkpoint does.
    pub fn load(&mut self, reader: &mut RowReader<'_>) -> Result<Loaded, FileError> {
        let newer = std::mem::take(&mut self.newer);
        let loaded = self.here().and_then(|tables| Ok((tables.load(&newer, reader)?, tables.has_moves())));
        self.newer = newer;
        let (loaded, has_moves) = loaded?;
        if has_moves {
            self.checkpoint_or_wait_for_space("move unreadable objects aside")?;
        }
        Ok(loaded)
    }

    /// When each resource was written last, in a store whose last write is at `revision`.
    pub fn last_changes(&mut self, revision: u64) -> Result<LastChanges, FileError> {
        match self.newer.is_empty() {
            true => self.here()?.last_changes(revision),
            false => Ok(LastChanges::unknown(revision)),
        }
    }

    /// The latest changes, up to the revision of the last write; nothing where the file does not know them.
    pub fn change_log(&mut self, revision: u64) -> Result<Option<Records>, FileError> {
        match self.newer.is_empty() {
            true => self.here()?.change_log(revision),
            false => Ok(None),
        }
    }

    /// Makes a batch durable. After an error that leaves open whether it is, the file is closed; [`File::reopen`] then
    /// tells.
    pub fn commit(&mut self, events: &[Event]) -> Result<(), FileError> {
        self.collect();
        if self.log.active_size() > self.limits.full {
            self.make_room()?;
        }
        let changes: Vec<RowChange> = events.iter().map(RowChange::of).collect();
        let frees = changes.iter().all(|change| change.event_type != EventType::Added);
        let mut made = self.log.append(&changes, frees);
        if made.as_ref().is_err_and(LogError::no_space) && self.log.is_open() && self.make_room().is_ok() {
            made = self.log.append(&changes, frees);
        }
        if let Err(error) = made {
            if !self.log.is_open() {
                self.doubtful = changes;
            }
            return Err(error.into());
        }
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
        if self.newer.is_empty() {
            return;
        }
        if let Err(error) = self.checkpoint() {
            let error = &error as &dyn std::error::Error;
            warn!(error, "the tables lack what the log has; the next opening brings it into them");
        }
    }

    /// Begins a checkpoint in its own thread, if one is due.
    fn begin_checkpoint(&mut self) {
        let due = match &self.failed {
            Some(failed) => Instant::now() >= failed.again,
            None => self.log.active_size() >= self.limits.checkpoint || !self.log.other_is_free(),
        };
        if !due || !matches!(self.tables, Place::Here(_)) {
            return;
        }
        if self.log.other_is_free()
            && let Err(error) = self.log.rotate()
        {
            warn!(error = &error as &dyn std::error::Error, "the log goes on in the same file");
        }
        let Place::Here(tables) = std::mem::replace(&mut self.tables, Place::Away) else { return };
        if self.checkpoints.jobs.send(Job { tables, changes: std::mem::take(&mut self.newer) }).is_err() {
            self.tables = Place::Lost;
        }
    }

    /// Takes the tables back if the checkpoint under way is over.
    fn collect(&mut self) {
        match self.checkpoints.done.try_recv() {
            Ok(done) => self.checkpointed(done),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => self.tables = Place::Lost,
        }
    }

    /// The same, after it.
    fn wait(&mut self) {
        if !matches!(self.tables, Place::Away) {
            return;
        }
        match self.checkpoints.done.recv() {
            Ok(done) => self.checkpointed(done),
            Err(mpsc::RecvError) => self.tables = Place::Lost,
        }
    }

    fn checkpointed(&mut self, done: Done) {
        let Done { tables, mut changes, outcome } = done;
        self.tables = Place::Here(tables);
        if let Err(error) = &outcome {
            changes.append(&mut self.newer);
            self.newer = changes;
            self.note_failure(error);
            return;
        }
        self.failed = None;
        self.log.free_other();
    }

    /// Makes a checkpoint, or waits for the one under way, so that the log has a free file.
    fn make_room(&mut self) -> Result<(), FileError> {
        self.wait();
        if self.log.other_is_free() {
            // The next record may begin it.
            return Ok(());
        }
        match &self.failed {
            Some(failed) if Instant::now() < failed.again => {
                Err(FileError::Behind { path: self.log.path().to_owned(), message: failed.message.clone() })
            }
            _ => self.checkpoint(),
        }
    }

    /// Brings all that the log has into the tables.
    fn checkpoint(&mut self) -> Result<(), FileError> {
        let changes = std::mem::take(&mut self.newer);
        let made = self.here().and_then(|tables| tables.apply(&changes));
        match &made {
            Ok(()) => {
                self.failed = None;
                self.log.free_other();
            }
            Err(error) => {
                self.newer = changes;
                self.note_failure(error);
            }
        }
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

    fn note_failure(&mut self, error: &FileError) {
        let wait = self.failed.as_ref().map_or(FIRST_RETRY, |failed| failed.wait.saturating_mul(2).min(LAST_RETRY));
        let error: &dyn std::error::Error = error;
        if wait < LAST_RETRY {
            warn!(error, "the log cannot be brought into the tables; this is tried again");
        }
        let again = Instant::now().checked_add(wait).unwrap_or_else(Instant::now);
        self.failed = Some(Failed { message: with_causes(error), wait, again });
    }

    fn here(&mut self) -> Result<&mut Tables, FileError> {
        match &mut self.tables {
            Place::Here(tables) => Ok(tables),
            Place::Away | Place::Lost => {
                let message = "the thread that writes them has ended".into();
                Err(FileError::Behind { path: self.log.path().to_owned(), message })
            }
        }
    }
}

/// The thread that makes checkpoints beside commits.
struct Checkpoints {
    jobs: mpsc::Sender<Job>,
    done: mpsc::Receiver<Done>,
}

struct Job {
    tables: Box<Tables>,
    changes: Vec<RowChange>,
}

/// A checkpoint that is over.
struct Done {
    tables: Box<Tables>,
    changes: Vec<RowChange>,
    outcome: Result<(), FileError>,
}

impl Checkpoints {
    fn start() -> Self {
        let ((jobs, queue), (answers, done)) = (mpsc::channel::<Job>(), mpsc::channel());
        let work = move || {
            for Job { mut tables, changes } in queue {
                let outcome = tables.apply(&changes);
                if answers.send(Done { tables, changes, outcome }).is_err() {
                    // The store is gone without waiting; the next opening finds what the tables have.
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(work)
            .expect("a process that could open a file can start a thread");
        Self { jobs, done }
    }
}

/// An error with all its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
