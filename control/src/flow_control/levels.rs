//! All priority levels as they run: which there are, and how many seats each has now. One writer calls these functions.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderValue;

use super::{
    borrowing::{SeatBounds, SeatClaim, distribute},
    configuration::{CATCH_ALL, FlowControlSpec, LevelSpec, LimitResponse, SchemaSpec},
    fair_queuing::{Queuing, SeatLimit},
    flow_stats::FlowStats,
    memory::AllWaitingMemory,
    policy::{FlowPolicy, FlowSchema},
    priority_level::PriorityLevel,
    seat_demand::SmoothedDemand,
    work_estimate::MAX_WIDTH,
};

/// The levels by name.
#[derive(Debug, Default)]
pub struct Levels {
    /// Those of the specification, and those that are not idle yet although they were removed from it.
    pub by_name: BTreeMap<Arc<str>, RunningLevel>,
    /// Which part of its target each level gets that no bound keeps from it.
    pub fair_fraction: f64,
    /// What waits in them takes of this.
    waiting_memory: Arc<AllWaitingMemory>,
}

/// A level, with what was decided over its seats.
#[derive(Debug)]
pub struct RunningLevel {
    /// Its requests.
    pub level: Arc<PriorityLevel>,
    /// What was asked for.
    pub spec: LevelSpec,
    /// What follows from all specifications.
    pub bounds: SeatBounds,
    /// What it could use of late.
    pub demand: SmoothedDemand,
    /// Its seats.
    pub seats: usize,
    /// What its demand and bounds make its aim.
    pub target: f64,
    /// It was removed, and is gone once it is idle.
    pub is_quiescing: bool,
}

impl Levels {
    /// Takes in a specification: the policy that follows from it. `total` are the seats of all levels together; what is
    /// counted goes on from `before`.
    pub fn configure(&mut self, spec: FlowControlSpec, total: usize, before: Option<&FlowPolicy>) -> FlowPolicy {
        for (name, running) in &mut self.by_name {
            running.is_quiescing = !spec.levels.contains_key(name);
        }
        for (name, wanted) in spec.levels {
            match self.by_name.get_mut(&name) {
                // An exempt level has no seats, which a limited one counts.
                Some(running) if running.spec.is_exempt() == wanted.is_exempt() => running.spec = wanted,
                _ => drop(self.by_name.insert(name.clone(), RunningLevel::new(name, wanted, &self.waiting_memory))),
            }
        }
        self.by_name.retain(|_, running| !running.is_quiescing || !running.level.is_idle());
        let share_sum = self.by_name.values().map(|running| running.spec.share.shares).sum();
        for running in self.by_name.values_mut() {
            running.bounds = SeatBounds::of(&running.spec.share, share_sum, total);
        }
        self.distribute();
        let schemas = spec.schemas.into_iter().filter_map(|schema| self.schema(schema, before)).collect();
        FlowPolicy::new(schemas)
    }

    /// Gives each level seats by what it could use since this was called before, and forgets those that were removed.
    pub fn adjust(&mut self) {
        self.by_name.retain(|_, running| !running.is_quiescing || !running.level.is_idle());
        for running in self.by_name.values_mut() {
            running.demand.update(running.level.take_demand());
        }
        self.distribute();
    }

    fn distribute(&mut self) {
        let claims: Vec<SeatClaim> = self.by_name.values().map(RunningLevel::claim).collect();
        let nominal_sum = self.by_name.values().map(|running| running.bounds.nominal).sum();
        let given = distribute(nominal_sum, &claims);
        for ((running, claim), seats) in self.by_name.values_mut().zip(&claims).zip(given.seats) {
            (running.seats, running.target) = (seats, claim.target());
            running.level.configure(running.spec.limit(seats), running.spec.queuing());
        }
        self.fair_fraction = given.fair_fraction;
    }

    /// A schema with its level. What was counted under the same names goes on.
    fn schema(&self, spec: SchemaSpec, before: Option<&FlowPolicy>) -> Option<Arc<FlowSchema>> {
        let running = self.by_name.get(&spec.level)?;
        let is_same = |old: &&Arc<FlowSchema>| old.name == spec.name && old.level.name == spec.level;
        let stats = before.and_then(|before| before.schemas.iter().find(is_same)).map(|old| old.stats.clone());
        let header = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        Some(Arc::new(FlowSchema {
            uid: header(&spec.uid),
            level_uid: header(&running.spec.uid),
            distinguisher: spec.distinguisher,
            rules: spec.rules,
            max_width: running.max_width(),
            level: running.level.clone(),
            stats: stats.unwrap_or_else(|| Arc::new(FlowStats::default())),
            name: spec.name,
        }))
    }
}

impl FlowPolicy {
    /// Of schemas in order, of which one is `catch-all`.
    fn new(schemas: Vec<Arc<FlowSchema>>) -> Self {
        let catch_all = schemas.iter().find(|schema| &*schema.name == CATCH_ALL).or(schemas.last());
        let catch_all = catch_all.expect("mandatory schemas are always there").clone();
        Self { schemas, catch_all }
    }
}

impl RunningLevel {
    fn new(name: Arc<str>, spec: LevelSpec, memory: &Arc<AllWaitingMemory>) -> Self {
        Self {
            level: PriorityLevel::new(name, spec.limit(0), spec.queuing(), memory.clone()),
            bounds: SeatBounds::default(),
            demand: SmoothedDemand::default(),
            seats: 0,
            target: 0.0,
            is_quiescing: false,
            spec,
        }
    }

    fn claim(&self) -> SeatClaim {
        SeatClaim {
            is_exempt: self.spec.is_exempt(),
            bounds: self.bounds,
            high_watermark: self.demand.high_watermark,
            smoothed: self.demand.smoothed,
        }
    }

    /// The most seats of one request: a sixth or so of the level, so that it does not have to be empty first. Source:
    /// `MaxSeatsTracker` of `k8s.io/apiserver`.
    fn max_width(&self) -> usize {
        let Some(Queuing { hand_size, .. }) = self.spec.queuing() else { return MAX_WIDTH };
        let nominal = self.bounds.nominal;
        let part = nominal.saturating_mul(15).div_ceil(100);
        part.min(nominal / hand_size.max(1)).clamp(1, MAX_WIDTH)
    }
}

impl LevelSpec {
    /// Whether its requests are never limited.
    pub fn is_exempt(&self) -> bool {
        self.response == LimitResponse::Exempt
    }

    fn limit(&self, seats: usize) -> SeatLimit {
        if self.is_exempt() { SeatLimit::Exempt } else { SeatLimit::Seats(seats) }
    }

    fn queuing(&self) -> Option<Queuing> {
        match self.response {
            LimitResponse::Queue(queuing) => Some(queuing),
            LimitResponse::Exempt | LimitResponse::Reject => None,
        }
    }
}
