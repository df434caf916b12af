//! The seats of one priority level, and fair queuing among the requests that wait for them. Pure: the time comes in.
//!
//! ```text
//!   flow ─hash─▶ hand of a few queues ─▶ the one with the least to do ─▶ [.. waiting ..] ─┐
//!                                                                                          ├─▶ seats, for so long
//!   another flow ───────────────────────────────────────────────────────▶ [.. waiting ..] ─┘
//! ```
//!
//! Each queue that has something to do gets the same rate of seat-seconds. The level's *progress* is what such a queue
//! would have had so far; a queue's next request is to start at its `next_dispatch`, which each request moves on by the
//! seats it takes times how long it takes them: first as expected, then as it was. Of all queues the one goes next
//! whose request would end first. Source: package `fairqueuing/queueset` of `k8s.io/apiserver`, and KEP 1040.
//!
//! What differs: a user who holds its share of the level ([`SeatHolders`]) has its requests wait although seats are
//! free, and they do not hold up what other users have in the same queue. Only queues with something to do are kept,
//! so that a level may have millions. A request may leave its seat and come back to its place. And heartbeats of nodes
//! go before all else ([`heartbeat_lane`]).

mod arrival;
mod heartbeat_lane;
pub mod queue;
mod queuing;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

pub use self::{
    arrival::{Arrival, ArrivingWork, FlowRefusal, Left, Ticket, Wake},
    heartbeat_lane::SEATS_OF_A_NODE,
    queuing::{Queuing, SeatLimit},
};
use self::{
    heartbeat_lane::HeartbeatLane,
    queue::{Queue, Waiting},
};
use super::{
    seat_demand::{ObservedDemand, SeatDemand},
    seat_holders::{SeatHolders, ShareScan},
    shuffle_sharding,
};

/// How long a request is taken to need before it has ended, in seconds. Kubernetes' `estimatedServiceDuration`.
const SERVICE_SECONDS: f64 = 0.003;

/// A request that executes.
#[derive(Debug)]
pub struct Executing<R> {
    /// What it is known by.
    pub ticket: Ticket,
    /// When it came.
    pub arrived: Duration,
    /// Since when it executes.
    pub started: Duration,
    /// Whose it is.
    pub request: R,
}

/// The seats and queues of a level. Times are since any moment that is the same for all.
#[derive(Debug)]
pub struct QueueSet<R> {
    limit: SeatLimit,
    /// `None`: what finds no seat is refused.
    queuing: Option<Queuing>,
    /// Those that have something to do, by their numbers.
    queues: BTreeMap<usize, Queue<R>>,
    heartbeats: HeartbeatLane<R>,
    executing: HashMap<u64, Executing<R>>,
    /// Heartbeats aside, as the three numbers after it.
    holders: SeatHolders,
    seats_in_use: usize,
    seats_waiting: usize,
    waiting: usize,
    next_id: u64,
    /// Which queue was served last: of equal ones the next after it is.
    last_served: usize,
    /// Seat-seconds of a queue that always has something to do; 0 while none has.
    progress: f64,
    progressed_at: Duration,
    demand: SeatDemand,
}

impl<R: Wake> QueueSet<R> {
    /// A level with nothing to do.
    pub fn new(limit: SeatLimit, queuing: Option<Queuing>, now: Duration) -> Self {
        Self {
            limit,
            queuing,
            queues: BTreeMap::new(),
            heartbeats: HeartbeatLane::new(),
            executing: HashMap::new(),
            holders: SeatHolders::default(),
            seats_in_use: 0,
            seats_waiting: 0,
            waiting: 0,
            next_id: 0,
            last_served: 0,
            progress: 0.0,
            progressed_at: now,
            demand: SeatDemand::new(now),
        }
    }

    /// With another limit, and other queues for what comes from now on.
    pub fn configure(&mut self, now: Duration, limit: SeatLimit, queuing: Option<Queuing>) {
        self.advance(now);
        (self.limit, self.queuing) = (limit, queuing);
        self.dispatch(now);
    }

    /// A request comes.
    pub fn arrive(&mut self, now: Duration, work: ArrivingWork, request: R) -> Arrival {
        self.advance(now);
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let ArrivingWork { flow, holder, width, is_heartbeat } = work;
        // What is wider than a node's part of the lane would never pass it, and hold up all behind it if it did.
        let is_heartbeat = is_heartbeat && width <= SEATS_OF_A_NODE;
        if is_heartbeat {
            self.heartbeats.has_come();
        }
        let queue = self.queuing.filter(|_| !is_heartbeat).map(|queuing| self.choose_queue(queuing, flow, id));
        let ticket = Ticket { id, queue, holder, width, is_heartbeat };
        let longest = self.queuing.map_or(0, |queuing| queuing.queue_length_limit);
        self.admit(now, ticket, request, longest)
    }

    /// A request that gave up its seat wants it back: it is before all of its queue that came after it, however many
    /// wait.
    pub fn come_back(&mut self, now: Duration, ticket: Ticket, request: R) -> Arrival {
        self.advance(now);
        self.admit(now, ticket, request, usize::MAX)
    }

    /// A request has ended, or does not wait any more. `None` for one that is not here.
    pub fn leave(&mut self, now: Duration, ticket: &Ticket) -> Option<Left> {
        self.advance(now);
        let left = self.finish(now, ticket).or_else(|| self.cancel(ticket))?;
        if let Some(index) = ticket.queue
            && self.queues.get(&index).is_some_and(Queue::is_idle)
        {
            self.queues.remove(&index);
        }
        self.dispatch(now);
        if self.queues.is_empty() {
            self.progress = 0.0;
        }
        Some(left)
    }

    /// A request that waits.
    pub fn find_waiting(&mut self, ticket: &Ticket) -> Option<&mut R> {
        self.queue_of(ticket)?.find(ticket)
    }

    /// Whether nothing waits and nothing executes.
    pub fn is_idle(&self) -> bool {
        self.waiting() == 0 && self.executing.is_empty()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.saturating_add(self.heartbeats.queue.len())
    }

    /// How many execute, and on how many seats.
    pub fn executing(&self) -> (usize, usize) {
        (self.executing.len(), self.seats_taken())
    }

    /// Those that execute, the oldest first.
    pub fn executing_requests(&self) -> Vec<&Executing<R>> {
        let mut all: Vec<&Executing<R>> = self.executing.values().collect();
        all.sort_unstable_by_key(|executing| executing.ticket.id);
        all
    }

    /// The queues that have something to do, by their numbers.
    pub fn queues(&self) -> impl Iterator<Item = (usize, &Queue<R>)> {
        self.queues.iter().map(|(index, queue)| (*index, queue))
    }

    /// The queue of heartbeats.
    pub fn heartbeat_queue(&self) -> &Queue<R> {
        &self.heartbeats.queue
    }

    /// How many seats were asked for since this was asked before.
    pub fn take_demand(&mut self, now: Duration) -> ObservedDemand {
        self.demand.take(now)
    }

    /// Moves the progress on to `now`: each queue with something to do had its part of the seats until then.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.progressed_at);
        self.progressed_at = self.progressed_at.max(now);
        if self.queues.is_empty() {
            return;
        }
        let asked = self.seats_in_use.saturating_add(self.seats_waiting);
        let served = match self.limit {
            SeatLimit::Exempt => asked,
            SeatLimit::Seats(seats) => asked.min(seats.saturating_sub(self.heartbeats.seats_in_use())),
        };
        self.progress += passed.as_secs_f64() * served as f64 / self.queues.len() as f64;
    }

    /// Of a flow's hand the queue with the least to do; where several have the same, each in turn.
    fn choose_queue(&self, queuing: Queuing, flow: u64, id: u64) -> usize {
        let (deck, size) = (queuing.queues.max(1), queuing.hand_size.clamp(1, shuffle_sharding::MAX_HAND));
        let hand = shuffle_sharding::deal(flow, deck, size);
        let hand = &hand[..size.min(deck)];
        let first = usize::try_from(id % hand.len() as u64).unwrap_or_default();
        let mut in_turn = hand.iter().cycle().skip(first).take(hand.len());
        let seats_waiting = |queue: &&usize| self.queues.get(queue).map_or(0, Queue::seats_waiting);
        let chosen = if self.waiting == 0 { in_turn.next() } else { in_turn.min_by_key(seats_waiting) };
        chosen.copied().unwrap_or_default()
    }

    fn admit(&mut self, now: Duration, ticket: Ticket, request: R, longest: usize) -> Arrival {
        let is_first = if ticket.is_heartbeat { self.heartbeats.queue.len() == 0 } else { self.waiting == 0 };
        if is_first && self.may_have(&ticket) && self.has_room(&ticket) {
            self.start(now, ticket, now, request);
            return Arrival::Started(ticket);
        }
        if ticket.is_heartbeat {
            return self.enqueue_heartbeat(now, ticket, request, longest);
        }
        let (Some(index), Some(_)) = (ticket.queue, self.queuing) else {
            return Arrival::Refused(FlowRefusal::ConcurrencyLimit);
        };
        let progress = self.progress;
        let queue = self.queues.entry(index).or_insert_with(|| Queue::at(progress));
        queue.push(Waiting { ticket, arrival_progress: progress, arrived: now, request });
        self.waiting = self.waiting.saturating_add(1);
        self.seats_waiting = self.seats_waiting.saturating_add(ticket.width);
        // Of what waited before nothing could start, and nothing has ended since.
        if self.may_have(&ticket) {
            self.dispatch(now);
        }
        self.note_demand(now);
        let Some(queue) = self.queues.get(&index).filter(|_| !self.executing.contains_key(&ticket.id)) else {
            return Arrival::Started(ticket);
        };
        let length = queue.len();
        if length > longest {
            self.cancel(&ticket);
            self.note_demand(now);
            return Arrival::Refused(FlowRefusal::QueueFull);
        }
        Arrival::Queued(ticket, length)
    }

    fn enqueue_heartbeat(&mut self, now: Duration, ticket: Ticket, request: R, longest: usize) -> Arrival {
        if self.queuing.is_none() {
            return Arrival::Refused(FlowRefusal::ConcurrencyLimit);
        }
        let queue = &mut self.heartbeats.queue;
        // Nobody else's fill it: what waits of one node is bounded.
        let length = queue.waiting_of(ticket.holder).saturating_add(1);
        if length > longest {
            return Arrival::Refused(FlowRefusal::QueueFull);
        }
        queue.push(Waiting { ticket, arrival_progress: 0.0, arrived: now, request });
        // Those before it may be of nodes that have enough.
        if self.may_have(&ticket) {
            self.dispatch(now);
        }
        self.note_demand(now);
        match self.executing.contains_key(&ticket.id) {
            true => Arrival::Started(ticket),
            false => Arrival::Queued(ticket, length),
        }
    }

    /// Where a request waits, if it does.
    fn queue_of(&mut self, ticket: &Ticket) -> Option<&mut Queue<R>> {
        match ticket.is_heartbeat {
            true => Some(&mut self.heartbeats.queue),
            false => self.queues.get_mut(&ticket.queue?),
        }
    }

    /// Seats of all that executes.
    fn seats_taken(&self) -> usize {
        self.seats_in_use.saturating_add(self.heartbeats.seats_in_use())
    }

    /// Whether the request's user may have its seats.
    fn may_have(&self, ticket: &Ticket) -> bool {
        match self.limit {
            SeatLimit::Exempt => true,
            SeatLimit::Seats(_) if ticket.is_heartbeat => self.heartbeats.allows(ticket),
            SeatLimit::Seats(seats) => self.holders.allows((seats, self.seats_in_use), ticket.holder, ticket.width),
        }
    }

    /// Whether its seats are free. What is wider than all that it could have goes alone; a level without a seat serves
    /// one at a time nevertheless.
    fn has_room(&self, ticket: &Ticket) -> bool {
        let SeatLimit::Seats(seats) = self.limit else { return true };
        let (limit, taken) = match ticket.is_heartbeat {
            true => (seats, self.seats_taken()),
            false => self.seats_for_others(seats),
        };
        if ticket.width > limit { taken == 0 } else { taken.saturating_add(ticket.width) <= limit }
    }

    /// How many of so many seats others than heartbeats may have, and how many they have.
    ///
    /// While heartbeats take more than what is kept for them, these are less.
    fn seats_for_others(&self, seats: usize) -> (usize, usize) {
        let kept = self.heartbeats.reserved_of(seats).max(self.heartbeats.seats_in_use());
        (seats.saturating_sub(kept), self.seats_in_use)
    }

    fn start(&mut self, now: Duration, ticket: Ticket, arrived: Duration, request: R) {
        let executing = Executing { ticket, arrived, started: now, request };
        self.executing.insert(ticket.id, executing);
        if ticket.is_heartbeat {
            self.heartbeats.start(&ticket);
            return self.note_demand(now);
        }
        if let Some(index) = ticket.queue {
            let progress = self.progress;
            let queue = self.queues.entry(index).or_insert_with(|| Queue::at(progress));
            if queue.len() == 0 && arrived == now {
                queue.next_dispatch = queue.next_dispatch.max(progress);
            }
            queue.start(ticket.width);
        }
        self.seats_in_use = self.seats_in_use.saturating_add(ticket.width);
        self.holders.add(ticket.holder, ticket.width);
        self.note_demand(now);
    }

    fn finish(&mut self, now: Duration, ticket: &Ticket) -> Option<Left> {
        let Executing { ticket, started, .. } = self.executing.remove(&ticket.id)?;
        if ticket.is_heartbeat {
            self.heartbeats.finish(&ticket);
            return Some(Left::Executing);
        }
        self.seats_in_use = self.seats_in_use.saturating_sub(ticket.width);
        self.holders.remove(ticket.holder, ticket.width);
        if let Some(queue) = ticket.queue.and_then(|index| self.queues.get_mut(&index)) {
            queue.finish(ticket.width, now.saturating_sub(started));
        }
        Some(Left::Executing)
    }

    fn cancel(&mut self, ticket: &Ticket) -> Option<Left> {
        self.dequeue(ticket)?;
        Some(Left::Waiting)
    }

    fn dequeue(&mut self, ticket: &Ticket) -> Option<Waiting<R>> {
        let taken = self.queue_of(ticket)?.remove(ticket)?;
        if !ticket.is_heartbeat {
            self.waiting = self.waiting.saturating_sub(1);
            self.seats_waiting = self.seats_waiting.saturating_sub(ticket.width);
        }
        Some(taken)
    }

    /// Has as many requests execute as there are seats for, in their turn.
    fn dispatch(&mut self, now: Duration) {
        while let Some(ticket) = self.next()
            && let Some(mut next) = self.dequeue(&ticket)
        {
            self.last_served = ticket.queue.unwrap_or(self.last_served);
            next.request.wake();
            self.start(now, next.ticket, next.arrived, next.request);
        }
        self.note_demand(now);
    }

    /// What is to execute now: heartbeats first, then what would end first of all that wait.
    fn next(&mut self) -> Option<Ticket> {
        let (heartbeats, is_limited) = (&self.heartbeats, self.limit != SeatLimit::Exempt);
        let heartbeat = heartbeats.queue.next(|ticket| !is_limited || heartbeats.allows(ticket));
        let heartbeat = heartbeat.filter(|ticket| self.has_room(ticket));
        heartbeat.or_else(|| self.next_of_queues().filter(|ticket| self.has_room(ticket)))
    }

    /// What would end first of all that wait in queues.
    ///
    /// A queue of which all users hold their shares is left out, and has no claim later on what it could not use.
    fn next_of_queues(&mut self) -> Option<Ticket> {
        if self.waiting == 0 {
            return None;
        }
        let (limit, in_use, progress) = (self.limit, self.seats_in_use, self.progress);
        if let SeatLimit::Seats(seats) = limit {
            let (limit, taken) = self.seats_for_others(seats);
            if taken >= limit.max(1) {
                return None;
            }
        }
        let mut shares = ShareScan::of(&self.holders, in_use);
        let mut may_have = |ticket: &Ticket| match limit {
            SeatLimit::Exempt => true,
            SeatLimit::Seats(seats) => shares.allows(seats, ticket.holder, ticket.width),
        };
        let last_served = self.last_served;
        let mut best: Option<((f64, bool, usize), Ticket)> = None;
        for (index, queue) in self.queues.iter_mut().filter(|(_, queue)| queue.len() > 0) {
            let Some(ticket) = queue.next(&mut may_have) else {
                queue.next_dispatch = queue.next_dispatch.max(progress);
                continue;
            };
            let end = queue.next_dispatch + ticket.width as f64 * SERVICE_SECONDS;
            let order = (end, *index <= last_served, *index);
            if best.as_ref().is_none_or(|(first, _)| order < *first) {
                best = Some((order, ticket));
            }
        }
        best.map(|(_, next)| next)
    }

    fn note_demand(&mut self, now: Duration) {
        let waiting = self.seats_waiting.saturating_add(self.heartbeats.queue.seats_waiting());
        self.demand.set(now, self.seats_taken().saturating_add(waiting));
    }
}

#[cfg(test)]
mod tests;
