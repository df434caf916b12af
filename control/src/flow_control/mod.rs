//! API priority and fairness (KEP 1040): which requests are handled now, which wait for their turn, and which are
//! refused.
//!
//! ```text
//!              ┌───────────── FlowPolicy (snapshot) ─────────────┐      ┌──────── PriorityLevel ────────┐
//!  request ──▶ │ FlowSchemas by precedence: the first that       │ ───▶ │ queue ─┐                      │
//!              │ matches; its distinguisher makes the flow       │      │ queue ─┼─▶ seats ─▶ handler   │
//!              └─────────────────────────────────────────────────┘      │ queue ─┘                      │
//!                              ▲                                        └───────────────▲───────────────┘
//!   FlowSchemas, PriorityLevelConfigurations                      seats by demand, every ten seconds
//! ```
//!
//! | word | means |
//! |---|---|
//! | level | a priority level: a number of seats, and what becomes of requests that find none |
//! | flow | the requests of one FlowSchema by one user, or about one namespace |
//! | seat | the right of a request to be handled; a large list takes several (its *width*) |
//! | hand | the few queues of a level that a flow may use |
//! | share | the most seats of a level that one user may hold while so many are free |
//! | exempt | a level whose seats are not limited: the administrator's |
//! | heartbeat | the request by which a node shows that it lives: of its Lease or its status |
//!
//! | file | what it knows |
//! |---|---|
//! | `configuration` | the objects, read once |
//! | `classification`, `policy` | to which schema and flow a request belongs |
//! | `fair_queuing`, `shuffle_sharding`, `seat_holders` | whose turn it is in a level (pure) |
//! | `seat_demand`, `borrowing`, `levels` | how many seats each level has |
//! | `priority_level`, `level_seat`, `seat` | a request on its way: the lock, the wait, what it holds |
//! | `work_estimate` | how many seats a request takes |
//! | `dropped_requests` | when clients are to come again that are refused (pure) |
//! | `memory`, `shares` | the memory of requests and answers, divided among users |
//! | `in_flight` | the limits of a server without priorities |
//! | `request_limits` | which of both a server has, for its gate |
//! | `controller` | follows the objects, writes their conditions, adjusts seats |
//! | `flow_stats`, `flow_metrics`, `dump` | what `/metrics` and `/debug/api_priority_and_fairness/` tell |
//!
//! What is better than in Kubernetes stays so: no user takes the seats of others, in no level ([`seat_holders`]), so
//! that one stolen credential of a node does not keep others' heartbeats from being served; heartbeats go before all
//! else in their level, and have a part of its seats to themselves; whoever takes an answer slowly has no seat for as
//! long; and what waits, what comes and what goes is bounded in bytes.

mod borrowing;
mod classification;
mod configuration;
pub mod controller;
mod dropped_requests;
pub mod dump;
mod fair_queuing;
mod flow_metrics;
mod flow_stats;
pub mod in_flight;
mod level_seat;
mod levels;
mod memory;
mod policy;
mod priority_level;
pub mod request_limits;
pub mod seat;
mod seat_demand;
mod seat_holders;
pub mod shares;
mod shuffle_sharding;
#[cfg(test)]
mod tests;
pub mod too_many;
mod work_estimate;

use std::{fmt, hash::RandomState, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::{
    configuration::FlowControlSpec,
    level_seat::WaitTerms,
    levels::Levels,
    memory::RequestMemory,
    policy::{FlowPolicy, FlowSchema},
    priority_level::{Coming, RequestBrief},
    seat::{LevelSource, Seat, SeatSource},
    too_many::TooMany,
    work_estimate::WorkEstimator,
};
use crate::{
    deadline::REQUEST_TIMEOUT,
    identity::Identity,
    kinds::{Registry, go_duration::go_duration},
    metrics::Scrape,
    request::{RequestInfo, Verb},
    store::Store,
};

/// All levels and schemas. Clones share them.
#[derive(Clone)]
pub struct FlowControl {
    inner: Arc<Inner>,
}

struct Inner {
    policy: ArcSwap<FlowPolicy>,
    /// Locked by who configures and adjusts, and by who tells of it; never by a request.
    levels: Mutex<Levels>,
    /// Seats of all levels together.
    seats: usize,
    hasher: RandomState,
    memory: Arc<RequestMemory>,
    estimator: WorkEstimator,
}

impl FlowControl {
    /// By the objects that are stored, with so many seats in all. [`controller::run`] follows the objects.
    pub fn new(store: Arc<dyn Store>, kinds: Registry, seats: usize) -> Self {
        let mut levels = Levels::default();
        let policy = levels.configure(FlowControlSpec::of(&store.snapshot()), seats, None);
        Self {
            inner: Arc::new(Inner {
                policy: ArcSwap::from_pointee(policy),
                levels: Mutex::new(levels),
                seats,
                hasher: RandomState::new(),
                memory: Arc::default(),
                estimator: WorkEstimator::new(store, kinds),
            }),
        }
    }

    /// The schema of a request, and its seat once it is its turn.
    pub async fn enter(
        &self,
        identity: &Identity,
        info: &RequestInfo,
        parts: &http::request::Parts,
    ) -> (Arc<FlowSchema>, Result<Seat, TooMany>) {
        let inner = &*self.inner;
        let schema = inner.policy.load().classify(identity, info).clone();
        let width = inner.estimator.width(info, schema.max_width);
        schema.stats.widths.observe(&flow_stats::WIDTHS, width as f64);
        let work = schema.work(&inner.hasher, identity, info, width);
        let request = RequestBrief { user: identity.name.as_str().into(), verb: info.verb, uri: parts.uri.clone() };
        let terms = WaitTerms { longest: longest_wait(info), head: head_bytes(parts) };
        let source = SeatSource::Level(LevelSource { schema: schema.clone(), request: Arc::new(request), terms });
        let seat = Seat::new(identity, info, inner.memory.clone(), source);
        let taken = seat.take_in_turn(Coming::First(work)).await;
        (schema, taken.map(|()| seat))
    }

    /// Tells its metrics.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        flow_metrics::tell(scrape, &self.inner.policy.load(), &self.inner.levels.lock())
    }

    /// Takes in what the objects say now.
    fn configure(&self, spec: FlowControlSpec) {
        let mut levels = self.inner.levels.lock();
        let policy = levels.configure(spec, self.inner.seats, Some(&self.inner.policy.load()));
        self.inner.policy.store(Arc::new(policy));
    }

    /// Gives each level seats by its demand.
    fn adjust(&self) {
        self.inner.levels.lock().adjust();
    }
}

/// A quarter of the time that the request may take. That of a watch does not count: it is how long it goes on.
fn longest_wait(info: &RequestInfo) -> Duration {
    let given = info.query.parameter("timeout").filter(|_| info.verb != Verb::Watch);
    let given = given.and_then(|timeout| go_duration(timeout).ok()).and_then(|nanos| u64::try_from(nanos).ok());
    let whole = given.filter(|nanos| *nanos > 0).map_or(REQUEST_TIMEOUT, Duration::from_nanos);
    whole.min(REQUEST_TIMEOUT) / 4
}

/// Bytes of a request before its body.
fn head_bytes(parts: &http::request::Parts) -> usize {
    let headers = parts.headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
    let uri = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    headers.fold(uri, usize::saturating_add)
}
