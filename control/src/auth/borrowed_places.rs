//! Places of nodes, components and users that a user has beyond their share, for as long as those leave them free.
//!
//! A DaemonSet on thousands of nodes needs thousands of them, and so does one user with ten thousand connections: each
//! borrower may have [`TIMES_LEFT`] times what is then left free, so that one alone gets five sixths, and who comes
//! later finds some. Nobody's place is taken for another borrower, who could else cut connections by opening and
//! closing one; but once somebody comes whose own share it is, whoever has borrowed most gives back first. The
//! ServiceAccounts of one namespace count together. A place is lent and taken back under one lock: no more are lent
//! than are free.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::flow_control::shares::{Shares, namespace_of};

/// A borrower may have so many times what is left free: the dynamic threshold of shared buffers in switches (Choudhury
/// and Hahne, 1998).
const TIMES_LEFT: usize = 5;

/// The places that are lent.
#[derive(Debug)]
pub struct BorrowedPlaces {
    /// Whose places they are.
    lenders: Vec<Arc<Shares>>,
    lent: Mutex<Lent>,
}

#[derive(Debug, Default)]
struct Lent {
    next: u64,
    open: usize,
    /// How many had to be given back.
    returned: u64,
    /// Of each who has borrowed any, what cuts the connections, by age, the oldest first.
    by_borrower: HashMap<Borrower, BTreeMap<u64, CancellationToken>>,
}

/// Who answers for what is borrowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Borrower {
    /// All ServiceAccounts of it.
    Namespace(Arc<str>),
    User(Arc<str>),
}

/// A place that is borrowed; given back when it is dropped.
pub struct BorrowedPlace {
    id: u64,
    by: Borrower,
    of: Arc<BorrowedPlaces>,
}

impl BorrowedPlaces {
    /// Of what these leave free.
    pub fn new(lenders: Vec<Arc<Shares>>) -> Arc<Self> {
        Arc::new(Self { lenders, lent: Mutex::default() })
    }

    fn free(&self) -> usize {
        self.lenders.iter().fold(0, |free, lender| free.saturating_add(lender.free()))
    }

    /// A place for a connection of `user` that is to be cut by this token; `None` beyond what they may borrow.
    pub fn borrow(self: &Arc<Self>, user: &str, cut: &CancellationToken) -> Option<BorrowedPlace> {
        let by = Borrower::of(user);
        let mut lent = self.lent.lock();
        let left = self.free().checked_sub(lent.open)?.checked_sub(1)?;
        let mine = lent.by_borrower.get(&by).map_or(0, BTreeMap::len);
        if mine > 0 && mine >= left.saturating_mul(TIMES_LEFT) {
            return None;
        }
        let id = lent.next;
        lent.next = lent.next.wrapping_add(1);
        lent.open = lent.open.saturating_add(1);
        lent.by_borrower.entry(by.clone()).or_default().insert(id, cut.clone());
        Some(BorrowedPlace { id, by, of: self.clone() })
    }

    /// Cuts until no more are lent than are free.
    pub fn make_room(&self) {
        let mut lent = self.lent.lock();
        while lent.open > self.free() && lent.take_back() {}
    }

    /// How many are lent.
    pub fn open(&self) -> usize {
        self.lent.lock().open
    }

    /// How many had to be given back until now.
    pub fn returned(&self) -> u64 {
        self.lent.lock().returned
    }
}

impl Lent {
    /// Cuts the oldest of whoever has most. It counts no more from now on, and not only once the connection has ended.
    /// Whether there was one.
    fn take_back(&mut self) -> bool {
        let most = self.by_borrower.iter().max_by_key(|(_, cuts)| cuts.len());
        let most = most.and_then(|(by, cuts)| Some((by.clone(), *cuts.first_key_value()?.0)));
        let Some(cut) = most.and_then(|(by, id)| self.remove(&by, id)) else { return false };
        cut.cancel();
        self.returned = self.returned.saturating_add(1);
        true
    }

    /// `None` for what was taken back before.
    fn remove(&mut self, by: &Borrower, id: u64) -> Option<CancellationToken> {
        let cuts = self.by_borrower.get_mut(by)?;
        let removed = cuts.remove(&id)?;
        if cuts.is_empty() {
            self.by_borrower.remove(by);
        }
        self.open = self.open.saturating_sub(1);
        Some(removed)
    }
}

impl Borrower {
    fn of(user: &str) -> Self {
        namespace_of(user).map_or_else(|| Self::User(user.into()), |namespace| Self::Namespace(namespace.into()))
    }
}

impl Drop for BorrowedPlace {
    fn drop(&mut self) {
        self.of.lent.lock().remove(&self.by, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Borrowed {
        _place: BorrowedPlace,
        cut: CancellationToken,
    }

    fn borrow(places: &Arc<BorrowedPlaces>, user: &str) -> Option<Borrowed> {
        let cut = CancellationToken::new();
        Some(Borrowed { _place: places.borrow(user, &cut)?, cut })
    }

    fn borrow_all(places: &Arc<BorrowedPlaces>, user: &str) -> Vec<Borrowed> {
        std::iter::from_fn(|| borrow(places, user)).collect()
    }

    fn cut(borrowed: &[Borrowed]) -> Vec<usize> {
        (0..borrowed.len()).filter(|at| borrowed[*at].cut.is_cancelled()).collect()
    }

    fn account(namespace: &str, number: usize) -> String {
        format!("system:serviceaccount:{namespace}:account-{number}")
    }

    #[test]
    fn one_who_is_alone_borrows_most_of_what_is_free_and_those_who_come_find_some_without_cutting_anybody() {
        let nodes = Shares::new(200, usize::MAX);
        let places = BorrowedPlaces::new(vec![nodes.clone()]);
        let held: Vec<_> = (0..100).map(|number| nodes.take_anyway(&format!("node-{number}"), 1)).collect();
        let busy: Vec<_> = (0..100).flat_map(|number| borrow(&places, &account("busy", number))).collect();
        let joe = borrow_all(&places, "joe");
        let ann = borrow_all(&places, "ann");
        assert_eq!([busy.len(), joe.len(), ann.len()], [83, 14, 2]);
        assert!(borrow(&places, "late").is_some() && borrow(&places, "joe").is_none());
        assert_eq!((cut(&busy), places.returned()), (vec![], 0));
        drop((busy, joe, ann, held));
        assert_eq!(places.open(), 0);
        assert!(places.lent.lock().by_borrower.is_empty());
    }

    #[test]
    fn what_is_free_of_all_lenders_is_lent_and_each_of_them_gets_its_own_back() {
        let (nodes, users) = (Shares::new(60, usize::MAX), Shares::new(40, usize::MAX));
        let places = BorrowedPlaces::new(vec![nodes.clone(), users.clone()]);
        let busy = borrow_all(&places, "busy");
        assert_eq!(busy.len(), 83);
        let held = (nodes.take_anyway("node", 10), users.take_anyway("ann", 3));
        places.make_room();
        assert_eq!(cut(&busy), Vec::<usize>::new(), "there were places that nobody had");
        let more = (nodes.take_anyway("node", 50), users.take_anyway("ann", 37));
        places.make_room();
        assert_eq!((cut(&busy).len(), places.open()), (83, 0));
        drop((held, more));
    }

    #[test]
    fn who_has_borrowed_most_gives_back_first() {
        let nodes = Shares::new(100, usize::MAX);
        let places = BorrowedPlaces::new(vec![nodes.clone()]);
        let ann = [borrow(&places, "ann").unwrap(), borrow(&places, "ann").unwrap()];
        let mut busy: Vec<_> = (0..3).flat_map(|_| borrow(&places, &account("busy", 0))).collect();
        busy.extend((0..3).flat_map(|_| borrow(&places, &account("busy", 1))));
        let held = nodes.take_anyway("node", 96);
        places.make_room();
        assert_eq!((cut(&ann), cut(&busy)), (vec![], vec![0, 1, 2, 3]));
        assert_eq!((places.open(), places.returned()), (4, 4), "though the connections are still there");
        drop((busy, held));
        assert_eq!(places.open(), 2);
    }

    #[test]
    fn no_more_are_lent_than_nodes_leave_free_though_both_come_at_once() {
        let nodes = Shares::new(64, usize::MAX);
        let places = BorrowedPlaces::new(vec![nodes.clone()]);
        for _ in 0..50 {
            let held = std::thread::scope(|scope| {
                let borrowers: Vec<_> = ["ann", "joe"].map(|user| scope.spawn(|| borrow_all(&places, user))).into();
                let come = |number: usize| {
                    let held = nodes.take_anyway(&format!("node-{number}"), 1);
                    places.make_room();
                    held
                };
                let held: Vec<_> = (0..60).map(come).collect();
                (held, borrowers.into_iter().map(|borrower| borrower.join().unwrap()).collect::<Vec<_>>())
            });
            assert!(places.open() <= nodes.free(), "{} of {}", places.open(), nodes.free());
            drop(held);
            assert_eq!((places.open(), nodes.taken()), (0, 0));
        }
    }
}
