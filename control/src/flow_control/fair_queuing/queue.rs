//! One queue of a priority level: what waits in it, each user's requests in a row of their own, so that those of a user
//! who may have no more seats do not keep others from being found.
//!
//! The rows are kept in the order of their fronts: a seat that becomes free costs a look at the oldest one, not at all.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use super::{SERVICE_SECONDS, Ticket};
use crate::flow_control::seat_holders::SeatHolder;

/// A queue that has something waiting or executing; the others are not kept.
#[derive(Debug)]
pub struct Queue<R> {
    /// The progress at which its next request is to start, in seat-seconds.
    pub next_dispatch: f64,
    /// Seats of its requests that execute.
    pub seats_in_use: usize,
    /// How many of its requests execute.
    pub executing: usize,
    waiting: usize,
    seats_waiting: usize,
    /// What waits of each user, the oldest first. None is empty.
    rows: HashMap<SeatHolder, VecDeque<Waiting<R>>>,
    /// The first request of each row and how far its level was when it came to wait, by its number.
    fronts: BTreeMap<u64, (Ticket, f64)>,
}

/// A request that waits.
#[derive(Debug)]
pub struct Waiting<R> {
    /// What it is known by.
    pub ticket: Ticket,
    /// How far its level was when it came to wait, in seat-seconds.
    pub arrival_progress: f64,
    /// When it came to wait.
    pub arrived: Duration,
    /// Whose it is.
    pub request: R,
}

impl<R> Queue<R> {
    /// An empty one, at the progress that its level has.
    pub fn at(progress: f64) -> Self {
        Self {
            next_dispatch: progress,
            seats_in_use: 0,
            executing: 0,
            waiting: 0,
            seats_waiting: 0,
            rows: HashMap::new(),
            fronts: BTreeMap::new(),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Seats for which the queue waits.
    pub fn seats_waiting(&self) -> usize {
        self.seats_waiting
    }

    /// What its requests that wait are expected to take, in seat-seconds.
    pub fn expected_work(&self) -> f64 {
        self.seats_waiting as f64 * SERVICE_SECONDS
    }

    /// Whether nothing waits and nothing executes.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    /// Puts a request at its place: behind all that came before it.
    pub fn push(&mut self, waiting: Waiting<R>) {
        let ticket = waiting.ticket;
        self.waiting = self.waiting.saturating_add(1);
        self.seats_waiting = self.seats_waiting.saturating_add(ticket.width);
        let row = self.rows.entry(ticket.holder).or_default();
        let place = row.partition_point(|other| other.ticket.id < ticket.id);
        if place == 0 {
            if let Some(second) = row.front() {
                self.fronts.remove(&second.ticket.id);
            }
            self.fronts.insert(ticket.id, (ticket, waiting.arrival_progress));
        }
        row.insert(place, waiting);
        self.catch_up();
    }

    /// Takes a request out.
    pub fn remove(&mut self, ticket: &Ticket) -> Option<Waiting<R>> {
        let row = self.rows.get_mut(&ticket.holder)?;
        let place = row.binary_search_by_key(&ticket.id, |other| other.ticket.id).ok()?;
        let taken = row.remove(place)?;
        if place == 0 {
            self.fronts.remove(&ticket.id);
            if let Some(front) = row.front() {
                self.fronts.insert(front.ticket.id, (front.ticket, front.arrival_progress));
            }
        }
        if row.is_empty() {
            self.rows.remove(&ticket.holder);
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.seats_waiting = self.seats_waiting.saturating_sub(taken.ticket.width);
        self.catch_up();
        Some(taken)
    }

    /// A request that waits here.
    pub fn find(&mut self, ticket: &Ticket) -> Option<&mut R> {
        let row = self.rows.get_mut(&ticket.holder)?;
        let place = row.binary_search_by_key(&ticket.id, |other| other.ticket.id).ok()?;
        row.get_mut(place).map(|waiting| &mut waiting.request)
    }

    /// The oldest request whose user may have its seats.
    pub fn next(&self, mut may_have: impl FnMut(&Ticket) -> bool) -> Option<Ticket> {
        self.fronts.values().map(|(ticket, _)| *ticket).find(|ticket| may_have(ticket))
    }

    /// How many wait of a user.
    pub fn waiting_of(&self, holder: SeatHolder) -> usize {
        self.rows.get(&holder).map_or(0, VecDeque::len)
    }

    /// One of its requests starts: what it is expected to take is charged now.
    pub fn start(&mut self, width: usize) {
        self.executing = self.executing.saturating_add(1);
        self.seats_in_use = self.seats_in_use.saturating_add(width);
        self.next_dispatch += width as f64 * SERVICE_SECONDS;
        self.catch_up();
    }

    /// One of its requests has ended: what it took beyond what was expected is charged, or the rest is given back.
    pub fn finish(&mut self, width: usize, took: Duration) {
        self.executing = self.executing.saturating_sub(1);
        self.seats_in_use = self.seats_in_use.saturating_sub(width);
        self.next_dispatch += width as f64 * (took.as_secs_f64() - SERVICE_SECONDS);
        self.catch_up();
    }

    /// What waits, in the order in which it came.
    pub fn requests(&self) -> Vec<&Waiting<R>> {
        let mut all: Vec<&Waiting<R>> = self.rows.values().flatten().collect();
        all.sort_unstable_by_key(|waiting| waiting.ticket.id);
        all
    }

    /// Nothing starts before it came: a queue that had little to do has no claim on what it left to others.
    fn catch_up(&mut self) {
        if let Some((_, (_, arrival_progress))) = self.fronts.first_key_value() {
            self.next_dispatch = self.next_dispatch.max(*arrival_progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(id: u64, user: u64) -> Waiting<u64> {
        let holder = SeatHolder { user, namespace: None };
        let ticket = Ticket { id, queue: Some(0), holder, width: 1, is_heartbeat: false };
        Waiting { ticket, arrival_progress: 0.0, arrived: Duration::ZERO, request: id }
    }

    #[test]
    fn a_free_seat_costs_one_look_however_many_users_wait() {
        let mut queue = Queue::at(0.0);
        for id in 0..1000 {
            queue.push(waiting(id, id));
        }
        let mut looks = 0;
        let next = queue.next(|_| {
            looks += 1;
            true
        });
        assert_eq!((next.map(|ticket| ticket.id), looks), (Some(0), 1));
    }

    #[test]
    fn the_fronts_of_rows_stay_in_the_order_in_which_requests_came() {
        let mut queue = Queue::at(0.0);
        // 2 and 5 come back after those that came later.
        for (id, user) in [(3, 1), (4, 2), (6, 1), (2, 1), (5, 3), (7, 2)] {
            queue.push(waiting(id, user));
        }
        assert!(queue.remove(&waiting(4, 2).ticket).is_some() && queue.remove(&waiting(4, 2).ticket).is_none());
        assert_eq!(queue.next(|ticket| ticket.holder.user != 1).map(|ticket| ticket.id), Some(5));
        let mut served = Vec::new();
        while let Some(next) = queue.next(|_| true) {
            served.extend(queue.remove(&next).map(|waiting| waiting.request));
        }
        assert_eq!(served, [2, 3, 5, 6, 7]);
        assert!(queue.is_idle() && queue.rows.is_empty() && queue.fronts.is_empty());
    }
}
