//! Group commit: one thread takes all transactions that wait, decides each against the state so far, and makes them
//! durable together, in one record of the log. Only then are they published and answered.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::{File, Published, error::with_causes, space};
use crate::{
    BetweenWrites, CommitError, Event, Object, Remade, Remake, Snapshot, StoredStates, Transaction,
    references::References, seal::QuarantinedKeys, stats::Counters,
};

/// What waits for the committer.
pub enum Work {
    Commit(Request),
    Alone(Alone),
}

/// What is done between batches.
pub enum Alone {
    Reread(Reread),
    Inspect(Inspect),
}

/// Objects that are to be made anew: see [`Store::reread`](crate::Store::reread).
pub struct Reread {
    pub resource: String,
    /// What was made of them already.
    pub remade: Remade,
    /// Makes those that were written since.
    pub remake: Remake,
    pub reply: oneshot::Sender<()>,
}

/// See [`Store::between_writes`](crate::Store::between_writes).
pub struct Inspect {
    pub work: BetweenWrites,
    pub reply: oneshot::Sender<()>,
}

/// Transactions that wait for the committer.
pub struct Request {
    /// Each is committed or refused on its own.
    pub transactions: Vec<Transaction>,
    /// Gets one outcome per transaction, in their order.
    pub reply: oneshot::Sender<Vec<Outcome>>,
}

/// What became of one transaction.
pub type Outcome = Result<Vec<Arc<Object>>, CommitError>;

/// A batch takes no further request once it has this many writes, or this many bytes.
const MAX_WRITES: usize = 4096;
const MAX_BYTES: usize = 32 << 20;

/// The one writer of the file, run by a thread of its own.
pub struct Committer {
    /// Where batches become durable.
    pub file: File,
    /// What readers and watches see; changed once a batch is durable.
    pub published: Arc<Published>,
    /// For [`Stats`](crate::Stats).
    pub counters: Arc<Counters>,
    /// The state after a batch whose commit failed with an error. It may have become durable nevertheless.
    pub doubtful: Option<(Snapshot, Vec<Event>)>,
    /// The disk was full, and no write that needs space was made since.
    pub is_full: bool,
    /// What the texts of new objects are encoded against.
    pub references: References,
    /// What the opening found.
    pub quarantined_keys: QuarantinedKeys,
}

impl Committer {
    /// Works until all senders of requests are gone and all requests are answered.
    pub fn run(mut self, mut requests: mpsc::Receiver<Work>) {
        // The opening may have left something in the log, and may have made a checkpoint.
        self.count_checkpoints();
        while let Some(first) = requests.blocking_recv() {
            let first = match first {
                Work::Commit(request) => request,
                Work::Alone(work) => {
                    self.alone(work);
                    continue;
                }
            };
            let mut alone = None;
            let mut size = measure(&first.transactions);
            let mut batch = vec![first];
            while size.0 < MAX_WRITES && size.1 < MAX_BYTES {
                let next = match requests.try_recv() {
                    Ok(Work::Commit(next)) => next,
                    // After the batch, in whose order it came.
                    Ok(Work::Alone(found)) => {
                        alone = Some(found);
                        break;
                    }
                    Err(_) => break,
                };
                let more = measure(&next.transactions);
                size = (size.0 + more.0, size.1 + more.1);
                batch.push(next);
            }
            self.counters.queued.fetch_sub(batch.len() as u64, Ordering::Relaxed);
            self.counters.begin();
            // A batch that panics must not end the committer, and with it all writes. Its writers are told that there
            // is no answer.
            let parts = if self.is_full { split(batch) } else { vec![batch] };
            if catch_unwind(AssertUnwindSafe(|| self.commit_parts(parts))).is_err() {
                error!("a batch of writes panicked; the store goes on without it");
                // What of it became durable is found out as after an error of the disk.
                self.file.close();
            }
            self.counters.end();
            if let Some(work) = alone {
                self.alone(work);
            }
        }
        self.file.finish();
    }

    fn alone(&mut self, work: Alone) {
        match work {
            Alone::Reread(reread) => self.reread(reread),
            Alone::Inspect(inspect) => self.inspect(inspect),
        }
    }

    fn inspect(&mut self, Inspect { work, reply }: Inspect) {
        let doubtful = self.doubtful.iter().map(|(state, _)| state.clone());
        let states: Vec<Snapshot> = [self.published.snapshot()].into_iter().chain(doubtful).collect();
        let stored = StoredStates { states: &states, quarantined: &self.quarantined_keys };
        if catch_unwind(AssertUnwindSafe(|| work(&stored))).is_err() {
            error!("what was to be done between writes panicked; the store goes on without it");
            return;
        }
        if reply.send(()).is_err() {
            // Who asked has gone away; it was done.
        }
    }

    /// Nothing of it is written to the file, which holds the texts that it is made from.
    fn reread(&mut self, Reread { resource, remade, remake, reply }: Reread) {
        let put = catch_unwind(AssertUnwindSafe(|| {
            let mut state = self.published.snapshot();
            state.reread(&resource, &remade, &*remake);
            self.published.publish(state, Vec::new());
            if let Some((doubtful, _)) = &mut self.doubtful {
                doubtful.reread(&resource, &remade, &*remake);
            }
        }));
        if put.is_err() {
            error!(resource, "objects could not be read anew; they stay as they were");
        }
        if reply.send(()).is_err() {
            // Who asked has gone away; the objects are as they must be.
        }
    }

    /// Once a part has closed the log, the rest goes together: to open it again may take long, and is tried once.
    fn commit_parts(&mut self, parts: Vec<Vec<Request>>) {
        let mut parts = parts.into_iter();
        while let Some(part) = parts.next() {
            self.commit(part);
            if !self.file.is_open() {
                let rest: Vec<Request> = parts.by_ref().flatten().collect();
                if !rest.is_empty() {
                    self.commit(rest);
                }
            }
        }
    }

    fn commit(&mut self, batch: Vec<Request>) {
        if let Err(error) = self.recover() {
            self.counters.refused(error.clone());
            for request in batch {
                let refused = request.transactions.iter().map(|_| Err(error.clone())).collect();
                self.answer(request.reply, refused);
            }
            return;
        }
        let mut state = self.published.snapshot();
        let (mut events, mut changes, mut frees) = (Vec::new(), Vec::new(), true);
        let mut answers = Vec::with_capacity(batch.len());
        for request in batch {
            let mut results: Vec<Outcome> = Vec::with_capacity(request.transactions.len());
            for transaction in request.transactions {
                let begin = events.len();
                // Not made for others: a write would have to copy what it could otherwise change in place.
                let is_sealed = transaction.writes.iter().any(|write| self.file.seals(&write.key.resource));
                let before = is_sealed.then(|| state.clone());
                let mut result = state.apply(transaction, &mut events, &mut self.references);
                match self.file.changes_of(&events[begin..], is_sealed) {
                    Ok(more) => changes.extend(more),
                    Err(error) => {
                        warn!(error = &error as &dyn std::error::Error, "a write is refused");
                        events.truncate(begin);
                        state = before.unwrap_or(state);
                        result = Err(CommitError::Unavailable { message: with_causes(&error) });
                    }
                }
                results.push(result);
                frees &= space::frees(&events[begin..]);
            }
            answers.push((request.reply, results));
        }
        if events.is_empty() {
            answers.into_iter().for_each(|(reply, results)| self.answer(reply, results));
            return;
        }
        let (begun, writes) = (Instant::now(), events.len());
        let made = self.file.commit(changes, frees);
        self.count_checkpoints();
        self.counters.synced(begun.elapsed(), made.as_ref().err().map(|error| error.for_writers()));
        match made {
            Ok(()) => {
                self.is_full &= frees;
                Counters::add(&self.counters.writes, writes);
                self.published.publish(state, events);
                answers.into_iter().for_each(|(reply, results)| self.answer(reply, results));
            }
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "a write to the store failed");
                self.is_full = error.no_space();
                let refusal = error.for_writers();
                if !self.file.is_open() {
                    self.doubtful = Some((state, events));
                }
                for (reply, results) in answers {
                    // A conflict was seen against writes of the same batch, which did not happen: refuse all alike.
                    self.answer(reply, results.iter().map(|_| Err(refusal.clone())).collect());
                }
            }
        }
    }

    fn count_checkpoints(&mut self) {
        self.counters.log_bytes.store(self.file.waiting_bytes(), Ordering::Relaxed);
        if let Some(freed_texts) = self.file.has_freed_texts() {
            self.counters.freed_texts.store(freed_texts, Ordering::Relaxed);
        }
        for finished in self.file.take_finished() {
            self.counters.checkpointed(finished.took, finished.succeeded);
        }
    }

    fn answer(&self, reply: oneshot::Sender<Vec<Outcome>>, results: Vec<Outcome>) {
        for result in &results {
            let counter = match result {
                Ok(_) => &self.counters.committed,
                Err(CommitError::Conflict { .. } | CommitError::Refused { .. }) => &self.counters.conflicts,
                Err(CommitError::Full { .. } | CommitError::Unavailable { .. }) => &self.counters.failed,
            };
            Counters::add(counter, 1);
        }
        // The writer may have gone away; its writes stand.
        drop(reply.send(results));
    }

    /// Opens the file again after an error, and finds out what became of the batch that failed.
    fn recover(&mut self) -> Result<(), CommitError> {
        let durable = match self.file.reopen() {
            Ok(None) => return Ok(()),
            Ok(Some(revision)) => {
                self.counters.diverged.store(false, Ordering::Relaxed);
                revision
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the store cannot be opened again yet");
                // A caller that retries at once must not make this a busy loop.
                std::thread::sleep(Duration::from_millis(20));
                return Err(error.for_writers());
            }
        };
        match self.doubtful.take() {
            Some((state, events)) if state.revision == durable => {
                info!(revision = durable, "the store is back; the writes that were reported as failed had been made");
                self.published.publish(state, events);
                Ok(())
            }
            _ if durable == self.published.snapshot().revision => {
                info!(revision = durable, "the store is back");
                Ok(())
            }
            _ => {
                let message = format!(
                    "the file is at revision {durable}, the store at {}: it was changed by someone else",
                    self.published.snapshot().revision
                );
                self.file.close();
                self.counters.diverged.store(true, Ordering::Relaxed);
                Err(CommitError::Unavailable { message })
            }
        }
    }
}

/// On a full disk each request is committed alone, those first that make space: what does not fit holds up nothing
/// else.
fn split(mut batch: Vec<Request>) -> Vec<Vec<Request>> {
    batch.sort_by_key(|request| !request.transactions.iter().all(space::will_free));
    batch.into_iter().map(|request| vec![request]).collect()
}

/// How many writes, and how many bytes of text.
fn measure(transactions: &[Transaction]) -> (usize, usize) {
    let writes = transactions.iter().map(|transaction| transaction.writes.len());
    (writes.sum(), transactions.iter().map(Transaction::size).sum())
}
