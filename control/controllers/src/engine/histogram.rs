//! Counts durations by size with plain atomics, for `/metrics`.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets: powers of four from 16 µs to 67 s. One more bucket counts what is longer.
pub const BOUNDS: [Duration; 12] = {
    let mut bounds = [Duration::ZERO; 12];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = Duration::from_micros(16 << (2 * at));
        at += 1;
    }
    bounds
};

/// How many observed durations fell into each bucket, and their sum.
#[derive(Debug, Default)]
pub struct AtomicHistogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

/// An [`AtomicHistogram`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Observations of each bucket of [`BOUNDS`] alone (not cumulative), then of what was longer.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Sum of all observed durations.
    pub sum: Duration,
}

impl AtomicHistogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        self.buckets[BOUNDS.partition_point(|bound| *bound < duration)].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What was counted so far. Observations that run at the same time may be missing in part.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let buckets = std::array::from_fn(|at| self.buckets[at].load(Relaxed));
        HistogramSnapshot { buckets, sum: Duration::from_micros(self.sum_micros.load(Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = AtomicHistogram::default();
        for duration in [Duration::ZERO, BOUNDS[0], BOUNDS[1], Duration::MAX] {
            histogram.observe(duration);
        }
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.buckets[0], snapshot.buckets[1], snapshot.buckets[BOUNDS.len()]), (2, 1, 1));
        assert_eq!(snapshot.buckets.iter().sum::<u64>(), 4);
    }
}
