//! `apiserver_flowcontrol_*`: what is counted of requests by level and schema, and the seats of each level, under
//! Kubernetes' names.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    fair_queuing::FlowRefusal,
    flow_stats::{FlowStats, LENGTHS, SECONDS, WIDTHS},
    levels::{Levels, RunningLevel},
    policy::{FlowPolicy, FlowSchema},
};
use crate::metrics::{HistogramSample, Labels, Scrape};

/// Reads a gauge of a schema.
type ReadGauge = fn(&FlowStats) -> usize;
/// Reads a number of a level.
type ReadLevel = fn(&RunningLevel) -> f64;
/// Reads a histogram of a schema.
type ReadHistogram = fn(&FlowStats) -> (Vec<u64>, f64);
/// A histogram: its name, what it says, its bounds, and the samples of a schema with a further label each.
type HistogramRow<'a> = (&'a str, &'a str, &'a [f64], &'a [(Option<(&'a str, &'a str)>, ReadHistogram)]);

/// Tells all of them.
pub fn tell(scrape: &mut Scrape<'_>, policy: &FlowPolicy, levels: &Levels) -> fmt::Result {
    tell_counts(scrape, policy)?;
    tell_gauges(scrape, policy)?;
    tell_histograms(scrape, policy)?;
    tell_seats(scrape, levels)
}

fn labels(schema: &FlowSchema) -> [(&'static str, &str); 2] {
    [("priority_level", &schema.level.name), ("flow_schema", &schema.name)]
}

fn tell_counts(scrape: &mut Scrape<'_>, policy: &FlowPolicy) -> fmt::Result {
    let dispatched: Vec<_> = policy.schemas.iter().map(|s| (labels(s), s.stats.dispatched.load(Relaxed))).collect();
    scrape.counters(
        "apiserver_flowcontrol_dispatched_requests",
        "Requests that came to be handled",
        dispatched.iter().map(|(labels, count)| (&labels[..], *count)),
    )?;
    let refused = policy.schemas.iter().flat_map(|schema| {
        let [level, name] = labels(schema);
        FlowRefusal::ALL.map(|why| ([level, name, ("reason", why.reason())], schema.stats.refused(why)))
    });
    let refused: Vec<_> = refused.filter(|(_, count)| *count > 0).collect();
    scrape.counters(
        "apiserver_flowcontrol_rejected_requests",
        "Requests that were refused, or whose clients went while they waited",
        refused.iter().map(|(labels, count)| (&labels[..], *count)),
    )
}

fn tell_gauges(scrape: &mut Scrape<'_>, policy: &FlowPolicy) -> fmt::Result {
    let gauges: [(&str, &str, ReadGauge); 4] = [
        ("current_inqueue_requests", "Requests that wait", |s| s.waiting.requests.load(Relaxed)),
        ("current_inqueue_seats", "Seats that requests wait for", |s| s.waiting.seats.load(Relaxed)),
        ("current_executing_requests", "Requests that are handled", |s| s.executing.requests.load(Relaxed)),
        ("current_executing_seats", "Seats of requests that are handled", |s| s.executing.seats.load(Relaxed)),
    ];
    for (name, help, read) in gauges {
        let samples: Vec<_> = policy.schemas.iter().map(|s| (labels(s), read(&s.stats) as f64)).collect();
        let name = format!("apiserver_flowcontrol_{name}");
        scrape.gauges(&name, help, samples.iter().map(|(labels, value)| (&labels[..], *value)))?;
    }
    Ok(())
}

fn tell_histograms(scrape: &mut Scrape<'_>, policy: &FlowPolicy) -> fmt::Result {
    let histograms: [HistogramRow<'_>; 4] = [
        (
            "request_wait_duration_seconds",
            "How long requests waited",
            &SECONDS,
            &[
                (Some(("execute", "true")), |s| s.waited.read()),
                (Some(("execute", "false")), |s| s.waited_in_vain.read()),
            ],
        ),
        (
            "request_execution_seconds",
            "How long requests were handled; watches, until they began",
            &SECONDS,
            &[
                (Some(("type", "regular")), |s| s.executed.read()),
                (Some(("type", "watch")), |s| s.watches_began.read()),
            ],
        ),
        (
            "request_queue_length_after_enqueue",
            "How many waited in a queue, with each that came to it",
            &LENGTHS,
            &[(None, |s| s.queue_lengths.read())],
        ),
        ("work_estimated_seats", "Seats of requests", &WIDTHS, &[(None, |s| s.widths.read())]),
    ];
    for (name, help, bounds, reads) in histograms {
        let of_schema = |schema: &'_ Arc<FlowSchema>| {
            let read =
                |(label, read): &(Option<(&'static str, &'static str)>, ReadHistogram)| (*label, read(&schema.stats));
            reads.iter().map(read).collect::<Vec<_>>()
        };
        let mut samples = Vec::new();
        for schema in &policy.schemas {
            for (label, (counts, sum)) in of_schema(schema) {
                if counts.iter().any(|count| *count > 0) {
                    let labels: Vec<(&str, &str)> = labels(schema).into_iter().chain(label).collect();
                    samples.push((labels, counts, sum));
                }
            }
        }
        let samples = samples.iter().map(|(labels, counts, sum)| {
            let labels: Labels<'_> = labels;
            (labels, HistogramSample { bounds, counts, sum: *sum })
        });
        scrape.histograms(&format!("apiserver_flowcontrol_{name}"), help, samples)?;
    }
    Ok(())
}

fn tell_seats(scrape: &mut Scrape<'_>, levels: &Levels) -> fmt::Result {
    let gauges: [(&str, &str, ReadLevel); 9] = [
        ("nominal_limit_seats", "Seats of a level by its shares", |r| r.bounds.nominal as f64),
        ("lower_limit_seats", "Seats of a level that it does not lend", |r| r.bounds.min as f64),
        ("upper_limit_seats", "Seats of a level with the most that it borrows", |r| r.bounds.max as f64),
        ("current_limit_seats", "Seats of a level now", |r| r.seats as f64),
        ("demand_seats_high_watermark", "The most seats that a level could use", |r| r.demand.high_watermark as f64),
        ("demand_seats_average", "Seats that a level could use, on average", |r| r.demand.average),
        ("demand_seats_stdev", "Standard deviation of the seats that a level could use", |r| r.demand.deviation),
        ("demand_seats_smoothed", "Seats that a level could use, over many adjustments", |r| r.demand.smoothed),
        ("target_seats", "Seats that a level would have if there were enough", |r| r.target),
    ];
    for (name, help, read) in gauges {
        let samples: Vec<_> =
            levels.by_name.iter().map(|(name, running)| ([("priority_level", &**name)], read(running))).collect();
        let name = format!("apiserver_flowcontrol_{name}");
        scrape.gauges(&name, help, samples.iter().map(|(labels, value)| (&labels[..], *value)))?;
    }
    let help = "Which part of its target each level gets that no bound keeps from it";
    scrape.gauges("apiserver_flowcontrol_seat_fair_frac", help, [(&[][..], levels.fair_fraction)])
}
