//! How old revisions are: states older than a while are read no more, even where they could be made again, so that
//! the pages of a list end as Kubernetes' do after a compaction of etcd.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long a state can be read. As etcd's compaction under Kubernetes.
pub const READABLE_FOR: Duration = Duration::from_secs(300);

/// When revisions were the latest, as far as somebody noted it.
#[derive(Default)]
pub struct Ages {
    /// In order, one for each note that is younger than [`READABLE_FOR`].
    notes: VecDeque<(Instant, u64)>,
    oldest: u64,
}

impl Ages {
    /// Notes that `revision` is the latest one now.
    pub fn note(&mut self, revision: u64, now: Instant) {
        self.notes.push_back((now, revision));
        while let Some((at, revision)) = self.notes.front()
            && now.saturating_duration_since(*at) >= READABLE_FOR
        {
            self.oldest = *revision;
            self.notes.pop_front();
        }
    }

    /// The oldest revision that can be read, as of the last note.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_read_for_a_while_whatever_came_after_them() {
        let (mut ages, start) = (Ages::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        ages.note(7, start);
        ages.note(9, later(60));
        ages.note(9, later(299));
        assert_eq!(ages.oldest(), 0);
        ages.note(9, later(300));
        assert_eq!(ages.oldest(), 7);
        ages.note(12, later(599));
        assert_eq!((ages.oldest(), ages.notes.len()), (9, 2));
    }
}
