//! What is counted of the requests of one FlowSchema in its level: without a lock, and kept for as long as both are
//! there.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use super::fair_queuing::FlowRefusal;

/// Kubernetes' buckets, in seconds.
pub const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
/// Kubernetes' buckets of the lengths of queues.
pub const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
/// Kubernetes' buckets of seats.
pub const WIDTHS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

/// The counts of one FlowSchema.
#[derive(Debug, Default)]
pub struct FlowStats {
    /// Requests that came to execute.
    pub dispatched: AtomicU64,
    refused: [AtomicU64; FlowRefusal::ALL.len()],
    /// Requests that wait, and the seats that they wait for.
    pub waiting: FlowGauge,
    /// Requests that execute, and their seats.
    pub executing: FlowGauge,
    /// How long requests waited that came to execute; 0 for those that did not have to.
    pub waited: FlowHistogram<13>,
    /// How long requests waited that were refused.
    pub waited_in_vain: FlowHistogram<13>,
    /// How long requests executed.
    pub executed: FlowHistogram<13>,
    /// How long watches took to begin.
    pub watches_began: FlowHistogram<13>,
    /// How many waited in a queue, with each that came to it.
    pub queue_lengths: FlowHistogram<8>,
    /// Seats of requests.
    pub widths: FlowHistogram<8>,
}

/// A number of requests, and of their seats.
#[derive(Debug, Default)]
pub struct FlowGauge {
    /// Requests.
    pub requests: AtomicUsize,
    /// Seats.
    pub seats: AtomicUsize,
}

/// Observations, by size.
#[derive(Debug)]
pub struct FlowHistogram<const BOUNDS: usize> {
    counts: [AtomicU64; BOUNDS],
    above: AtomicU64,
    /// In millionths.
    sum: AtomicU64,
}

impl FlowRefusal {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::ConcurrencyLimit, Self::QueueFull, Self::TimeOut, Self::Cancelled];

    /// The label `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FlowStats {
    /// A request is refused.
    pub fn refuse(&self, why: FlowRefusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// How many were refused for this reason.
    pub fn refused(&self, why: FlowRefusal) -> u64 {
        self.refused[why as usize].load(Relaxed)
    }
}

impl FlowGauge {
    /// One more.
    pub fn add(&self, width: usize) {
        self.requests.fetch_add(1, Relaxed);
        self.seats.fetch_add(width, Relaxed);
    }

    /// One less.
    pub fn remove(&self, width: usize) {
        self.requests.fetch_sub(1, Relaxed);
        self.seats.fetch_sub(width, Relaxed);
    }
}

impl<const BOUNDS: usize> Default for FlowHistogram<BOUNDS> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), above: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl<const BOUNDS: usize> FlowHistogram<BOUNDS> {
    /// Counts one of this size.
    pub fn observe(&self, bounds: &[f64; BOUNDS], size: f64) {
        let bucket = bounds.iter().position(|bound| size <= *bound).and_then(|bucket| self.counts.get(bucket));
        bucket.unwrap_or(&self.above).fetch_add(1, Relaxed);
        // Sizes are seconds of a request or lengths of queues: far from where the number ends.
        self.sum.fetch_add((size * 1e6) as u64, Relaxed);
    }

    /// Observations by bucket, those above the last bound last, and the sum of all.
    pub fn read(&self) -> (Vec<u64>, f64) {
        let counts = self.counts.iter().chain([&self.above]).map(|count| count.load(Relaxed)).collect();
        (counts, self.sum.load(Relaxed) as f64 / 1e6)
    }
}

impl FlowHistogram<13> {
    /// Counts one that took so long.
    pub fn observe_time(&self, time: Duration) {
        self.observe(&SECONDS, time.as_secs_f64());
    }
}
