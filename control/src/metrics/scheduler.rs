//! The scheduler, under kube-scheduler's names.

use std::fmt;

use super::{
    Labels, Scrape,
    work_queues::{bounds, sample},
};
use crate::scheduler::SchedulerStats;

/// Tells of the scheduler's counts.
pub fn tell(scrape: &mut Scrape<'_>, stats: &SchedulerStats) -> fmt::Result {
    let attempts: [(Labels<'_>, u64); 3] = [
        (&[("result", "scheduled")], stats.scheduled),
        (&[("result", "unschedulable")], stats.unschedulable),
        (&[("result", "error")], stats.errors),
    ];
    scrape.counters("scheduler_schedule_attempts", "Attempts to schedule a pod, by result.", attempts)?;
    let pending: [(Labels<'_>, f64); 3] = [
        (&[("queue", "active")], stats.active as f64),
        (&[("queue", "backoff")], stats.backing_off as f64),
        (&[("queue", "unschedulable")], stats.waiting as f64),
    ];
    scrape.gauges("scheduler_pending_pods", "Pods that wait to be scheduled, by queue.", pending)?;
    let attempts: [(Labels<'_>, u64); 1] = [(&[], stats.preemption_attempts)];
    scrape.counters("scheduler_preemption_attempts", "Times that pods were deleted for another.", attempts)?;
    let victims: [(Labels<'_>, u64); 1] = [(&[], stats.preemption_victims)];
    scrape.counters("fairlead_scheduler_preemption_victims", "Pods that were deleted for others.", victims)?;
    let bounds = bounds();
    let help = "How long it took to choose a node, in seconds.";
    let choices = [(&[][..], sample(&bounds, &stats.attempt_duration))];
    scrape.histograms("scheduler_scheduling_algorithm_duration_seconds", help, choices)?;
    let help = "How long a step of the scheduler took, in seconds.";
    let steps: [(Labels<'_>, _); 1] =
        [(&[("extension_point", "PostFilter")], sample(&bounds, &stats.preemption_duration))];
    scrape.histograms("scheduler_framework_extension_point_duration_seconds", help, steps)?;
    let help = "From when a pod was first seen until it was bound, in seconds.";
    let pods = [(&[][..], sample(&bounds, &stats.pod_duration))];
    scrape.histograms("scheduler_pod_scheduling_sli_duration_seconds", help, pods)
}
