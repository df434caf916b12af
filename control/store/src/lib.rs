//! Objects by key and revision: transactions over several keys, consistent lists, and watches.
//!
//! ```text
//! writers ── Transaction ──▶ queue ──▶ committer ──▶ log (one sync for a whole batch) ─ ─▶ tables
//!                                         │ durable
//!                                         ├──▶ Snapshot: what gets and lists read
//!                                         ├──▶ Topic of each resource: what watches read
//!                                         └──▶ answers to the writers
//! ```
//!
//! The store decides which write wins and in which order writes are seen. It never looks into an object: what its bytes
//! say is decided by `api`, which also makes the [`Header`] kept beside them.
//!
//! Nouns:
//! - **revision**: counts the writes of the whole store, from 1. Each write has its own.
//! - **transaction**: writes that are made together or not at all, with what they require of other keys.
//! - **batch**: the transactions that become durable with one sync. Each is decided on its own.
//! - **snapshot**: all objects at one revision, as persistent maps: a clone costs nothing, and nothing changes it.
//! - **index**: a selectable field by which lists and watches find objects without a look at the others.
//! - **term**: the value of one object under one index.
//! - **history**: recent events in order, bounded by count, bytes and age. A reader that falls behind it is
//!   [`Expired`].
//! - **stored history**: the latest changes as the file keeps them, of which the histories begin after a restart.
//! - **topic**: the history of a resource and its **feeds**, one for each indexed value that somebody watches.
//! - **log**: the write-ahead log, in which batches become durable; **tables**: the redb database, into which a
//!   **checkpoint** brings what the log has.
//! - **quarantine**: rows of the file that this program cannot read, kept aside.
//! - **reference**: a recent text of a resource, against which similar ones are delta-encoded: it is their **base**.
//! - **packed**: an object's text as its difference from the base, beside its header: as in memory and in the file.
//! - **sealed**: encrypted before it reaches the disk, as the values of some resources are: see `seal`.
//! - **mark**: a number of the program; it tells whether a stored header is as this program would make it.
//!
//! A write is answered when it is durable, and is visible to reads and watches from then on, never before.
//!
//! Files: `transaction` (what writers ask), `object` (an object in memory) with its `header`, `packed`, `base`, `delta`
//! and `references` (its text as a difference from another, with `varint`), `seal` (encryption at rest), `shared_frame`
//! (frames that readers share), `table` and `snapshot` (the state), `history` and `topic` (the changes), `stats`
//! (counts), `embedded/committer` (the one writer), `embedded/file` (durability) over `embedded/write_ahead` and
//! `embedded/tables`, `embedded/packed_row` and `embedded/stored_base` (objects in the tables), `embedded/loading` (the
//! start), `embedded/stored_history`, `embedded/stored_record` and `embedded/recovered` (changes before a restart),
//! `embedded/quarantine`, `embedded/damaged_bases` and `embedded/seal_damage` (what cannot be read),
//! `embedded/unpacked_rows` and `embedded/dense_copy` (a smaller file). How to inspect it: [`Store::stats`], served
//! under `/metrics` and as the readiness check `store`; `examples/store_bench.rs` measures it.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod base;
mod delta;
pub mod embedded;
mod header;
mod history;
mod object;
mod packed;
mod references;
pub mod seal;
mod shared_frame;
#[cfg(test)]
#[path = "../../../tests/skipped.rs"]
mod skipped;
mod snapshot;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod topic;
mod transaction;
mod varint;

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

pub use embedded::{BaseDamage, DamagedBases, Embedded, OpenError, SealDamage};
pub use header::{Header, HeaderParts, Owner, PackedHeader, StoredCell};
pub use history::{Event, EventType, History};
pub use object::{Draft, KEY_INDEX, MANAGED_FIELDS, NAME_INDEX, NAMESPACE_INDEX, Object, RESOURCE_VERSION};
pub use shared_frame::SharedFrame;
pub use snapshot::Snapshot;
pub use stats::{BOUNDS as SYNC_SECONDS_BOUNDS, Histogram, Stats, StoreFault};
pub use table::Table;
pub use topic::{Subscription, Topic};
pub use transaction::{
    Amendment, AmendmentError, Change, CommitError, Condition, Expect, Requirement, Transaction, Write,
};

/// Where an object is kept: its resource (`pods`, `deployments.apps`) and its key in it (`namespace/name`, or `name`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `pods`, `deployments.apps`
    pub resource: Arc<str>,
    /// `namespace/name`, or `name`
    pub name: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource, self.name)
    }
}

/// Makes an object anew; `None` leaves it as it is.
pub type Remake = Box<dyn Fn(&Object) -> Option<Draft> + Send>;

/// Objects that were made anew, by key: the revision of each that was read, and what became of it.
pub type Remade = HashMap<Arc<str>, (u64, Option<Arc<Object>>)>;

/// Makes the objects that are read from the store's file.
pub trait Decode: Send + Sync {
    /// Of the resource, the key in it, and the stored JSON text: the text in its layout, and its header.
    fn decode(&self, resource: &str, name: &str, json: &[u8]) -> Result<Draft, serde_json::Error>;

    /// What the headers of a resource are made by, if they follow from the text alone: as long as it stays the same, a
    /// header that was stored is the one that [`Decode::decode`] would make.
    fn mark(&self, resource: &str) -> Option<u64>;
}

impl<F: Fn(&str, &str, &[u8]) -> Result<Draft, serde_json::Error> + Send + Sync> Decode for F {
    fn decode(&self, resource: &str, name: &str, json: &[u8]) -> Result<Draft, serde_json::Error> {
        self(resource, name, json)
    }

    fn mark(&self, _: &str) -> Option<u64> {
        None
    }
}

/// What the file may hold while no write is under way.
#[derive(Clone, Copy)]
pub struct StoredStates<'a> {
    /// All objects as they are now; then, as they are if a write was made that failed without an answer.
    pub states: &'a [Snapshot],
    /// What is kept aside.
    pub quarantined: &'a seal::QuarantinedKeys,
}

/// What is done while no write is under way.
pub type BetweenWrites = Box<dyn FnOnce(&StoredStates<'_>) + Send>;

/// The revision asked for is older than what the store still knows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("revision {asked} is too old: the oldest one known is {oldest}")]
pub struct Expired {
    /// The revision asked for.
    pub asked: u64,
    /// The oldest that is known.
    pub oldest: u64,
}

/// A store of objects. Reads answer from memory and do not block.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// All objects as they are now: consistent, and not changed by later writes.
    fn snapshot(&self) -> Snapshot;

    /// The objects of `resource` as they were at `revision`: as an earlier [`Store::keep`] kept them, or made from the
    /// watch history. What it says of other resources means nothing.
    fn snapshot_at(&self, resource: &str, revision: u64) -> Result<Snapshot, Expired>;

    /// Waits until `revision` can be seen by all reads, or `within` is over. Answers with [`Store::published`].
    async fn wait_for(&self, revision: u64, within: Duration) -> u64;

    /// Keeps `snapshot` for later calls of [`Store::snapshot_at`], for some minutes. Where too many are kept, the user
    /// for whom the most are loses one.
    fn keep(&self, snapshot: &Snapshot, user: &str);

    /// The latest revision whose events all subscriptions can already see.
    fn published(&self) -> u64;

    /// Changes of one resource after `revision`, in order.
    fn watch(&self, resource: &str, after: u64) -> Result<Subscription, Expired>;

    /// The changes after a revision of the objects alone that have a value under an index, or had it before the change:
    /// `term` names the index and the value.
    fn watch_by(&self, resource: &str, term: (&str, &str), after: u64) -> Result<Subscription, Expired>;

    /// Whether an object is stored otherwise than it would be now: sealed under another key, or not at all. An update
    /// that changes nothing is made nevertheless then.
    fn is_stale(&self, resource: &str, object: &Object) -> bool;

    /// What the store counts of itself.
    fn stats(&self) -> Stats;

    /// Commits each transaction whole or not at all, independently of the others; answers in the same order, once all
    /// that was written is durable (one sync for all). A later transaction sees what the earlier ones wrote.
    ///
    /// A committed transaction answers with one object for each of its writes: of a put the new object, of a delete the
    /// object in its last state, at the revision of the deletion.
    async fn commit_all(&self, transactions: Vec<Transaction>) -> Vec<Result<Vec<Arc<Object>>, CommitError>>;

    /// Makes every object of a resource anew from its text, at the revision it has: what `remake` answers takes its
    /// place, without an event. For headers and texts that follow from data which has changed.
    async fn reread(&self, resource: &str, remake: Remake);

    /// Does something while no write is under way: all that were sealed before can be seen, and none is sealed before
    /// it is done. Writes wait for it, so it must be short.
    async fn between_writes(&self, work: BetweenWrites) -> Result<(), CommitError>;

    /// Forgets watch history up to `revision`: watches from before it are refused from then on.
    fn compact(&self, revision: u64);

    /// Drops the watch history and the kept snapshots that are too old at `now`. Writes do so for the resources that
    /// they change; this is for those that nothing changes any more. Returns how many bytes of objects the history
    /// held.
    fn trim(&self, now: Instant) -> usize;

    /// Commits one transaction.
    async fn commit(&self, transaction: Transaction) -> Result<Vec<Arc<Object>>, CommitError> {
        self.commit_all(vec![transaction]).await.pop().unwrap_or_else(no_answer)
    }

    /// Makes each write independently, as a transaction of its own.
    async fn write(&self, writes: Vec<Write>) -> Vec<Result<Arc<Object>, CommitError>> {
        let results = self.commit_all(writes.into_iter().map(Transaction::from).collect()).await;
        results.into_iter().map(|result| result?.pop().map_or_else(no_answer, Ok)).collect()
    }

    /// Makes one write.
    async fn write_one(&self, write: Write) -> Result<Arc<Object>, CommitError> {
        self.write(vec![write]).await.pop().unwrap_or_else(no_answer)
    }
}

/// A store that answers less than it was asked has failed.
fn no_answer<T>() -> Result<T, CommitError> {
    Err(CommitError::Unavailable { message: "the store gave no answer".into() })
}
