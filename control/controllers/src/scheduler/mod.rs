//! The scheduler: gives every pending pod a node.
//!
//! One loop ([`scheduling_loop`]) owns all state: what the informers show goes in ([`event_mapper`]), a placement comes
//! out ([`cluster`], pure), is assumed at once, and its binding is sent while the next pod is placed. A pod that no
//! node can take waits for a change that could help it; nothing polls. A loop that fails is started again and reads
//! everything.

mod bind;
mod cluster;
mod domains;
mod event_mapper;
mod filter;
mod matching;
mod neighbours;
mod node;
mod nominated;
mod pod;
mod preemption;
mod queue;
mod queueing_hints;
mod rejection;
mod resources;
mod scheduling_loop;
mod score;
mod spread;
mod stats;

use std::sync::Arc;

use futures::FutureExt;
use kube::Client;

use self::{event_mapper::EventMapper, scheduling_loop::SchedulingLoop, stats::SchedulerCounters};
use crate::{
    engine::{Tasks, start_recorder},
    objects::informers::Informers,
    supervise::TaskStatus,
};

pub use self::stats::SchedulerStats;

/// The running scheduler.
pub struct Scheduler {
    tasks: Tasks,
    counters: Arc<SchedulerCounters>,
}

/// Starts the scheduler over watches that others run. It waits for their first listings, and ends with
/// [`Scheduler::shutdown`].
pub fn start(client: Client, informers: &Informers) -> Scheduler {
    let tasks = Tasks::default();
    let recorder = start_recorder(client.clone(), &tasks);
    let events = EventMapper::start(informers);
    let counters = Arc::new(SchedulerCounters::default());
    let shared = counters.clone();
    tasks.spawn("scheduler", move |stop| {
        let scheduling = SchedulingLoop::new(client.clone(), recorder.clone(), events.clone(), shared.clone());
        scheduling.run(stop).boxed()
    });
    Scheduler { tasks, counters }
}

impl Scheduler {
    /// What it did so far.
    pub fn stats(&self) -> SchedulerStats {
        self.counters.snapshot()
    }

    /// Its tasks and how often each was started again.
    pub fn tasks(&self) -> Vec<TaskStatus> {
        self.tasks.status()
    }

    /// Stops, and returns when the bindings under way have ended.
    pub async fn shutdown(&self) {
        self.tasks.shutdown().await;
    }
}
