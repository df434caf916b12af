//! What comes to a level, and what becomes of it.

use crate::flow_control::seat_holders::SeatHolder;

/// What has come to its turn is told so.
pub trait Wake {
    /// The request executes from now on.
    fn wake(&mut self);
}

/// What decides over a request's place.
#[derive(Clone, Copy, Debug)]
pub struct ArrivingWork {
    /// A hash of the flow: requests of one flow have one hand.
    pub flow: u64,
    /// Who sends it.
    pub holder: SeatHolder,
    /// How many seats it takes.
    pub width: usize,
    /// A node shows by it that it lives.
    pub is_heartbeat: bool,
}

/// What a request is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Grows with each request of a level.
    pub id: u64,
    /// Its queue, where the level had queues when it came. Heartbeats have one of their own, without a number.
    pub queue: Option<usize>,
    /// Who sends it.
    pub holder: SeatHolder,
    /// How many seats it takes.
    pub width: usize,
    /// A node shows by it that it lives.
    pub is_heartbeat: bool,
}

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It executes.
    Started(Ticket),
    /// It waits; so many do in its queue.
    Queued(Ticket, usize),
    /// It is refused.
    Refused(FlowRefusal),
}

/// Why a request is refused: the `reason` of `apiserver_flowcontrol_rejected_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowRefusal {
    /// The level has no queues, and no seat.
    ConcurrencyLimit,
    /// So many wait already, or what waits takes so much memory.
    QueueFull,
    /// It has waited for too long.
    TimeOut,
    /// Its client has gone.
    Cancelled,
}

/// What a request did that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It waited.
    Waiting,
    /// It executed.
    Executing,
}
