//! The store inside the process: everything in memory for reads, a log and a redb file for durability.

mod ages;
mod checkpoint;
mod checkpoint_thread;
mod committer;
mod damaged_bases;
pub(super) mod dense_copy;
pub(super) mod disk;
mod error;
pub(super) mod file;
mod freed_texts;
mod kept;
mod last_changes;
mod loading;
mod opening;
pub(super) mod packed_row;
mod quarantine;
mod read_ahead;
mod recovered;
mod row;
mod seal_damage;
mod segment;
mod space;
pub(super) mod stored_base;
mod stored_history;
mod stored_record;
pub(super) mod tables;
mod tables_owner;
mod unpacked_rows;
pub(super) mod write_ahead;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    ages::Ages,
    committer::{Alone, Committer, Inspect, Outcome, Request, Reread, Work},
    file::File,
    kept::Kept,
    last_changes::LastChanges,
    quarantine::{Loaded, RowReader},
    recovered::Recovered,
};
use super::{
    BetweenWrites, CommitError, Decode, Event, Expired, Key, Object, Remake, SharedFrame, Snapshot, Stats, Store,
    Subscription, Topic, Transaction, no_answer,
    references::References,
    seal::{Seal, Sealer},
    stats::Counters,
};

pub use self::{
    damaged_bases::{BaseDamage, DamagedBases},
    error::FileError as OpenError,
    seal_damage::SealDamage,
};

/// The embedded store. Dropping it waits for the transaction under way and closes the file.
pub struct Embedded {
    published: Arc<Published>,
    /// `None` while the store is being dropped: the committer ends when no sender is left.
    requests: Option<mpsc::Sender<Work>>,
    committer: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    /// What the opening found.
    loaded: Loaded,
    sealer: Sealer,
    closed: watch::Receiver<()>,
}

/// What readers see: changed by the committer alone.
struct Published {
    state: ArcSwap<Snapshot>,
    /// The lock is held to find a topic, never while one is made from the file's history.
    topics: RwLock<HashMap<Arc<str>, LazyTopic>>,
    /// The revision up to which every topic has received its events.
    revision: AtomicU64,
    /// Where the topics begin after a restart: a watch that saw the last change of its resource continues, and only
    /// the others list again.
    starts: LastChanges,
    /// The changes before the opening, of which the topics begin.
    recovered: ArcSwapOption<Recovered>,
    /// The same as `revision`, for those who wait.
    latest: watch::Sender<u64>,
    kept: Mutex<Kept>,
    ages: Mutex<Ages>,
}

/// A topic that is made when it is first asked for.
type LazyTopic = Arc<OnceLock<Arc<Topic>>>;

/// How long it may take until the events of a state are in their topics.
const PUBLISHING: Duration = Duration::from_secs(1);
/// Requests that may wait for the committer; further writers wait for room.
const QUEUE: usize = 8192;

impl Embedded {
    /// Opens or makes the store in the file `path`. Reads all of it into memory. An object that `decode` cannot
    /// read is logged, counted and kept aside in the file: see `quarantine.rs`.
    ///
    /// A file whose damage reaches many objects is refused: see [`DamagedBases::Refuse`].
    pub fn open(path: &Path, decode: impl Decode + 'static) -> Result<Self, OpenError> {
        Self::open_damaged(path, decode, DamagedBases::Refuse)
    }

    /// The same, for a file whose damage may reach many objects.
    pub fn open_damaged(
        path: &Path,
        decode: impl Decode + 'static,
        damaged_bases: DamagedBases,
    ) -> Result<Self, OpenError> {
        Self::open_sealed(path, decode, damaged_bases, None)
    }

    /// The same, with the values of some resources encrypted at rest.
    ///
    /// Objects that cannot be decrypted are as those of damaged bases: see [`SealDamage`].
    pub fn open_sealed(
        path: &Path,
        decode: impl Decode + 'static,
        damaged_bases: DamagedBases,
        seal: Option<Arc<dyn Seal>>,
    ) -> Result<Self, OpenError> {
        Self::load(File::open(path, Sealer::new(seal))?, decode, damaged_bases)
    }

    /// Starts a store from its open file.
    pub(super) fn load(
        mut file: File,
        decode: impl Decode + 'static,
        damaged_bases: DamagedBases,
    ) -> Result<Self, OpenError> {
        let decode: Arc<dyn Decode> = Arc::new(decode);
        let mut state = Snapshot::default();
        let mut resources: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        file.keep_headers(decode.clone());
        let sealer = file.sealer();
        let loaded = file.load(&mut RowReader {
            decode: &*decode,
            keep: &mut |resource, name, object| {
                let resource = resources.entry(resource).or_insert_with_key(Arc::clone).clone();
                state.load(Key { resource, name }, object);
            },
            damaged_bases,
            seal: sealer.get(),
        })?;
        let revision = loaded.revision;
        let starts = file.last_changes(revision)?;
        state.revision = revision;
        let recovered = file
            .history(revision)?
            .map(|records| Arc::new(Recovered::new(state.clone(), records, decode, Instant::now())));
        let published = Arc::new(Published {
            state: ArcSwap::from_pointee(state),
            topics: RwLock::default(),
            revision: AtomicU64::new(revision),
            starts,
            recovered: ArcSwapOption::from(recovered),
            latest: watch::Sender::new(revision),
            kept: Mutex::default(),
            ages: Mutex::default(),
        });
        let counters = Arc::new(Counters::default());
        counters.freed_texts.store(file.has_freed_texts() == Some(true), Ordering::Relaxed);
        let (requests, queue) = mpsc::channel(QUEUE);
        let committer = Committer {
            file,
            published: published.clone(),
            counters: counters.clone(),
            doubtful: None,
            is_full: false,
            references: References::default(),
            quarantined_keys: loaded.quarantined_keys.clone(),
        };
        let (closing, closed) = watch::channel(());
        let committer = std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || {
                committer.run(queue);
                drop(closing);
            })
            .expect("a process that could open a file can start a thread");
        let committer = Some(committer);
        Ok(Self { published, requests: Some(requests), committer, counters, loaded, sealer, closed })
    }

    /// What a watch of it ends with: the store's files are closed, after its last user has dropped it.
    pub fn closed(&self) -> watch::Receiver<()> {
        self.closed.clone()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Without senders, the committer ends.
        self.requests = None;
        if self.committer.take().is_some_and(|committer| committer.join().is_err()) {
            tracing::error!("the store's committer had panicked");
        }
    }
}

impl Published {
    fn snapshot(&self) -> Snapshot {
        Snapshot::clone(&self.state.load())
    }

    fn topic(&self, resource: &str) -> Arc<Topic> {
        let known = self.topics.read().get(resource).cloned();
        let topic = known.unwrap_or_else(|| self.topics.write().entry(Arc::from(resource)).or_default().clone());
        topic.get_or_init(|| Arc::new(self.first_topic(resource))).clone()
    }

    /// All topics that somebody asked for.
    fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().values().filter_map(|topic| topic.get().cloned()).collect()
    }

    /// A topic that knows what the file says of the changes before the opening.
    fn first_topic(&self, resource: &str) -> Topic {
        match self.recovered.load().as_ref().and_then(|recovered| recovered.take(resource)) {
            Some(history) => Topic::of(history),
            None => Topic::new(self.starts.of(resource)),
        }
    }

    /// The objects of a resource at a revision in the past, made from the changes since.
    fn rewind(&self, resource: &str, revision: u64) -> Result<Snapshot, Expired> {
        let mut state = self.snapshot();
        let expired = |oldest: u64| Expired { asked: revision, oldest };
        // What the state holds has its events in the topic a moment later.
        let asked = Instant::now();
        while self.revision.load(Ordering::Acquire) < state.revision {
            if asked.elapsed() > PUBLISHING {
                return Err(expired(state.revision));
            }
            std::thread::yield_now();
        }
        let mut events = self.topic(resource).after(revision)?;
        events.retain(|event| event.object.revision <= state.revision);
        state.rewind(resource, revision, &events);
        Ok(state)
    }

    /// Publishes the state before the events: a client that learns of a change by its watch must find it by a get.
    fn publish(&self, state: Snapshot, events: Vec<Event>) {
        let revision = state.revision;
        self.state.store(Arc::new(state));
        let mut by_resource: Vec<(Arc<str>, Vec<Arc<Event>>)> = Vec::new();
        for event in events {
            let resource = event.key.resource.clone();
            match by_resource.iter_mut().find(|(known, _)| *known == resource) {
                Some((_, list)) => list.push(Arc::new(event)),
                None => by_resource.push((resource, vec![Arc::new(event)])),
            }
        }
        for (resource, events) in by_resource {
            self.topic(&resource).publish(events);
        }
        self.revision.store(revision, Ordering::Release);
        self.latest.send_replace(revision);
    }
}

#[async_trait::async_trait]
impl Store for Embedded {
    fn snapshot(&self) -> Snapshot {
        self.published.snapshot()
    }

    fn snapshot_at(&self, resource: &str, revision: u64) -> Result<Snapshot, Expired> {
        let current = self.published.snapshot();
        if current.revision == revision {
            return Ok(current);
        }
        if current.revision < revision {
            return Err(Expired { asked: revision, oldest: current.revision });
        }
        let oldest = self.published.ages.lock().oldest();
        if revision < oldest {
            return Err(Expired { asked: revision, oldest });
        }
        let kept = self.published.kept.lock().get(revision).cloned();
        kept.map_or_else(|| self.published.rewind(resource, revision), Ok)
    }

    async fn wait_for(&self, revision: u64, within: Duration) -> u64 {
        let mut latest = self.published.latest.subscribe();
        let reached = latest.wait_for(|latest| *latest >= revision);
        // Either way, what was reached is told below; the sender lives as long as the store.
        drop(tokio::time::timeout(within, reached).await);
        self.published()
    }

    fn keep(&self, snapshot: &Snapshot, user: &str) {
        if !snapshot.is_rewound() {
            self.published.kept.lock().keep(snapshot, user, Instant::now());
        }
    }

    fn published(&self) -> u64 {
        self.published.revision.load(Ordering::Acquire)
    }

    fn watch(&self, resource: &str, after: u64) -> Result<Subscription, Expired> {
        self.published.topic(resource).subscribe(after)
    }

    fn watch_by(&self, resource: &str, (index, value): (&str, &str), after: u64) -> Result<Subscription, Expired> {
        self.published.topic(resource).subscribe_by(index, value, after)
    }

    fn is_stale(&self, resource: &str, object: &Object) -> bool {
        object.seal_key() != self.sealer.key(resource)
    }

    fn stats(&self) -> Stats {
        let closed = self.committer.as_ref().is_none_or(JoinHandle::is_finished);
        let Loaded { quarantined, row_bytes, file_bytes, .. } = self.loaded;
        let mut stats = Stats { quarantined, row_bytes, file_bytes, closed, ..Stats::default() };
        self.counters.fill(&mut stats);
        for topic in self.published.topics() {
            stats.watches += topic.readers() as u64;
            stats.watch_wakes += topic.wakes();
        }
        stats
    }

    async fn commit_all(&self, transactions: Vec<Transaction>) -> Vec<Outcome> {
        let count = transactions.len();
        let closed = || vec![Err(CommitError::Unavailable { message: "it has been closed".into() }); count];
        let (reply, answer) = oneshot::channel();
        let Some(requests) = &self.requests else { return closed() };
        // Counted before it is sent: the committer may take it at once.
        let Ok(room) = requests.reserve().await else { return closed() };
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
        room.send(Work::Commit(Request { transactions, reply }));
        answer.await.unwrap_or_else(|_| (0..count).map(|_| no_answer()).collect())
    }

    async fn reread(&self, resource: &str, remake: Remake) {
        let Some(requests) = &self.requests else { return };
        let (state, of) = (self.published.snapshot(), resource.to_owned());
        // Beside the committer: only what was written meanwhile is left to it.
        let made = tokio::task::spawn_blocking(move || (state.remake(&of, &*remake), remake)).await;
        let Ok((remade, remake)) = made else {
            tracing::error!(resource, "objects could not be read anew; they stay as they were");
            return;
        };
        let (reply, answer) = oneshot::channel();
        let reread = Reread { resource: resource.to_owned(), remade, remake, reply };
        if requests.send(Work::Alone(Alone::Reread(reread))).await.is_ok() {
            // Without an answer the store has closed, and nobody reads from it any more.
            drop(answer.await);
        }
    }

    async fn between_writes(&self, work: BetweenWrites) -> Result<(), CommitError> {
        let closed = || CommitError::Unavailable { message: "it has been closed".into() };
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        let sent = requests.send(Work::Alone(Alone::Inspect(Inspect { work, reply }))).await;
        sent.map_err(|_| closed())?;
        answer.await.or_else(|_| no_answer())
    }

    fn compact(&self, revision: u64) {
        for topic in self.published.topics() {
            topic.forget(revision);
        }
    }

    fn trim(&self, now: Instant) -> usize {
        self.published.ages.lock().note(self.published(), now);
        self.published.kept.lock().trim(now);
        if self.published.recovered.load().as_ref().is_some_and(|recovered| recovered.is_over(now)) {
            self.published.recovered.store(None);
        }
        SharedFrame::drop_unused();
        self.published.topics().iter().map(|topic| topic.trim(now)).sum()
    }
}
