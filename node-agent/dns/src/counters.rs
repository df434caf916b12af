//! How many queries came, and what became of them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counts since the server's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All packets that came, over UDP and TCP.
    pub queries: u64,
    /// Answered from the cluster's zone.
    pub zone: u64,
    /// Answered from the cache while fresh.
    pub cache_hits: u64,
    /// Answered with a stale response from the cache, because no resolver answered.
    pub cache_stale: u64,
    /// Asked of other resolvers.
    pub forwards: u64,
    /// Asked, and no resolver gave an answer.
    pub forward_failures: u64,
    /// Refused because too many queries waited already.
    pub overloads: u64,
}

/// The live counters behind [`Counts`].
#[derive(Debug, Default)]
pub struct Counters {
    /// See [`Counts::queries`].
    pub queries: AtomicU64,
    /// See [`Counts::zone`].
    pub zone: AtomicU64,
    /// See [`Counts::cache_hits`].
    pub cache_hits: AtomicU64,
    /// See [`Counts::cache_stale`].
    pub cache_stale: AtomicU64,
    /// See [`Counts::forwards`].
    pub forwards: AtomicU64,
    /// See [`Counts::forward_failures`].
    pub forward_failures: AtomicU64,
    /// See [`Counts::overloads`].
    pub overloads: AtomicU64,
}

impl Counters {
    /// The counts now; each is read on its own.
    pub fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            queries: read(&self.queries),
            zone: read(&self.zone),
            cache_hits: read(&self.cache_hits),
            cache_stale: read(&self.cache_stale),
            forwards: read(&self.forwards),
            forward_failures: read(&self.forward_failures),
            overloads: read(&self.overloads),
        }
    }
}

/// Adds one, where order with other memory does not matter.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
