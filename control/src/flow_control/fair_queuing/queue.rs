//! One queue of a priority level: what waits in it, each user's requests in a row of their own, so that those of a user
//! who may have no more seats do not keep others from being found.

use std::{collections::VecDeque, time::Duration};

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
    rows: Vec<Row<R>>,
}

/// What waits of one user, the oldest first. Never empty.
#[derive(Debug)]
struct Row<R> {
    holder: SeatHolder,
    requests: VecDeque<Waiting<R>>,
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
        Self { next_dispatch: progress, seats_in_use: 0, executing: 0, waiting: 0, seats_waiting: 0, rows: Vec::new() }
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
        match self.rows.iter_mut().find(|row| row.holder == ticket.holder) {
            Some(Row { requests, .. }) => {
                let place = requests.partition_point(|other| other.ticket.id < ticket.id);
                requests.insert(place, waiting);
            }
            None => self.rows.push(Row { holder: ticket.holder, requests: VecDeque::from([waiting]) }),
        }
        self.catch_up();
    }

    /// Takes a request out.
    pub fn remove(&mut self, ticket: &Ticket) -> Option<Waiting<R>> {
        let row = self.rows.iter().position(|row| row.holder == ticket.holder)?;
        let place = self.rows[row].requests.binary_search_by_key(&ticket.id, |other| other.ticket.id).ok()?;
        self.take(row, place)
    }

    /// A request that waits here.
    pub fn find(&mut self, ticket: &Ticket) -> Option<&mut R> {
        let row = self.rows.iter_mut().find(|row| row.holder == ticket.holder)?;
        let place = row.requests.binary_search_by_key(&ticket.id, |other| other.ticket.id).ok()?;
        row.requests.get_mut(place).map(|waiting| &mut waiting.request)
    }

    /// The row of the oldest request whose user may have its seats, and how many those are.
    pub fn next(&self, may_have: impl Fn(&Ticket) -> bool) -> Option<(usize, usize)> {
        let fronts = self.rows.iter().enumerate().filter_map(|(row, of)| Some((row, of.requests.front()?.ticket)));
        let next = fronts.filter(|(_, ticket)| may_have(ticket)).min_by_key(|(_, ticket)| ticket.id);
        next.map(|(row, ticket)| (row, ticket.width))
    }

    /// Takes the oldest request of a row.
    pub fn pop(&mut self, row: usize) -> Option<Waiting<R>> {
        self.take(row, 0)
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
        let mut all: Vec<&Waiting<R>> = self.rows.iter().flat_map(|row| &row.requests).collect();
        all.sort_unstable_by_key(|waiting| waiting.ticket.id);
        all
    }

    fn take(&mut self, row: usize, place: usize) -> Option<Waiting<R>> {
        let requests = &mut self.rows.get_mut(row)?.requests;
        let taken = requests.remove(place)?;
        if requests.is_empty() {
            self.rows.swap_remove(row);
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.seats_waiting = self.seats_waiting.saturating_sub(taken.ticket.width);
        self.catch_up();
        Some(taken)
    }

    /// Nothing starts before it came: a queue that had little to do has no claim on what it left to others.
    fn catch_up(&mut self) {
        let fronts = self.rows.iter().filter_map(|row| row.requests.front());
        if let Some(oldest) = fronts.min_by_key(|waiting| waiting.ticket.id) {
            self.next_dispatch = self.next_dispatch.max(oldest.arrival_progress);
        }
    }
}
