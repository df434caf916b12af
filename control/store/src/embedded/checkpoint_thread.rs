//! The thread that brings what the log has into the tables, beside commits.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{error::FileError, row::RowChange, tables::Tables};

/// The thread that makes checkpoints beside commits.
pub struct Checkpoints {
    pub jobs: mpsc::Sender<CheckpointJob>,
    pub done: mpsc::Receiver<CheckpointResult>,
}

/// What is to be brought into the tables. They come back with [`CheckpointResult`].
pub struct CheckpointJob {
    pub tables: Box<Tables>,
    pub changes: Vec<RowChange>,
}

/// A checkpoint that is over.
pub struct CheckpointResult {
    pub tables: Box<Tables>,
    pub changes: Vec<RowChange>,
    pub outcome: Result<(), FileError>,
    pub took: Duration,
}

impl Checkpoints {
    pub fn start() -> Self {
        let ((jobs, queue), (answers, done)) = (mpsc::channel::<CheckpointJob>(), mpsc::channel());
        let work = move || {
            for CheckpointJob { mut tables, changes } in queue {
                let begun = Instant::now();
                let outcome = tables.apply(&changes);
                if answers.send(CheckpointResult { tables, changes, outcome, took: begun.elapsed() }).is_err() {
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
