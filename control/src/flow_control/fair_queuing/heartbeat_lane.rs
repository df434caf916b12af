//! The way of heartbeats through a level: before all else in it, and with seats that nobody else takes.
//!
//! By its Lease and its status a node shows that it lives. Other requests of nodes, such as lists of all nodes, come to
//! the same level, and many nodes begin anew at once: they must not make nodes look dead. So a part of the level's
//! seats is kept for heartbeats as soon as one has come to it, and a node has a few of them at the most.
//!
//! Kubernetes has no such part: there the level `node-high` is for whatever a node asks about nodes and Leases, and a
//! heartbeat waits its turn among them.

use std::collections::HashMap;

use super::{Ticket, queue::Queue};

/// One in so many seats of a level is kept for heartbeats.
const RESERVED_PART: usize = 4;
/// Seats of one node's heartbeats at a time: for its Lease and its status, and for one more of each that its agent has
/// given up on.
pub const SEATS_OF_A_NODE: usize = 4;

/// The heartbeats of a level.
#[derive(Debug)]
pub struct HeartbeatLane<R> {
    /// Those that wait: in the order in which they came, but for nodes that have enough seats.
    pub queue: Queue<R>,
    seats_in_use: usize,
    /// By hashes of the nodes' users. Only of those who hold some.
    nodes: HashMap<u64, usize>,
    is_used: bool,
}

impl<R> HeartbeatLane<R> {
    /// No heartbeat has come.
    pub fn new() -> Self {
        Self { queue: Queue::at(0.0), seats_in_use: 0, nodes: HashMap::new(), is_used: false }
    }

    /// How many of a level's seats others leave free: one at least, where others have one left. A level without
    /// heartbeats keeps none back.
    pub fn reserved_of(&self, seats: usize) -> usize {
        if self.is_used { (seats / RESERVED_PART).max(usize::from(seats > 1)) } else { 0 }
    }

    /// Whether one more of the node's may execute.
    pub fn allows(&self, ticket: &Ticket) -> bool {
        let held = self.nodes.get(&ticket.holder.user).copied().unwrap_or_default();
        held.saturating_add(ticket.width) <= SEATS_OF_A_NODE
    }

    /// Seats of heartbeats that execute.
    pub fn seats_in_use(&self) -> usize {
        self.seats_in_use
    }

    /// A heartbeat has come to the level.
    pub fn has_come(&mut self) {
        self.is_used = true;
    }

    /// One starts.
    pub fn start(&mut self, ticket: &Ticket) {
        self.seats_in_use = self.seats_in_use.saturating_add(ticket.width);
        let held = self.nodes.entry(ticket.holder.user).or_default();
        *held = held.saturating_add(ticket.width);
    }

    /// One has ended.
    pub fn finish(&mut self, ticket: &Ticket) {
        self.seats_in_use = self.seats_in_use.saturating_sub(ticket.width);
        if let Some(held) = self.nodes.get_mut(&ticket.holder.user) {
            *held = held.saturating_sub(ticket.width);
            if *held == 0 {
                self.nodes.remove(&ticket.holder.user);
            }
        }
    }
}
