//! The thread that brings what the log has into the tables, beside commits.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    time::{Duration, Instant},
};

use tracing::error;

use super::{error::FileError, row::RowChange, tables::Tables};

/// The thread that makes checkpoints beside commits.
pub struct Checkpoints {
    pub jobs: mpsc::Sender<Job>,
    pub done: mpsc::Receiver<Done>,
}

/// What is to be brought into the tables. They come back with [`Done`].
pub struct Job {
    pub tables: Box<Tables>,
    pub changes: Vec<RowChange>,
}

/// A checkpoint that is over.
pub struct Done {
    pub tables: Box<Tables>,
    pub changes: Vec<RowChange>,
    pub outcome: Result<(), FileError>,
    pub took: Duration,
}

impl Checkpoints {
    pub fn start() -> Self {
        let ((jobs, queue), (answers, done)) = (mpsc::channel::<Job>(), mpsc::channel());
        let work = move || {
            for Job { mut tables, changes } in queue {
                let begun = Instant::now();
                let outcome = catch_unwind(AssertUnwindSafe(|| tables.apply(&changes))).unwrap_or_else(|_| {
                    error!("the tables panicked; they are opened again");
                    // To close them may panic once more.
                    drop(catch_unwind(AssertUnwindSafe(|| tables.close())));
                    let message = "the database panicked".into();
                    Err(FileError::Behind { path: tables.path().to_owned(), message, no_space: false })
                });
                if answers.send(Done { tables, changes, outcome, took: begun.elapsed() }).is_err() {
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
