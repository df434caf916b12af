//! What the store counts of itself, for metrics and the readiness check.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::CommitError;

/// The counts of a store at one moment. Counters begin with the process.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Transactions that were committed.
    pub committed: u64,
    /// Transactions that were refused because a key was not as expected.
    pub conflicts: u64,
    /// Transactions that failed because the store could not write.
    pub failed: u64,
    /// Writes of the committed transactions.
    pub writes: u64,
    /// How long it took to make each batch of transactions durable, failed ones included.
    pub sync_seconds: Histogram,
    /// Calls that wait for the committer.
    pub queued: u64,
    /// Why the last batch failed; nothing since a batch was committed again.
    pub last_error: Option<CommitError>,
    /// How long the batch under way has been worked on.
    pub committing_for: Option<Duration>,
    /// Whether the store no longer takes writes, for good.
    pub closed: bool,
    /// How many bytes of text the write-ahead log has that the tables lack.
    pub log_bytes: u64,
    /// How long it took to bring what the log has into the tables, failed tries included.
    pub checkpoint_seconds: Histogram,
    /// How many of these tries failed.
    pub checkpoint_failures: u64,
    /// How many watches there are.
    pub watches: u64,
    /// How often a change was told to a watch.
    pub watch_wakes: u64,
    /// Objects of the file that could not be read when it was opened, and are kept aside.
    pub quarantined: u64,
    /// How long the rows of objects were in the tables' file when it was opened, and the texts that they share.
    pub row_bytes: u64,
    /// How long that file was. A stop makes one smaller that is much longer.
    pub file_bytes: u64,
    /// Whether free places of that file may have texts that are encrypted now: until a stop has made another. As of the
    /// last batch.
    pub freed_texts: bool,
}

impl Stats {
    /// Whether the store works, as far as the last write told. A full disk is no reason to call it broken: reads go on,
    /// and only they and deletions can make space.
    pub fn check(&self) -> Result<(), StoreFault> {
        if self.closed {
            return Err(StoreFault::Closed);
        }
        match (&self.last_error, self.committing_for) {
            (
                Some(
                    error @ (CommitError::Conflict { .. }
                    | CommitError::Refused { .. }
                    | CommitError::Unavailable { .. }),
                ),
                _,
            ) => Err(StoreFault::LastCommit(error.clone())),
            (None | Some(CommitError::Full { .. }), Some(time)) if time > STUCK => Err(StoreFault::Stuck { time }),
            (None | Some(CommitError::Full { .. }), _) => Ok(()),
        }
    }
}

/// Why a store does not take writes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreFault {
    /// It was closed, with the program or by a broken file. Start the program again.
    #[error("the store is closed")]
    Closed,
    /// The last batch could not be made durable. The cause names the file: it is for the log, not for clients.
    #[error("the last commit failed")]
    LastCommit(#[source] CommitError),
    /// The disk does not answer.
    #[error("a commit has been under way for {} s", .time.as_secs())]
    Stuck {
        /// Since the commit began.
        time: Duration,
    },
}

/// A commit that takes longer than this counts as stuck.
const STUCK: Duration = Duration::from_secs(10);

/// Durations, counted by size.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// One for each of [`BOUNDS`], and one for all that is longer. Not cumulative.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Sum of all durations.
    pub sum_seconds: f64,
}

/// Upper bounds of the histogram's buckets in seconds: those of etcd's `disk_backend_commit_duration_seconds`.
pub const BOUNDS: [f64; 14] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];

/// The committer's counters: it alone writes them, but for `queued`.
#[derive(Debug, Default)]
pub struct Counters {
    /// See [`Stats::committed`].
    pub committed: AtomicU64,
    /// See [`Stats::conflicts`].
    pub conflicts: AtomicU64,
    /// See [`Stats::failed`].
    pub failed: AtomicU64,
    /// See [`Stats::writes`].
    pub writes: AtomicU64,
    /// See [`Stats::queued`].
    pub queued: AtomicU64,
    /// See [`Stats::log_bytes`].
    pub log_bytes: AtomicU64,
    /// See [`Stats::checkpoint_failures`].
    pub checkpoint_failures: AtomicU64,
    /// See [`Stats::freed_texts`].
    pub freed_texts: AtomicBool,
    /// The file is at another revision than the store: only a start reads it anew.
    pub diverged: AtomicBool,
    syncs: Durations,
    checkpoints: Durations,
    last_error: Mutex<Option<CommitError>>,
    started: Mutex<Option<Instant>>,
}

impl Counters {
    /// A batch is begun.
    pub fn begin(&self) {
        *self.started.lock() = Some(Instant::now());
    }

    /// The batch that was begun is answered.
    pub fn end(&self) {
        *self.started.lock() = None;
    }

    /// A batch was made durable in this time, or not.
    pub fn synced(&self, took: Duration, error: Option<CommitError>) {
        self.syncs.add(took);
        *self.last_error.lock() = error;
    }

    /// What the log has was brought into the tables in this time, or not.
    pub fn checkpointed(&self, took: Duration, succeeded: bool) {
        self.checkpoints.add(took);
        if !succeeded {
            Self::add(&self.checkpoint_failures, 1);
        }
    }

    /// The store cannot be written, for a reason found before the batch was tried.
    pub fn refused(&self, error: CommitError) {
        *self.last_error.lock() = Some(error);
    }

    /// Adds `count` to a counter.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The counts of the committer; the rest is left as it is.
    pub fn fill(&self, stats: &mut Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.committed = read(&self.committed);
        stats.conflicts = read(&self.conflicts);
        stats.failed = read(&self.failed);
        stats.writes = read(&self.writes);
        stats.queued = read(&self.queued);
        stats.log_bytes = read(&self.log_bytes);
        stats.sync_seconds = self.syncs.histogram();
        stats.checkpoint_seconds = self.checkpoints.histogram();
        stats.checkpoint_failures = read(&self.checkpoint_failures);
        stats.freed_texts = self.freed_texts.load(Ordering::Relaxed);
        stats.closed |= self.diverged.load(Ordering::Relaxed);
        stats.last_error = self.last_error.lock().clone();
        stats.committing_for = self.started.lock().map(|since| since.elapsed());
    }
}

/// A [`Histogram`] that is being counted.
#[derive(Debug, Default)]
struct Durations {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Durations {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn histogram(&self) -> Histogram {
        Histogram {
            counts: std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
            sum_seconds: self.sum_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_leaves_the_store_ready_for_reads_and_other_failures_do_not() {
        let after = |error: Option<CommitError>| Stats { last_error: error, ..Stats::default() }.check();
        assert!(after(None).is_ok());
        assert!(after(Some(CommitError::Full { path: "store".into() })).is_ok());
        let gone = after(Some(CommitError::Unavailable { message: "/data/store is gone".into() }));
        assert_eq!(gone.unwrap_err().to_string(), "the last commit failed", "no path is told");
        let stuck = Stats { committing_for: Some(Duration::from_secs(60)), ..Stats::default() };
        assert!(stuck.check().is_err());
        let (mut stats, counters) = (Stats::default(), Counters::default());
        counters.diverged.store(true, Ordering::Relaxed);
        counters.fill(&mut stats);
        assert!(matches!(stats.check(), Err(StoreFault::Closed)));
    }
}
