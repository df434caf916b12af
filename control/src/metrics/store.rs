//! The store: how long commits take, what became of transactions, how many watches there are.

use std::fmt;

use super::{HistogramSample, Labels, Scrape};
use crate::store::{Histogram, SYNC_SECONDS_BOUNDS, Stats};

/// Tells of a store's counts. Names and buckets of the durations are etcd's, which mean the same.
pub fn tell(scrape: &mut Scrape<'_>, stats: &Stats) -> fmt::Result {
    const NONE: Labels<'static> = &[];
    let sample = |of: &'_ Histogram| (of.counts, of.sum_seconds);
    for (name, help, (counts, sum)) in [
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "How long it took to make a batch of transactions durable in the log, in seconds.",
            sample(&stats.sync_seconds),
        ),
        (
            "etcd_disk_backend_commit_duration_seconds",
            "How long it took to bring what the log has into the tables, in seconds.",
            sample(&stats.checkpoint_seconds),
        ),
    ] {
        scrape.histograms(
            name,
            help,
            [(NONE, HistogramSample { bounds: &SYNC_SECONDS_BOUNDS, counts: &counts, sum })],
        )?;
    }
    let results: [(Labels<'_>, u64); 3] = [
        (&[("result", "committed")], stats.committed),
        (&[("result", "conflict")], stats.conflicts),
        (&[("result", "failed")], stats.failed),
    ];
    scrape.counters("fairlead_store_transactions", "Transactions by what became of them.", results)?;
    scrape.counters(
        "fairlead_store_checkpoint_failures",
        "How often what the log has could not be brought into the tables.",
        [(NONE, stats.checkpoint_failures)],
    )?;
    scrape.counters("fairlead_store_writes", "Writes of committed transactions.", [(NONE, stats.writes)])?;
    scrape.counters(
        "fairlead_store_watch_wakes",
        "How often a change was told to a watch.",
        [(NONE, stats.watch_wakes)],
    )?;
    for (name, help, value) in [
        ("fairlead_store_queue_depth", "Calls that wait for the committer.", stats.queued),
        ("fairlead_store_watches", "Watches of the store.", stats.watches),
        (
            "fairlead_store_log_bytes",
            "Text that the write-ahead log has and the tables lack, in bytes.",
            stats.log_bytes,
        ),
        (
            "fairlead_store_row_bytes",
            "How long the rows of objects were in the tables when they were opened, in bytes.",
            stats.row_bytes,
        ),
        (
            "fairlead_store_file_bytes",
            "How long the file of the tables was when it was opened, in bytes.",
            stats.file_bytes,
        ),
        (
            "fairlead_store_freed_texts",
            "Whether free places of the tables' file may have texts that are encrypted now.",
            u64::from(stats.freed_texts),
        ),
        ("fairlead_store_quarantined_objects", "Objects that could not be read at the start.", stats.quarantined),
    ] {
        scrape.gauges(name, help, [(NONE, value as f64)])?;
    }
    Ok(())
}
