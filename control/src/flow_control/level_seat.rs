//! A request's way to its seats in a priority level: it gets them at once, or waits for its turn for a limited time,
//! or is refused. What it has is given back when it is dropped, wherever it is on that way.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    fair_queuing::{FlowRefusal, Left, Ticket},
    policy::FlowSchema,
    priority_level::{Admitted, Coming, FlowEntry, RequestBrief},
};
use crate::request::Verb;

/// Until when and at what cost a request waits.
#[derive(Clone, Copy, Debug)]
pub struct WaitTerms {
    /// How long.
    pub longest: Duration,
    /// Bytes of its head.
    pub head: usize,
}

/// The seats of a request that executes.
#[derive(Debug)]
pub struct LevelSeat {
    schema: Arc<FlowSchema>,
    ticket: Ticket,
    is_watch: bool,
    started: Instant,
    /// For how long it executed before it gave its seats up for some time.
    before: Duration,
    /// It does not come back.
    has_ended: bool,
}

/// What a request that gave its seats up comes back with.
#[derive(Clone, Copy, Debug)]
pub struct Vacated {
    ticket: Ticket,
    before: Duration,
}

/// A request that waits.
struct PlaceInQueue<'a> {
    schema: &'a Arc<FlowSchema>,
    ticket: Ticket,
    arrived: Instant,
    has_left: bool,
}

impl LevelSeat {
    /// Seats for a request that comes.
    pub async fn take(
        schema: &Arc<FlowSchema>,
        coming: Coming,
        request: &Arc<RequestBrief>,
        terms: WaitTerms,
    ) -> Result<Self, FlowRefusal> {
        let arrived = Instant::now();
        let admitted = schema.level.admit(coming, FlowEntry::new(schema, request));
        let Admitted { ticket, queued } = admitted.inspect_err(|why| {
            schema.level.record_dropped();
            schema.stats.refuse(*why);
            schema.stats.waited_in_vain.observe_time(Duration::ZERO);
        })?;
        let Some((woken, length)) = queued else {
            schema.stats.waited.observe_time(Duration::ZERO);
            return Ok(Self::new(schema, coming, ticket, request));
        };
        schema.stats.waiting.add(ticket.width);
        schema.stats.queue_lengths.observe(&super::flow_stats::LENGTHS, length as f64);
        let mut place = PlaceInQueue { schema, ticket, arrived, has_left: false };
        let memory = schema.level.waiting_memory.keep(ticket.is_heartbeat, &request.user, terms.head);
        let Some(_memory) = memory else {
            return place.give_up(FlowRefusal::QueueFull).map(|()| Self::new(schema, coming, ticket, request));
        };
        match tokio::time::timeout(terms.longest, woken).await {
            Ok(_) => place.is_over(),
            Err(_) => place.give_up(FlowRefusal::TimeOut)?,
        }
        Ok(Self::new(schema, coming, ticket, request))
    }

    /// The same for a request that gave them up before.
    pub async fn take_again(
        schema: &Arc<FlowSchema>,
        vacated: Vacated,
        request: &Arc<RequestBrief>,
        terms: WaitTerms,
    ) -> Result<Self, FlowRefusal> {
        let mut seat = Self::take(schema, Coming::Back(vacated.ticket), request, terms).await?;
        seat.before = vacated.before;
        Ok(seat)
    }

    /// Gives them up for some time.
    pub fn vacate(mut self) -> Vacated {
        self.has_ended = false;
        Vacated { ticket: self.ticket, before: self.before.saturating_add(self.started.elapsed()) }
    }

    fn new(schema: &Arc<FlowSchema>, coming: Coming, ticket: Ticket, request: &RequestBrief) -> Self {
        let stats = &schema.stats;
        if let Coming::First(_) = coming {
            stats.dispatched.fetch_add(1, Relaxed);
        }
        stats.executing.add(ticket.width);
        let (is_watch, started) = (request.verb == Verb::Watch, Instant::now());
        Self { schema: schema.clone(), ticket, is_watch, started, before: Duration::ZERO, has_ended: true }
    }
}

impl Drop for LevelSeat {
    fn drop(&mut self) {
        let stats = &self.schema.stats;
        if self.has_ended {
            let took = if self.is_watch { &stats.watches_began } else { &stats.executed };
            took.observe_time(self.before.saturating_add(self.started.elapsed()));
        }
        stats.executing.remove(self.ticket.width);
        self.schema.level.leave(&self.ticket);
    }
}

impl PlaceInQueue<'_> {
    /// Its turn has come.
    fn is_over(&mut self) {
        self.has_left = true;
        self.schema.stats.waiting.remove(self.ticket.width);
        self.schema.stats.waited.observe_time(self.arrived.elapsed());
    }

    /// It waits no more, unless its turn has come meanwhile.
    fn give_up(&mut self, why: FlowRefusal) -> Result<(), FlowRefusal> {
        if !self.schema.level.leave_queue(&self.ticket) {
            self.is_over();
            return Ok(());
        }
        self.is_refused(why);
        Err(why)
    }

    fn is_refused(&mut self, why: FlowRefusal) {
        self.has_left = true;
        self.schema.level.record_dropped();
        let stats = &self.schema.stats;
        stats.waiting.remove(self.ticket.width);
        stats.refuse(why);
        stats.waited_in_vain.observe_time(self.arrived.elapsed());
    }
}

impl Drop for PlaceInQueue<'_> {
    /// The client has gone.
    fn drop(&mut self) {
        if self.has_left {
            return;
        }
        match self.schema.level.leave(&self.ticket) {
            Some(Left::Waiting) | None => self.is_refused(FlowRefusal::Cancelled),
            Some(Left::Executing) => self.is_over(),
        }
    }
}
