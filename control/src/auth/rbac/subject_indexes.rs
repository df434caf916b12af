//! The indexes of the subjects of one policy that have many grants: made when they are first asked for, each once, and
//! kept while the policy's changes do not concern them.
//!
//! Their memory is limited. Where it is used up, an index makes room that was not used for the longest time, of the
//! scope that holds most: who may ask about many subjects of a namespace drives out those of that namespace. A part is
//! left to ClusterRoleBindings, whose subjects ask everywhere.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

use super::{policy::RoleKey, subject_index::SubjectIndex};

/// Bytes of all indexes, about; one that is under way when they are used up comes on top. Chosen, not measured.
const MOST_BYTES: usize = 64 << 20;
/// An index counts as so many bytes at least, so that there are 1,024 at the most. Chosen, not measured.
const LEAST_WEIGHT: usize = MOST_BYTES / 1024;
/// Those of ClusterRoleBindings make no room for others up to so many bytes.
const OF_CLUSTER: usize = MOST_BYTES / 2;

/// The indexes of one policy. A policy is cloned to be changed: a clone has those that are made, and forgets some.
#[derive(Debug, Default)]
pub(super) struct SubjectIndexes(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_subject: HashMap<Subject, KeptIndex>,
    /// By namespace; only those that hold something.
    scopes: HashMap<Arc<str>, Scope>,
    /// Of all scopes.
    weight: usize,
    /// How often an index was used.
    uses: u64,
}

#[derive(Clone, Debug)]
struct KeptIndex {
    slot: Slot,
    weight: usize,
    used: u64,
}

/// What the subjects of one namespace hold, or those of ClusterRoleBindings.
#[derive(Debug, Default)]
struct Scope {
    weight: usize,
    by_use: BTreeMap<u64, Subject>,
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
    /// The slot of a subject, a new one where there is none. It was used last from now on.
    fn slot(&mut self, subject: &Subject) -> Slot {
        self.uses = self.uses.saturating_add(1);
        let used = self.uses;
        if let Some(kept) = self.by_subject.get_mut(subject) {
            let before = std::mem::replace(&mut kept.used, used);
            if let Some(scope) = self.scopes.get_mut(&subject.namespace)
                && let Some(subject) = scope.by_use.remove(&before)
            {
                scope.by_use.insert(used, subject);
            }
            return kept.slot.clone();
        }
        let slot = Slot::default();
        self.insert(subject.clone(), KeptIndex { slot: slot.clone(), weight: LEAST_WEIGHT, used });
        self.make_room();
        slot
    }

    /// Counts an index that was made, unless it had to make room meanwhile.
    fn weigh(&mut self, subject: &Subject, slot: &Slot, index: &SubjectIndex) {
        let Some(kept) = self.by_subject.get(subject).filter(|kept| Arc::ptr_eq(&kept.slot, slot)).cloned() else {
            return;
        };
        self.remove(subject);
        self.insert(subject.clone(), KeptIndex { weight: index.bytes().max(LEAST_WEIGHT), ..kept });
        self.make_room();
    }

    fn insert(&mut self, subject: Subject, kept: KeptIndex) {
        let scope = self.scopes.entry(subject.namespace.clone()).or_default();
        scope.weight = scope.weight.saturating_add(kept.weight);
        scope.by_use.insert(kept.used, subject.clone());
        self.weight = self.weight.saturating_add(kept.weight);
        self.by_subject.insert(subject, kept);
    }

    fn remove(&mut self, subject: &Subject) {
        let Some(kept) = self.by_subject.remove(subject) else { return };
        self.weight = self.weight.saturating_sub(kept.weight);
        let Some(scope) = self.scopes.get_mut(&subject.namespace) else { return };
        scope.weight = scope.weight.saturating_sub(kept.weight);
        scope.by_use.remove(&kept.used);
        if scope.by_use.is_empty() {
            self.scopes.remove(&subject.namespace);
        }
    }

    /// Forgets until what is left fits.
    fn make_room(&mut self) {
        while self.weight > MOST_BYTES {
            let is_spared = |namespace: &str, scope: &Scope| namespace.is_empty() && scope.weight <= OF_CLUSTER;
            let scopes = self.scopes.iter().filter(|(namespace, scope)| !is_spared(namespace, scope));
            let largest = scopes.max_by_key(|(_, scope)| scope.weight).map(|(_, scope)| scope);
            let Some((_, subject)) = largest.and_then(|scope| scope.by_use.first_key_value()) else { return };
            let subject = subject.clone();
            self.remove(&subject);
        }
    }
}

impl Clone for SubjectIndexes {
    fn clone(&self) -> Self {
        let of = self.0.lock();
        let mut kept = Kept { uses: of.uses, ..Kept::default() };
        // One under way is of the policy before.
        for (subject, index) in of.by_subject.iter().filter(|(_, index)| index.slot.get().is_some()) {
            kept.insert(subject.clone(), index.clone());
        }
        Self(Mutex::new(kept))
    }
}

impl SubjectIndexes {
    /// The index of a subject, made by `make` where there is none.
    pub(super) fn get(&self, subject: &Subject, make: impl FnOnce() -> SubjectIndex) -> Arc<SubjectIndex> {
        let slot = self.0.lock().slot(subject);
        // Not under the lock: others decide meanwhile.
        let index = slot.get_or_init(|| {
            let made = make();
            self.0.lock().weigh(subject, &slot, &made);
            Arc::new(made)
        });
        index.clone()
    }

    /// Forgets the index of a subject whose grants change.
    pub(super) fn forget(&mut self, subject: &Subject) {
        self.0.get_mut().remove(subject);
    }

    /// Forgets the indexes of all subjects that have a role which changes.
    pub(super) fn forget_role(&mut self, role: &RoleKey) {
        let kept = self.0.get_mut();
        let names_role = |index: &KeptIndex| index.slot.get().is_none_or(|index| index.names_role(role));
        let stale = kept.by_subject.iter().filter(|(_, index)| names_role(index));
        let stale: Vec<Subject> = stale.map(|(subject, _)| subject.clone()).collect();
        stale.iter().for_each(|subject| kept.remove(subject));
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
        subject_in("a", name)
    }

    fn subject_in(namespace: &str, name: &str) -> Subject {
        Subject { is_group: false, name: name.into(), namespace: namespace.into() }
    }

    fn holds(indexes: &SubjectIndexes, subject: &Subject) -> bool {
        indexes.0.lock().by_subject.contains_key(subject)
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
                    indexes.get(&subject("joe"), || {
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
            of_before.get(&subject(name), || index(role));
        }
        let mut changed = of_before.clone();
        changed.forget(&subject("joe"));
        assert_eq!(changed.subjects().len(), 2);
        changed.forget_role(&("a".into(), "reader".into()));
        assert_eq!(changed.subjects(), [subject("ann")]);
        assert_eq!(changed.0.lock().weight, LEAST_WEIGHT);
        assert_eq!(of_before.subjects().len(), 3, "the policy before is as it was");
        // One that is under way is made of the policy before: the changed one has its own made.
        of_before.get(&subject("new"), || {
            assert_eq!(of_before.clone().subjects().len(), 3);
            index("reader")
        });
        assert_eq!(of_before.clone().subjects().len(), 4);
    }

    #[test]
    fn a_namespace_of_many_subjects_makes_room_itself() {
        let indexes = SubjectIndexes::default();
        let everywhere = subject_in("", "operator");
        let other = subject_in("b", "ann");
        for known in [&everywhere, &other, &subject("first")] {
            indexes.get(known, || index("reader"));
        }
        for number in 0..MOST_BYTES / LEAST_WEIGHT {
            indexes.get(&subject(&number.to_string()), || index("reader"));
            // Used all the while.
            indexes.get(&subject("0"), || panic!("it is made"));
        }
        assert!(holds(&indexes, &everywhere) && holds(&indexes, &other));
        assert!(!holds(&indexes, &subject("first")) && !holds(&indexes, &subject("1")));
        assert!(holds(&indexes, &subject("0")) && holds(&indexes, &subject("1023")));
        let kept = indexes.0.lock();
        assert_eq!((kept.by_subject.len(), kept.weight), (1024, MOST_BYTES));
        drop(kept);
        assert_eq!(indexes.clone().subjects().len(), 1024, "a change forgets none that it does not concern");
    }

    #[test]
    fn large_indexes_are_bounded_and_many_namespaces_leave_a_part_to_cluster_role_bindings() {
        let indexes = SubjectIndexes::default();
        let put = |subject: Subject, weight: usize| {
            let mut kept = indexes.0.lock();
            let used = kept.uses;
            kept.uses += 1;
            kept.insert(subject, KeptIndex { slot: Slot::default(), weight, used });
            kept.make_room();
        };
        for number in 0..32 {
            put(subject_in("", &number.to_string()), 2 << 20);
        }
        assert_eq!(indexes.subjects().len(), 32);
        for number in 0..64 {
            put(subject_in(&number.to_string(), "joe"), 2 << 20);
        }
        let of_cluster = indexes.subjects().iter().filter(|subject| subject.namespace.is_empty()).count();
        assert_eq!((of_cluster, indexes.subjects().len()), (16, 32));
        assert_eq!(indexes.0.lock().weight, MOST_BYTES);
        let left = indexes.subjects();
        let mut changed = indexes;
        left.iter().for_each(|subject| changed.forget(subject));
        assert!(changed.0.lock().scopes.is_empty() && changed.0.lock().weight == 0);
    }
}
