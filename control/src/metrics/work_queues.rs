//! The controllers' queues, under client-go's names.

use std::fmt;

use super::{HistogramSample, Labels, Scrape};
use crate::engine::{HISTOGRAM_BOUNDS, HistogramSnapshot, QueueStats};

/// Tells of `queues`.
pub fn tell(scrape: &mut Scrape<'_>, queues: &[QueueStats]) -> fmt::Result {
    let labels: Vec<[(&str, &str); 1]> = queues.iter().map(|queue| [("name", queue.name)]).collect();
    let each = || labels.iter().map(|labels| labels as Labels<'_>).zip(queues);
    scrape.gauges("workqueue_depth", "Keys that wait.", each().map(|(l, q)| (l, q.depth as f64)))?;
    scrape.counters("workqueue_adds", "Keys that were queued.", each().map(|(l, q)| (l, q.adds)))?;
    let help = "Keys that were given back after a failure.";
    scrape.counters("workqueue_retries", help, each().map(|(l, q)| (l, q.retries)))?;
    let help = "For how long the oldest key has been worked on, in seconds.";
    let longest = each().map(|(l, q)| (l, q.longest_running.as_secs_f64()));
    scrape.gauges("workqueue_longest_running_processor_seconds", help, longest)?;
    let help = "For how long keys have been worked on that are not done, summed, in seconds.";
    let unfinished = each().map(|(l, q)| (l, q.unfinished_work.as_secs_f64()));
    scrape.gauges("workqueue_unfinished_work_seconds", help, unfinished)?;
    let bounds = bounds();
    let help = "How long keys waited, in seconds.";
    let waits = each().map(|(l, q)| (l, sample(&bounds, &q.queue_duration)));
    scrape.histograms("workqueue_queue_duration_seconds", help, waits)?;
    let help = "How long keys were worked on, in seconds.";
    let works = each().map(|(l, q)| (l, sample(&bounds, &q.work_duration)));
    scrape.histograms("workqueue_work_duration_seconds", help, works)
}

/// The upper bounds of the engine's histograms, in seconds.
pub(super) fn bounds() -> Vec<f64> {
    HISTOGRAM_BOUNDS.iter().map(|bound| bound.as_secs_f64()).collect()
}

/// One of the engine's histograms.
pub(super) fn sample<'s>(bounds: &'s [f64], histogram: &'s HistogramSnapshot) -> HistogramSample<'s> {
    HistogramSample { bounds, counts: &histogram.buckets, sum: histogram.sum.as_secs_f64() }
}
