//! Objects by key and revision: compare-and-swap, consistent lists, and watches.
//!
//! The store decides which write wins and in which order writes are seen. It never looks into an object: what stands in its
//! bytes is decided by `api`, which also makes the [`Header`] kept beside them.
//!
//! Revisions count writes over the whole store, from 1, one a write. A write is answered when it is durable, and is visible to
//! reads and watches from then on, never before.

pub mod embedded;
mod history;
mod object;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

pub use embedded::{Embedded, Index, OpenError};
pub use history::{Event, EventType, History, Subscription, Topic};
pub use object::{Cell, Draft, Header, Object, Owner};
pub use snapshot::{Snapshot, Table};

/// Where an object is kept: its resource (`pods`, `deployments.apps`) and its key in it (`namespace/name`, or `name`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub resource: Arc<str>,
    pub name: Arc<str>,
}

/// One change, made only if the key is as expected.
#[derive(Debug)]
pub struct Write {
    pub key: Key,
    pub expect: Expect,
    pub change: Change,
}

/// What the writer believes the key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    /// The object last written at this revision.
    At(u64),
}

#[derive(Debug)]
pub enum Change {
    Put(Draft),
    Delete,
}

/// Why a write was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The key is not as expected; nothing was written.
    #[error("the key is not at the expected revision")]
    Conflict {
        /// What it holds instead.
        current: Option<Arc<Object>>,
    },
    /// No space is left for the store's file. Reads go on; writes work again once there is space.
    #[error("no space is left on the device of the store ({path})")]
    Full { path: String },
    /// The store could not make the write durable. Whether it was made is told by a read, once the store is back.
    #[error("the store cannot write: {message}")]
    Unavailable { message: String },
}

/// The revision asked for is older than what the store still knows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("revision {asked} is too old: the oldest one known is {oldest}")]
pub struct Expired {
    pub asked: u64,
    pub oldest: u64,
}

/// A store of objects. Reads answer from memory and do not block.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// All objects as they are now: consistent, and not changed by later writes.
    fn snapshot(&self) -> Snapshot;

    /// All objects as they were at `revision`, which an earlier [`Store::keep`] named.
    fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Expired>;

    /// Keeps `snapshot` for later calls of [`Store::snapshot_at`], for some minutes and as long as few others are kept.
    fn keep(&self, snapshot: &Snapshot);

    /// The latest revision whose events all subscriptions can already see.
    fn published(&self) -> u64;

    /// Changes of one resource after `revision`, in order.
    fn watch(&self, resource: &str, after: u64) -> Result<Subscription, Expired>;

    /// Makes each write independently, all in one durable transaction; answers in the same order. A put answers with the new
    /// object, a delete with the object in its last state, at the revision of the deletion.
    async fn write(&self, writes: Vec<Write>) -> Vec<Result<Arc<Object>, WriteError>>;

    /// Forgets watch history up to `revision`: watches from before it are refused from then on.
    fn compact(&self, revision: u64);

    /// Lets go of the watch history and the kept snapshots that are too old at `now`. Writes do so for the resources that they
    /// change; this is for those that nothing changes any more. Returns how many bytes of objects the history held.
    fn trim(&self, now: Instant) -> usize;

    /// Makes one write.
    async fn write_one(&self, write: Write) -> Result<Arc<Object>, WriteError> {
        let mut results = self.write(vec![write]).await;
        results.pop().unwrap_or_else(|| Err(WriteError::Unavailable { message: "the store gave no answer".into() }))
    }
}
