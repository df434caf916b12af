//! The store: how long commits take, what became of transactions, how many watches there are.

use std::fmt;

use super::{HistogramSample, Labels, Scrape};
use crate::store::{SYNC_SECONDS_BOUNDS, Stats};

/// Tells of a store's counts. The commit's name and buckets are etcd's, which mean the same.
pub fn tell(scrape: &mut Scrape<'_>, stats: &Stats) -> fmt::Result {
    const NONE: Labels<'static> = &[];
    let syncs = &stats.sync_seconds;
    let commits = HistogramSample { bounds: &SYNC_SECONDS_BOUNDS, counts: &syncs.counts, sum: syncs.sum_seconds };
    let help = "How long it took to make a batch of transactions durable, in seconds.";
    scrape.histograms("etcd_disk_backend_commit_duration_seconds", help, [(NONE, commits)])?;
    let results: [(Labels<'_>, u64); 3] = [
        (&[("result", "committed")], stats.committed),
        (&[("result", "conflict")], stats.conflicts),
        (&[("result", "failed")], stats.failed),
    ];
    scrape.counters("fairlead_store_transactions", "Transactions by what became of them.", results)?;
    scrape.counters("fairlead_store_writes", "Writes of committed transactions.", [(NONE, stats.writes)])?;
    scrape.counters(
        "fairlead_store_watch_wakes",
        "How often a change was told to a watch.",
        [(NONE, stats.watch_wakes)],
    )?;
    for (name, help, value) in [
        ("fairlead_store_queue_depth", "Calls that wait for the committer.", stats.queued),
        ("fairlead_store_watches", "Watches of the store.", stats.watches),
        ("fairlead_store_log_bytes", "What of the write-ahead log waits for the tables, in bytes.", stats.log_bytes),
        ("fairlead_store_quarantined_objects", "Objects that could not be read at the start.", stats.quarantined),
    ] {
        scrape.gauges(name, help, [(NONE, value as f64)])?;
    }
    Ok(())
}
