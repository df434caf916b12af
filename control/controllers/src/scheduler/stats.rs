//! What the scheduler did, counted for `/metrics`. The names in brackets are Kubernetes' metrics of the same meaning.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::engine::{AtomicHistogram, HistogramSnapshot};

/// Counters that the loop writes.
#[derive(Debug, Default)]
pub struct SchedulerCounters {
    /// See [`SchedulerStats::scheduled`].
    pub scheduled: AtomicU64,
    /// See [`SchedulerStats::unschedulable`].
    pub unschedulable: AtomicU64,
    /// See [`SchedulerStats::errors`].
    pub errors: AtomicU64,
    /// See [`SchedulerStats::preemption_attempts`].
    pub preemption_attempts: AtomicU64,
    /// See [`SchedulerStats::preemption_victims`].
    pub preemption_victims: AtomicU64,
    /// See [`SchedulerStats::preemption_duration`].
    pub preemption_duration: AtomicHistogram,
    /// See [`SchedulerStats::attempt_duration`].
    pub attempt_duration: AtomicHistogram,
    /// See [`SchedulerStats::pod_duration`].
    pub pod_duration: AtomicHistogram,
    /// See [`SchedulerStats::active`].
    pub active: AtomicUsize,
    /// See [`SchedulerStats::backing_off`].
    pub backing_off: AtomicUsize,
    /// See [`SchedulerStats::waiting`].
    pub waiting: AtomicUsize,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Attempts that bound a pod (`scheduler_schedule_attempts_total{result="scheduled"}`).
    pub scheduled: u64,
    /// Attempts that found no node (`…{result="unschedulable"}`).
    pub unschedulable: u64,
    /// Attempts whose request failed (`…{result="error"}`).
    pub errors: u64,
    /// Times that pods were deleted for another (`scheduler_preemption_attempts_total`).
    pub preemption_attempts: u64,
    /// How many pods were deleted for others (the sum of `scheduler_preemption_victims`).
    pub preemption_victims: u64,
    /// How long it took to decide whether pods are deleted for another (the extension point `PostFilter` of
    /// `scheduler_framework_extension_point_duration_seconds`).
    pub preemption_duration: HistogramSnapshot,
    /// How long it took to choose a node (`scheduler_scheduling_algorithm_duration_seconds`).
    pub attempt_duration: HistogramSnapshot,
    /// From when a pod was queued first until it was bound (`scheduler_pod_scheduling_sli_duration_seconds`).
    pub pod_duration: HistogramSnapshot,
    /// Pods that are to be tried now (`scheduler_pending_pods{queue="active"}`).
    pub active: usize,
    /// Pods that wait out their back-off (`…{queue="backoff"}`).
    pub backing_off: usize,
    /// Pods that no node can take for now (`…{queue="unschedulable"}`).
    pub waiting: usize,
}

impl SchedulerCounters {
    /// The counters now.
    pub fn snapshot(&self) -> SchedulerStats {
        SchedulerStats {
            scheduled: self.scheduled.load(Relaxed),
            unschedulable: self.unschedulable.load(Relaxed),
            errors: self.errors.load(Relaxed),
            preemption_attempts: self.preemption_attempts.load(Relaxed),
            preemption_victims: self.preemption_victims.load(Relaxed),
            preemption_duration: self.preemption_duration.snapshot(),
            attempt_duration: self.attempt_duration.snapshot(),
            pod_duration: self.pod_duration.snapshot(),
            active: self.active.load(Relaxed),
            backing_off: self.backing_off.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
        }
    }
}
