//! The indexes of the subjects of one policy that have many grants: made when they are first asked for, each once, and
//! kept while the policy's changes do not concern them.
//!
//! Their memory is limited. Where it is used up, an index makes room that was not used for the longest time, of the
//! scope that holds most: who may ask about many subjects of a namespace drives out those of that namespace. A part is
//! left to ClusterRoleBindings, whose subjects ask everywhere.
//!
//! Room is made for few requests only: to make an index costs several times what looking through the grants once does,
//! and where more subjects ask in turn than there is room for, each would drive out the one that asks next. Most
//! requests that find no room have the grants looked through, so that most indexes stay; a subject that asks often is
//! soon among those for whom room is made.
//!
//! The maps are persistent: the indexes of a changed policy share what the change does not concern with those before.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use imbl::{HashMap, OrdMap};
use parking_lot::Mutex;

use super::{policy::RoleKey, subject_index::SubjectIndex};

/// Bytes of all indexes, about. Chosen, not measured.
const MOST_BYTES: usize = 64 << 20;
/// An index counts as so many bytes at least, so that there are 4,096 at the most: all of them are looked at whenever a
/// role changes. The least, of 32 rules of one verb and resource, was measured to take 9 KiB.
const LEAST_WEIGHT: usize = MOST_BYTES / 4096;
/// One of so many requests that find no room for an index has one made and others make room for it.
const ADMITTED_OF: u64 = 32;
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
    /// Whose index was not made yet when this was last looked through, or is new since.
    under_way: HashSet<Subject>,
    /// Of all scopes.
    weight: usize,
    /// How often an index was used.
    uses: u64,
    /// How many requests found no room.
    without_room: u64,
}

#[derive(Clone, Debug)]
struct KeptIndex {
    slot: Slot,
    weight: usize,
    used: u64,
}

/// What the subjects of one namespace hold, or those of ClusterRoleBindings.
#[derive(Clone, Debug, Default)]
struct Scope {
    weight: usize,
    by_use: OrdMap<u64, Subject>,
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
    /// The slot of a subject. It was used last from now on.
    fn find(&mut self, subject: &Subject) -> Option<Slot> {
        let used = self.next_use();
        let kept = self.by_subject.get_mut(subject)?;
        let before = std::mem::replace(&mut kept.used, used);
        if let Some(scope) = self.scopes.get_mut(&subject.namespace)
            && let Some(subject) = scope.by_use.remove(&before)
        {
            scope.by_use.insert(used, subject);
        }
        Some(kept.slot.clone())
    }

    fn has_room(&self, weight: usize) -> bool {
        self.weight.saturating_add(weight) <= MOST_BYTES
    }

    /// Whether a request that found no room has others make some.
    fn is_admitted(&mut self) -> bool {
        self.without_room = self.without_room.wrapping_add(1);
        self.without_room.is_multiple_of(ADMITTED_OF)
    }

    /// A new slot for an index that will take so many bytes at most.
    fn add(&mut self, subject: &Subject, weight: usize) -> Slot {
        let (slot, used) = (Slot::default(), self.next_use());
        self.insert(subject.clone(), KeptIndex { slot: slot.clone(), weight, used });
        self.under_way.insert(subject.clone());
        self.make_room();
        slot
    }

    fn next_use(&mut self) -> u64 {
        self.uses = self.uses.saturating_add(1);
        self.uses
    }

    /// Counts an index that was made, unless it had to make room meanwhile.
    fn weigh(&mut self, subject: &Subject, slot: &Slot, index: &SubjectIndex) {
        let Some(kept) = self.by_subject.get(subject).filter(|kept| Arc::ptr_eq(&kept.slot, slot)).cloned() else {
            return;
        };
        self.remove(subject);
        self.insert(subject.clone(), KeptIndex { weight: index.bytes().max(LEAST_WEIGHT), ..kept });
        // Its slot is filled only now.
        self.under_way.insert(subject.clone());
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
        self.under_way.remove(subject);
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
            let Some((_, subject)) = largest.and_then(|scope| scope.by_use.get_min()) else { return };
            let subject = subject.clone();
            self.remove(&subject);
        }
    }

    /// What a changed policy begins with. An index that is under way is of the policy before.
    fn of_next_policy(&mut self) -> Self {
        let Self { by_subject, under_way, .. } = &mut *self;
        under_way.retain(|subject| by_subject.get(subject).is_some_and(|index| index.slot.get().is_none()));
        let mut next = Self {
            by_subject: self.by_subject.clone(),
            scopes: self.scopes.clone(),
            under_way: HashSet::new(),
            weight: self.weight,
            uses: self.uses,
            without_room: self.without_room,
        };
        self.under_way.iter().for_each(|subject| next.remove(subject));
        next
    }
}

impl Clone for SubjectIndexes {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().of_next_policy()))
    }
}

impl SubjectIndexes {
    /// The index of a subject, made by `make` where there is none and it may have room; `bytes` tells how much it would
    /// take at most.
    pub(super) fn get(
        &self,
        subject: &Subject,
        bytes: impl FnOnce() -> usize,
        make: impl FnOnce() -> SubjectIndex,
    ) -> Option<Arc<SubjectIndex>> {
        let slot = self.slot(subject, bytes)?;
        // Not under the lock: others decide meanwhile.
        let index = slot.get_or_init(|| {
            let made = make();
            self.0.lock().weigh(subject, &slot, &made);
            Arc::new(made)
        });
        Some(index.clone())
    }

    fn slot(&self, subject: &Subject, bytes: impl FnOnce() -> usize) -> Option<Slot> {
        let mut kept = self.0.lock();
        if let Some(slot) = kept.find(subject) {
            return Some(slot);
        }
        // Most find no room even for the least.
        let is_full = !kept.has_room(LEAST_WEIGHT);
        if is_full && !kept.is_admitted() {
            return None;
        }
        drop(kept);
        let weight = bytes().max(LEAST_WEIGHT);
        let mut kept = self.0.lock();
        if let Some(slot) = kept.find(subject) {
            return Some(slot);
        }
        let is_admitted = is_full || kept.has_room(weight) || kept.is_admitted();
        is_admitted.then(|| kept.add(subject, weight))
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

    /// The index, once the subject has asked often enough.
    fn ask(indexes: &SubjectIndexes, subject: &Subject, role: &str) -> Arc<SubjectIndex> {
        let asked = (0..ADMITTED_OF).find_map(|_| indexes.get(subject, || 0, || index(role)));
        asked.expect("one of so many has room")
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
                    let make = || {
                        made.fetch_add(1, Ordering::SeqCst);
                        index("reader")
                    };
                    indexes.get(&subject("joe"), || 0, make)
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_change_forgets_the_indexes_that_it_concerns_and_no_others() {
        let of_before = SubjectIndexes::default();
        for (name, role) in [("joe", "reader"), ("ann", "writer"), ("eve", "reader")] {
            ask(&of_before, &subject(name), role);
        }
        let mut changed = of_before.clone();
        changed.forget(&subject("joe"));
        assert_eq!(changed.subjects().len(), 2);
        changed.forget_role(&("a".into(), "reader".into()));
        assert_eq!(changed.subjects(), [subject("ann")]);
        assert_eq!(changed.0.lock().weight, LEAST_WEIGHT);
        assert_eq!(of_before.subjects().len(), 3, "the policy before is as it was");
        // One that is under way is made of the policy before: the changed one has its own made.
        let make = || {
            assert_eq!(of_before.clone().subjects().len(), 3);
            index("reader")
        };
        assert!(of_before.get(&subject("new"), || 0, make).is_some());
        assert_eq!(of_before.clone().subjects().len(), 4);
    }

    #[test]
    fn a_namespace_of_many_subjects_makes_room_itself() {
        let indexes = SubjectIndexes::default();
        let everywhere = subject_in("", "operator");
        let other = subject_in("b", "ann");
        for known in [&everywhere, &other, &subject("first")] {
            ask(&indexes, known, "reader");
        }
        for number in 0..MOST_BYTES / LEAST_WEIGHT {
            ask(&indexes, &subject(&number.to_string()), "reader");
            // Used all the while.
            indexes.get(&subject("0"), || 0, || panic!("it is made"));
        }
        assert!(holds(&indexes, &everywhere) && holds(&indexes, &other));
        assert!(!holds(&indexes, &subject("first")) && !holds(&indexes, &subject("1")));
        assert!(holds(&indexes, &subject("0")) && holds(&indexes, &subject("4095")));
        let kept = indexes.0.lock();
        assert_eq!((kept.by_subject.len(), kept.weight), (4096, MOST_BYTES));
        drop(kept);
        assert_eq!(indexes.clone().subjects().len(), 4096, "a change forgets none that it does not concern");
    }

    #[test]
    fn more_subjects_in_turn_than_there_is_room_for_leave_most_indexes_where_they_are() {
        let (indexes, made) = (SubjectIndexes::default(), std::cell::Cell::new(0));
        let most = MOST_BYTES / LEAST_WEIGHT;
        let asked = 4 * 2 * most;
        let mut found = 0;
        for number in (0..2 * most).cycle().take(asked) {
            let make = || {
                made.set(made.get() + 1);
                index("reader")
            };
            found += usize::from(indexes.get(&subject(&number.to_string()), || 0, make).is_some());
        }
        assert!(made.get() <= most + asked / 32, "{} of {asked} requests had an index made", made.get());
        assert!(found >= asked / 3, "{found} of {asked} had one");
        // One that is asked about often is among them soon, and stays.
        let often = subject("often");
        ask(&indexes, &often, "reader");
        for number in 0..most {
            indexes.get(&subject(&format!("once{number}")), || 0, || index("reader"));
            assert!(indexes.get(&often, || 0, || panic!("it is made")).is_some());
        }
    }

    #[test]
    fn a_large_index_has_none_make_room_for_it_each_time() {
        let (indexes, made) = (SubjectIndexes::default(), std::cell::Cell::new(0));
        // Seven of them fit, and leave room for many small ones.
        let large = || 9 << 20;
        for number in (0..8).cycle().take(8 * 32) {
            let make = || {
                made.set(made.get() + 1);
                SubjectIndex::weighing(large())
            };
            indexes.get(&subject(&number.to_string()), large, make);
        }
        assert!(made.get() <= 8 + 8 * 32 / 32, "{}", made.get());
        assert!(indexes.0.lock().weight <= MOST_BYTES);
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
