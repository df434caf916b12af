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
/// Bytes of all requests that wait for a seat in one level, their bodies and heartbeats aside.
const WAITING: usize = 64 << 20;
/// The same of heartbeats, which what else waits in their level leaves its memory.
const WAITING_HEARTBEATS: usize = 32 << 20;
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

/// The memory of what waits in one level: of each level apart, so that no level's overload has others refuse what could
/// wait.
#[derive(Debug)]
pub struct WaitingMemory {
    heartbeats: Arc<Shares>,
    others: Arc<Shares>,
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

impl Default for WaitingMemory {
    fn default() -> Self {
        Self {
            heartbeats: Shares::new(WAITING_HEARTBEATS, WAITING_HEARTBEATS_OF_A_NODE),
            others: Shares::new(WAITING, usize::MAX),
        }
    }
}

impl WaitingMemory {
    /// For a request of `user` that waits, whose head has so many bytes; `None` where there is none.
    pub fn keep(&self, is_heartbeat: bool, user: &str, head: usize) -> Option<Share> {
        let shares = if is_heartbeat { &self.heartbeats } else { &self.others };
        shares.take(user, WAITING_REQUEST.saturating_add(head))
    }
}
