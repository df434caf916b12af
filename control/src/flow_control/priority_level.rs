//! A priority level while it runs: its seats and queues behind one lock, which is held for a decision and never across
//! a wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::{
    dropped_requests::DroppedRequests,
    fair_queuing::{Arrival, ArrivingWork, FlowRefusal, Left, QueueSet, Queuing, SeatLimit, Ticket, Wake},
    memory::{AllWaitingMemory, WaitingMemory},
    policy::FlowSchema,
    seat_demand::ObservedDemand,
};
use crate::request::Verb;

/// What a page about requests tells of one.
#[derive(Debug)]
pub struct RequestBrief {
    /// Who sends it.
    pub user: Arc<str>,
    /// What it does.
    pub verb: Verb,
    /// To what.
    pub uri: http::Uri,
}

/// A request in a level.
#[derive(Debug)]
pub struct FlowEntry {
    /// What it is.
    pub request: Arc<RequestBrief>,
    /// Its schema.
    pub schema: Arc<FlowSchema>,
    /// Told when its turn comes, where it waits.
    wake: Option<oneshot::Sender<()>>,
}

impl FlowEntry {
    /// Of a request that comes.
    pub fn new(schema: &Arc<FlowSchema>, request: &Arc<RequestBrief>) -> Self {
        Self { request: request.clone(), schema: schema.clone(), wake: None }
    }
}

impl Wake for FlowEntry {
    fn wake(&mut self) {
        if let Some(wake) = self.wake.take() {
            // One that does not wait any more leaves as soon as the level's lock is free.
            let _has_gone = wake.send(()).is_err();
        }
    }
}

/// A level.
#[derive(Debug)]
pub struct PriorityLevel {
    /// Its name.
    pub name: Arc<str>,
    /// The memory of what waits in it.
    pub waiting_memory: WaitingMemory,
    /// What its times count from.
    epoch: (Instant, Timestamp),
    set: Mutex<QueueSet<FlowEntry>>,
    dropped: Mutex<DroppedRequests>,
}

/// What comes to a level.
#[derive(Clone, Copy, Debug)]
pub enum Coming {
    /// A request.
    First(ArrivingWork),
    /// One that had a seat before, and gave it up for some time.
    Back(Ticket),
}

/// A request that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// What it is known by.
    pub ticket: Ticket,
    /// Where it has to wait: until it is told, and how many do in its queue.
    pub queued: Option<(oneshot::Receiver<()>, usize)>,
}

impl PriorityLevel {
    /// A level without requests.
    pub fn new(name: Arc<str>, limit: SeatLimit, queuing: Option<Queuing>, memory: Arc<AllWaitingMemory>) -> Arc<Self> {
        let set = Mutex::new(QueueSet::new(limit, queuing, Duration::ZERO));
        Arc::new(Self {
            waiting_memory: WaitingMemory::new(name.clone(), memory),
            name,
            epoch: (Instant::now(), Timestamp::now()),
            set,
            dropped: Mutex::default(),
        })
    }

    /// A request comes.
    pub fn admit(&self, coming: Coming, entry: FlowEntry) -> Result<Admitted, FlowRefusal> {
        let (mut set, now) = self.lock();
        let arrival = match coming {
            Coming::First(work) => set.arrive(now, work, entry),
            Coming::Back(ticket) => set.come_back(now, ticket, entry),
        };
        match arrival {
            Arrival::Started(ticket) => Ok(Admitted { ticket, queued: None }),
            Arrival::Refused(refusal) => Err(refusal),
            Arrival::Queued(ticket, length) => {
                let (wake, woken) = oneshot::channel();
                if let Some(entry) = set.find_waiting(&ticket) {
                    entry.wake = Some(wake);
                }
                Ok(Admitted { ticket, queued: Some((woken, length)) })
            }
        }
    }

    /// A request is refused, or its client has gone while it waited.
    pub fn record_dropped(&self) {
        let mut dropped = self.dropped.lock();
        // The time is read with the lock held: it does not go back.
        dropped.record(self.time(self.epoch.0.elapsed()).as_second());
    }

    /// The same at a time in Unix seconds.
    pub fn record_dropped_at(&self, second: i64) {
        self.dropped.lock().record(second);
    }

    /// After how many seconds a client is to come again whose request was refused.
    pub fn retry_after(&self) -> u32 {
        self.dropped.lock().retry_after()
    }

    /// A request goes, whatever it did.
    pub fn leave(&self, ticket: &Ticket) -> Option<Left> {
        let (mut set, now) = self.lock();
        set.leave(now, ticket)
    }

    /// A request goes if it still waits; whether it does.
    pub fn leave_queue(&self, ticket: &Ticket) -> bool {
        let (mut set, now) = self.lock();
        set.find_waiting(ticket).is_some() && set.leave(now, ticket).is_some()
    }

    /// Has another limit, and other queues.
    pub fn configure(&self, limit: SeatLimit, queuing: Option<Queuing>) {
        let (mut set, now) = self.lock();
        set.configure(now, limit, queuing);
    }

    /// Whether nothing waits and nothing executes.
    pub fn is_idle(&self) -> bool {
        self.set.lock().is_idle()
    }

    /// How many seats were asked for since this was asked before.
    pub fn take_demand(&self) -> ObservedDemand {
        let (mut set, now) = self.lock();
        set.take_demand(now)
    }

    /// What it has to do, for a page about it.
    pub fn look<T>(&self, look: impl FnOnce(&QueueSet<FlowEntry>) -> T) -> T {
        look(&self.set.lock())
    }

    /// One of the times that [`PriorityLevel::look`] shows.
    pub fn time(&self, since: Duration) -> Timestamp {
        self.epoch.1.saturating_add(since).unwrap_or(Timestamp::MAX)
    }

    /// The time is read with the lock held: it does not go back from one decision to the next.
    fn lock(&self) -> (MutexGuard<'_, QueueSet<FlowEntry>>, Duration) {
        let set = self.set.lock();
        (set, self.epoch.0.elapsed())
    }
}
