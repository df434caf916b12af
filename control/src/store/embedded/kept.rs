//! Snapshots that lists in pages go on with: every page shows the state of the first.
//!
//! A snapshot costs only what was changed since, so many are kept. When a control service comes back, every node of a
//! large cluster lists anew at the same time, each at a revision of its own: were a snapshot dropped before its list is
//! complete, that list would begin again, and none would ever end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Snapshot;

/// Snapshots at one time: some lists of each of a thousand nodes.
const MAX: usize = 4096;
/// How long the next page may take. As etcd's compaction under Kubernetes.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Snapshots by revision, each with the time of its latest use.
#[derive(Default)]
pub struct Kept {
    snapshots: BTreeMap<u64, (Instant, Snapshot)>,
}

impl Kept {
    /// Keeps the snapshot from now on for the time of one page; where there are too many, not the one unused longest.
    pub fn keep(&mut self, snapshot: &Snapshot, now: Instant) {
        if self.snapshots.len() >= MAX && !self.snapshots.contains_key(&snapshot.revision) {
            self.trim(now);
            if self.snapshots.len() >= MAX
                && let Some(unused) =
                    self.snapshots.iter().min_by_key(|(_, (at, _))| *at).map(|(revision, _)| *revision)
            {
                self.snapshots.remove(&unused);
            }
        }
        self.snapshots.insert(snapshot.revision, (now, snapshot.clone()));
    }

    /// The snapshot at this revision.
    pub fn get(&self, revision: u64) -> Option<&Snapshot> {
        self.snapshots.get(&revision).map(|(_, snapshot)| snapshot)
    }

    /// Lets go of what was not used in time.
    pub fn trim(&mut self, now: Instant) {
        self.snapshots.retain(|_, (at, _)| now.saturating_duration_since(*at) < KEPT_FOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.revision = revision;
        snapshot
    }

    #[test]
    fn the_lists_of_all_nodes_of_a_large_cluster_go_on_at_the_same_time() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        // 500 nodes list pods, Services, EndpointSlices and nodes, each list at a revision of its own.
        for revision in 1..=2000 {
            kept.keep(&at(revision), now);
        }
        let lost: Vec<u64> = (1..=2000).filter(|revision| kept.get(*revision).is_none()).collect();
        assert!(lost.is_empty(), "{} lists begin again", lost.len());
    }

    #[test]
    fn what_is_unused_longest_goes_first_and_all_goes_in_time() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        for revision in 1..=MAX as u64 {
            kept.keep(&at(revision), later(revision / 100));
        }
        kept.keep(&at(1), later(100));
        kept.keep(&at(9999), later(100));
        assert!(kept.get(1).is_some() && kept.get(2).is_none() && kept.get(3).is_some() && kept.get(9999).is_some());
        assert_eq!(kept.snapshots.len(), MAX);
        kept.trim(later(399));
        assert_eq!(kept.snapshots.len(), 2);
        kept.trim(later(400));
        assert!(kept.snapshots.is_empty());
    }
}
