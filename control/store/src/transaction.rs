//! What a writer asks of the store: writes that are made together or not at all, and what must hold for them.
//!
//! Everything here is decided by the committer, one transaction after the other, against the state that the earlier
//! ones left. So a requirement can't become false between the check and the write.

use std::{error::Error, fmt, sync::Arc};

use super::{Draft, Key, Object};

/// Writes that are made together, or not at all.
///
/// First all requirements are checked, against the state before the transaction; then the writes are made in order,
/// each at a revision of its own. A transaction without writes only checks.
#[derive(Debug, Default)]
pub struct Transaction {
    /// What must hold before the first write.
    pub require: Vec<Requirement>,
    /// In the order in which they are made.
    pub writes: Vec<Write>,
}

/// What must hold of a key that the transaction itself need not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The key.
    pub key: Key,
    /// What must hold of it.
    pub condition: Condition,
}

/// What a [`Requirement`] demands of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No object.
    Absent,
    /// The object last written at this revision.
    At(u64),
    /// An object whose deletion was not asked for: it has no `deletionTimestamp`.
    Alive,
    /// Any object.
    Present,
}

/// One change, made only if the key is as expected.
#[derive(Debug)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What it must hold before.
    pub expect: Expect,
    /// What becomes of it.
    pub change: Change,
}

/// What the writer believes the key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No object.
    Absent,
    /// The object last written at this revision.
    At(u64),
    /// Any object.
    Present,
}

/// What a [`Write`] does to its key.
#[derive(Debug)]
pub enum Change {
    /// It holds this object.
    Put(Draft),
    /// It holds what this makes of the object that it holds.
    Amend(Amendment),
    /// It holds nothing.
    Delete,
}

/// What the committer makes of an object that others may have changed since the writer looked: a counter is raised
/// without a conflict. Must be quick, since all writers wait meanwhile.
pub struct Amendment(Box<MakeFn>);

/// Makes the new object of the one that is there, or says why not.
type MakeFn = dyn FnOnce(&Object) -> Result<Draft, AmendmentError> + Send;

/// Why an [`Amendment`] cannot be made of an object: an error of the one that asked for it.
pub type AmendmentError = Arc<dyn Error + Send + Sync>;

/// Why a transaction was not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A key is not as required or expected; nothing was written.
    #[error("{key} is not as expected")]
    Conflict {
        /// The first such key.
        key: Key,
        /// What it holds instead.
        current: Option<Arc<Object>>,
    },
    /// An [`Amendment`] could not be made of the object; nothing was written.
    #[error("{reason}")]
    Refused {
        /// Of the object.
        key: Key,
        /// In the amendment's words.
        reason: AmendmentError,
    },
    /// No space is left for the store's file. Reads go on; writes work again once there is space.
    #[error("no space is left on the device of the store ({path})")]
    Full {
        /// The store's file.
        path: String,
    },
    /// The store could not make the transaction durable. A read tells whether it was made, once the store is back.
    #[error("the store cannot write: {message}")]
    Unavailable {
        /// With its causes, in one line.
        message: String,
    },
}

impl Transaction {
    /// Bytes of text to be written.
    pub fn size(&self) -> usize {
        self.writes.iter().map(|write| write.change.size()).sum()
    }
}

impl From<Write> for Transaction {
    /// A transaction of one write that requires nothing else.
    fn from(write: Write) -> Self {
        Self { require: Vec::new(), writes: vec![write] }
    }
}

impl Condition {
    /// Whether it holds of a key with this object.
    pub fn holds(self, current: Option<&Object>) -> bool {
        match (self, current) {
            (Self::Absent, None) => true,
            (Self::At(revision), Some(object)) => object.revision == revision,
            (Self::Alive, Some(object)) => !object.header().deleting(),
            (Self::Present, Some(_)) => true,
            (Self::Absent, Some(_)) | (Self::At(_) | Self::Alive | Self::Present, None) => false,
        }
    }
}

impl From<Expect> for Condition {
    fn from(expect: Expect) -> Self {
        match expect {
            Expect::Absent => Self::Absent,
            Expect::At(revision) => Self::At(revision),
            Expect::Present => Self::Present,
        }
    }
}

impl Amendment {
    /// By `make`, which runs once, if at all.
    pub fn new<E: Error + Send + Sync + 'static>(
        make: impl FnOnce(&Object) -> Result<Draft, E> + Send + 'static,
    ) -> Self {
        Self(Box::new(|current| make(current).map_err(|error| Arc::new(error) as AmendmentError)))
    }

    /// Makes the new object.
    pub fn make(self, current: &Object) -> Result<Draft, AmendmentError> {
        (self.0)(current)
    }
}

impl fmt::Debug for Amendment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Amendment")
    }
}

impl Change {
    fn size(&self) -> usize {
        match self {
            Self::Put(draft) => draft.head.len() + draft.tail.len(),
            // Known only once it is made.
            Self::Amend(_) | Self::Delete => 0,
        }
    }
}
