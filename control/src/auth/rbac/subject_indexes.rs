//! The indexes of the subjects of one policy that have many grants: made when they are first asked for, each once, and
//! kept while the policy's changes do not concern them.
//!
//! Their memory is limited. Where it is used up, the grants of further subjects are looked through, which costs time
//! and no memory, until the next change of the policy has all indexes made anew.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

use super::{policy::RoleKey, subject_index::SubjectIndex};

/// Bytes of all indexes, about; one that is under way when they are used up comes on top. Chosen, not measured.
const MOST_BYTES: usize = 64 << 20;
/// Indexes, whatever they take.
const MOST: usize = 1024;

/// The indexes of one policy. A policy is cloned to be changed: a clone has those that are made, and forgets some.
#[derive(Debug, Default)]
pub(super) struct SubjectIndexes(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_subject: HashMap<Subject, Slot>,
    bytes: usize,
}

/// Empty until the index is made: who asks meanwhile waits for that.
type Slot = Arc<OnceLock<Arc<SubjectIndex>>>;

/// Whose grants, and where: an empty namespace stands for ClusterRoleBindings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) is_group: bool,
    pub(super) name: Arc<str>,
    pub(super) namespace: Arc<str>,
}

impl Kept {
    fn is_full(&self) -> bool {
        self.bytes >= MOST_BYTES || self.by_subject.len() >= MOST
    }

    /// Only those that are made and that `stays` lets be: one under way is of the policy before.
    fn of(all: impl Iterator<Item = (Subject, Slot)>, stays: impl Fn(&SubjectIndex) -> bool) -> Self {
        let mut kept = Self::default();
        for (subject, slot) in all {
            let Some(index) = slot.get().filter(|index| stays(index)) else { continue };
            kept.bytes = kept.bytes.saturating_add(index.bytes());
            kept.by_subject.insert(subject, slot);
        }
        kept
    }
}

impl Clone for SubjectIndexes {
    fn clone(&self) -> Self {
        let kept = self.0.lock();
        if kept.is_full() {
            return Self::default();
        }
        let all = kept.by_subject.iter().map(|(subject, slot)| (subject.clone(), slot.clone()));
        Self(Mutex::new(Kept::of(all, |_| true)))
    }
}

impl SubjectIndexes {
    /// The index of a subject, made by `make` where there is none; nothing where there is no room for another.
    pub(super) fn get(&self, subject: Subject, make: impl FnOnce() -> SubjectIndex) -> Option<Arc<SubjectIndex>> {
        let slot = {
            let mut kept = self.0.lock();
            match kept.by_subject.get(&subject) {
                Some(slot) => slot.clone(),
                None if kept.is_full() => return None,
                None => kept.by_subject.entry(subject).or_default().clone(),
            }
        };
        // Not under the lock: others decide meanwhile.
        let index = slot.get_or_init(|| {
            let made = make();
            let mut kept = self.0.lock();
            kept.bytes = kept.bytes.saturating_add(made.bytes());
            Arc::new(made)
        });
        Some(index.clone())
    }

    /// Forgets the index of a subject whose grants change.
    pub(super) fn forget(&mut self, subject: &Subject) {
        let kept = self.0.get_mut();
        if let Some(slot) = kept.by_subject.remove(subject) {
            kept.bytes = kept.bytes.saturating_sub(slot.get().map_or(0, |index| index.bytes()));
        }
    }

    /// Forgets the indexes of all subjects that have a role which changes.
    pub(super) fn forget_role(&mut self, role: &RoleKey) {
        let kept = self.0.get_mut();
        *kept = Kept::of(std::mem::take(&mut kept.by_subject).into_iter(), |index| !index.names_role(role));
    }

    /// Whose indexes are made.
    #[cfg(test)]
    pub(super) fn subjects(&self) -> Vec<Subject> {
        self.0.lock().by_subject.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::{super::policy::Grant, *};

    fn subject(name: &str) -> Subject {
        Subject { is_group: false, name: name.into(), namespace: "a".into() }
    }

    /// Of one grant.
    fn index(role: &str) -> SubjectIndex {
        let mut index = SubjectIndex::default();
        let grant = Grant::of_role("binding".into(), ("a".into(), role.into()));
        index.add(&Arc::new(grant), Ok(&Arc::default()));
        index
    }

    #[test]
    fn many_who_ask_at_once_have_an_index_made_once() {
        let (indexes, made, together) = (SubjectIndexes::default(), AtomicUsize::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    indexes.get(subject("joe"), || {
                        made.fetch_add(1, Ordering::SeqCst);
                        index("reader")
                    })
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_change_forgets_the_indexes_that_it_concerns_and_no_others() {
        let of_before = SubjectIndexes::default();
        for (name, role) in [("joe", "reader"), ("ann", "writer"), ("eve", "reader")] {
            assert!(of_before.get(subject(name), || index(role)).is_some());
        }
        let mut changed = of_before.clone();
        changed.forget(&subject("joe"));
        assert_eq!(changed.subjects().len(), 2);
        changed.forget_role(&("a".into(), "reader".into()));
        assert_eq!(changed.subjects(), [subject("ann")]);
        assert_eq!(changed.0.lock().bytes, index("writer").bytes());
        assert_eq!(of_before.subjects().len(), 3, "the policy before is as it was");
        // One that is under way is made of the policy before: the changed one has its own made.
        let under_way = of_before.get(subject("new"), || {
            assert_eq!(of_before.clone().subjects().len(), 3);
            index("reader")
        });
        assert!(under_way.is_some());
    }

    #[test]
    fn where_there_is_no_room_no_further_index_is_made_until_the_policy_changes() {
        let indexes = SubjectIndexes::default();
        for number in 0..MOST {
            assert!(indexes.get(subject(&number.to_string()), || index("reader")).is_some());
        }
        let made = || indexes.get(subject("late"), || panic!("there is no room for it"));
        assert!(made().is_none());
        assert!(indexes.get(subject("0"), || panic!("it is made")).is_some());
        assert!(indexes.clone().subjects().is_empty(), "after a change all are made anew");
        let heavy = SubjectIndexes::default();
        heavy.0.lock().bytes = MOST_BYTES;
        assert!(heavy.get(subject("late"), || panic!("there is no room for it")).is_none());
    }
}
