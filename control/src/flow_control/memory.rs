//! The memory that requests and answers take beside their seats, divided among users ([`Shares`]): what waits for a
//! seat, bodies that come, answers that go.

use std::sync::Arc;

use super::shares::{Share, Shares};

/// Bytes of all bodies that have not come whole, or whose requests are being handled.
pub const BODIES: usize = 128 << 20;
/// The same of heartbeats, which nobody else's bodies may hold up: one has some tens of kilobytes.
const HEARTBEAT_BODIES: usize = 64 << 20;
/// The same of one node.
pub const HEARTBEAT_BODIES_OF_A_NODE: usize = 4 << 20;
/// Bytes of all long answers that are being sent.
pub const ANSWERS: usize = 256 << 20;
/// The same of short ones, which are apart: there is always some, and a long answer may have to wait until no other is
/// being sent.
const SHORT_ANSWERS: usize = 64 << 20;
/// Bytes of all requests that wait for a seat, their bodies and heartbeats aside: divided among levels.
pub const WAITING: usize = 128 << 20;
/// The most of it that one level has: divided among users.
const WAITING_OF_A_LEVEL: usize = 64 << 20;
/// Bytes of all heartbeats that wait, which what else waits leaves them.
pub const WAITING_HEARTBEATS: usize = 64 << 20;
/// The same of one level.
const WAITING_HEARTBEATS_OF_A_LEVEL: usize = 32 << 20;
/// The same of one node.
const WAITING_HEARTBEATS_OF_A_NODE: usize = 1 << 20;
/// What a request that waits takes beside its head: its task, and what was read of it. An estimate that is to be too
/// large rather than too small.
pub const WAITING_REQUEST: usize = 16 << 10;

/// The memory of all requests.
#[derive(Debug)]
pub struct RequestMemory {
    bodies: Arc<Shares>,
    heartbeat_bodies: Arc<Shares>,
    answers: Arc<Shares>,
    short_answers: Arc<Shares>,
}

/// The memory of what waits in all levels. [`Shares`] divide it among them as they do among users: however many levels
/// there are it stays within its bound, and no level's overload has others refuse what could wait.
#[derive(Debug)]
pub struct AllWaitingMemory {
    heartbeats: Arc<Shares>,
    others: Arc<Shares>,
}

/// The memory of what waits in one level.
#[derive(Debug)]
pub struct WaitingMemory {
    level: Arc<str>,
    all: Arc<AllWaitingMemory>,
    heartbeats: Arc<Shares>,
    others: Arc<Shares>,
}

/// What a request that waits has of both.
#[derive(Debug)]
pub struct WaitingShare {
    _of_level: Share,
    _of_all: Share,
}

impl Default for RequestMemory {
    fn default() -> Self {
        Self {
            bodies: Shares::new(BODIES, usize::MAX),
            heartbeat_bodies: Shares::new(HEARTBEAT_BODIES, HEARTBEAT_BODIES_OF_A_NODE),
            answers: Shares::new(ANSWERS, usize::MAX),
            short_answers: Shares::new(SHORT_ANSWERS, usize::MAX),
        }
    }
}

impl RequestMemory {
    /// For bodies of heartbeats, or of all others.
    pub fn bodies(&self, of_heartbeats: bool) -> &Arc<Shares> {
        if of_heartbeats { &self.heartbeat_bodies } else { &self.bodies }
    }

    /// For long answers.
    pub fn answers(&self) -> &Arc<Shares> {
        &self.answers
    }

    /// For short ones.
    pub fn short_answers(&self) -> &Arc<Shares> {
        &self.short_answers
    }
}

impl Default for AllWaitingMemory {
    fn default() -> Self {
        Self { heartbeats: Shares::new(WAITING_HEARTBEATS, usize::MAX), others: Shares::new(WAITING, usize::MAX) }
    }
}

impl WaitingMemory {
    /// Of the level of this name.
    pub fn new(level: Arc<str>, all: Arc<AllWaitingMemory>) -> Self {
        Self {
            level,
            all,
            heartbeats: Shares::new(WAITING_HEARTBEATS_OF_A_LEVEL, WAITING_HEARTBEATS_OF_A_NODE),
            others: Shares::new(WAITING_OF_A_LEVEL, usize::MAX),
        }
    }

    /// For a request of `user` that waits, whose head has so many bytes; `None` where there is none.
    pub fn keep(&self, is_heartbeat: bool, user: &str, head: usize) -> Option<WaitingShare> {
        let (of_level, of_all) = match is_heartbeat {
            true => (&self.heartbeats, &self.all.heartbeats),
            false => (&self.others, &self.all.others),
        };
        let bytes = WAITING_REQUEST.saturating_add(head);
        let of_level = of_level.take(user, bytes)?;
        Some(WaitingShare { _of_level: of_level, _of_all: of_all.take(&self.level, bytes)? })
    }
}
