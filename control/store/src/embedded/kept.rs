//! Snapshots for lists in pages: every page shows the state of the first one.
//!
//! A snapshot costs only what was changed since, so many are kept. When a control service comes back, every node of a
//! large cluster lists anew at the same time, each at a revision of its own. If a snapshot were dropped before its list
//! is complete, that list would begin again, and none would ever end.
//!
//! Snapshots are kept for users. Where there are too many, the user with the most loses one: whoever lists without end
//! makes only their own lists begin again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use super::{Snapshot, ages::READABLE_FOR};

/// Snapshots at one time, each counted once for each of its users: some lists of each of a thousand nodes.
const MAX: usize = 4096;

/// Snapshots by revision, and whose lists go on with them.
#[derive(Default)]
pub struct Kept {
    snapshots: BTreeMap<u64, KeptSnapshot>,
    /// By user and revision. Nobody is here without a snapshot.
    users: HashMap<Arc<str>, BTreeMap<u64, Use>>,
    /// Of all users.
    uses: usize,
}

struct KeptSnapshot {
    snapshot: Snapshot,
    users: usize,
}

/// That a user's list goes on with a snapshot.
struct Use {
    /// When its first page was read.
    began: Instant,
    /// When its latest page was read.
    latest: Instant,
}

impl Kept {
    /// Keeps the snapshot for the time of `user's` list, which begins now or goes on.
    pub fn keep(&mut self, snapshot: &Snapshot, user: &str, now: Instant) {
        let revision = snapshot.revision;
        let (known, revisions) = match self.users.get_key_value(user) {
            Some((known, revisions)) => (known.clone(), Some(revisions)),
            None => (Arc::from(user), None),
        };
        let is_new = revisions.is_none_or(|revisions| !revisions.contains_key(&revision));
        if is_new && self.uses >= MAX {
            self.trim(now);
            self.make_room();
        }
        let uses = self.users.entry(known).or_default();
        uses.entry(revision).or_insert(Use { began: now, latest: now }).latest = now;
        if is_new {
            self.uses = self.uses.saturating_add(1);
            let kept = self.snapshots.entry(revision);
            let kept = kept.or_insert_with(|| KeptSnapshot { snapshot: snapshot.clone(), users: 0 });
            kept.users = kept.users.saturating_add(1);
        }
    }

    /// The snapshot at this revision.
    pub fn get(&self, revision: u64) -> Option<&Snapshot> {
        self.snapshots.get(&revision).map(|kept| &kept.snapshot)
    }

    /// Drops what lists had time enough for.
    pub fn trim(&mut self, now: Instant) {
        let is_old = |used: &Use| now.saturating_duration_since(used.began) >= READABLE_FOR;
        let old: Vec<_> = self
            .users
            .iter()
            .flat_map(|(user, uses)| uses.iter().map(move |(revision, used)| (user, revision, used)))
            .filter(|(_, _, used)| is_old(used))
            .map(|(user, revision, _)| (user.clone(), *revision))
            .collect();
        for (user, revision) in old {
            self.release(&user, revision);
        }
    }

    /// Takes from the user with the most what they used longest ago.
    fn make_room(&mut self) {
        while self.uses >= MAX {
            let most = self.users.iter().max_by_key(|(_, uses)| uses.len());
            let unused = most.and_then(|(user, uses)| {
                uses.iter().min_by_key(|(_, used)| used.latest).map(|(revision, _)| (user.clone(), *revision))
            });
            let Some((user, revision)) = unused else { return };
            self.release(&user, revision);
        }
    }

    fn release(&mut self, user: &Arc<str>, revision: u64) {
        let Some(uses) = self.users.get_mut(user) else { return };
        if uses.remove(&revision).is_none() {
            return;
        }
        if uses.is_empty() {
            self.users.remove(user);
        }
        self.uses = self.uses.saturating_sub(1);
        if let Some(kept) = self.snapshots.get_mut(&revision) {
            kept.users = kept.users.saturating_sub(1);
            if kept.users == 0 {
                self.snapshots.remove(&revision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            kept.keep(&at(revision), &format!("system:node:n{}", revision % 500), now);
        }
        let lost: Vec<u64> = (1..=2000).filter(|revision| kept.get(*revision).is_none()).collect();
        assert!(lost.is_empty(), "{} lists begin again", lost.len());
    }

    #[test]
    fn what_is_unused_longest_goes_first_and_all_goes_in_time() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        for revision in 1..=MAX as u64 {
            kept.keep(&at(revision), "a", later(revision / 100));
        }
        kept.keep(&at(1), "a", later(100));
        kept.keep(&at(9999), "a", later(100));
        assert!(kept.get(1).is_some() && kept.get(2).is_none() && kept.get(3).is_some() && kept.get(9999).is_some());
        assert_eq!(kept.snapshots.len(), MAX);
        kept.trim(later(300));
        assert!(kept.get(1).is_none(), "the pages of one list are read for ever");
        kept.trim(later(399));
        assert_eq!(kept.snapshots.len(), 1);
        kept.trim(later(400));
        assert_eq!((kept.snapshots.len(), kept.users.len(), kept.uses), (0, 0, 0));
    }

    #[test]
    fn a_user_who_lists_without_end_takes_no_snapshot_from_others() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        let later = |milliseconds| start + Duration::from_millis(milliseconds);
        kept.keep(&at(1), "patient", start);
        kept.keep(&at(2), "patient", start);
        for revision in 2..=(3 * MAX as u64) {
            kept.keep(&at(revision), "greedy", later(revision));
        }
        assert!(kept.get(1).is_some(), "the list at revision 1 begins again");
        assert!(kept.get(2).is_some(), "what another lost is still the patient user's");
        assert_eq!(kept.uses, MAX);
        assert_eq!(kept.snapshots.len(), MAX);
    }
}
