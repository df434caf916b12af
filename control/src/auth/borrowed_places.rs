//! Places of nodes that others have for as long as nodes leave them free.
//!
//! What one user, or the ServiceAccounts of one namespace, may borrow is a share of what is free ([`Shares`]), so that
//! others find places to borrow, too. Once nodes come, whoever has borrowed most gives back first. A place is lent and
//! taken back under one lock: no more are lent than nodes leave free.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::shares::{Share, Shares, namespace_of};

/// The places that are lent.
#[derive(Debug)]
pub struct BorrowedPlaces {
    nodes: Arc<Shares>,
    /// Of the places of nodes.
    shares: Arc<Shares>,
    lent: Mutex<Lent>,
}

#[derive(Debug, Default)]
struct Lent {
    next: u64,
    /// How many had to be given back.
    returned: u64,
    /// Of each who has borrowed any, by age, the oldest first.
    by_borrower: HashMap<Borrower, BTreeMap<u64, Loan>>,
}

/// Who answers for a loan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Borrower {
    /// All ServiceAccounts of it.
    Namespace(Arc<str>),
    User(Arc<str>),
}

#[derive(Debug)]
struct Loan {
    _share: Share,
    cut: CancellationToken,
}

/// A place that is borrowed; given back when it is dropped.
pub struct BorrowedPlace {
    id: u64,
    by: Borrower,
    of: Arc<BorrowedPlaces>,
}

impl BorrowedPlaces {
    /// Of these places of nodes, which are so many.
    pub fn new(nodes: Arc<Shares>, total: usize) -> Arc<Self> {
        Arc::new(Self { nodes, shares: Shares::new(total, usize::MAX), lent: Mutex::default() })
    }

    /// A place for a connection of `user` that is to be cut by this token; `None` beyond what they may borrow.
    pub fn borrow(self: &Arc<Self>, user: &str, cut: &CancellationToken) -> Option<BorrowedPlace> {
        let mut lent = self.lent.lock();
        let share = self.shares.take_beside(user, 1, self.nodes.taken())?;
        let (id, by) = (lent.next, Borrower::of(user));
        lent.next += 1;
        lent.by_borrower.entry(by.clone()).or_default().insert(id, Loan { _share: share, cut: cut.clone() });
        Some(BorrowedPlace { id, by, of: self.clone() })
    }

    /// Cuts until no more are lent than nodes leave free: the oldest of whoever has most.
    pub fn make_room(&self) {
        let mut lent = self.lent.lock();
        while self.shares.taken() > self.nodes.free()
            && let Some(loans) = lent.by_borrower.values_mut().max_by_key(|loans| loans.len())
            && let Some((_, loan)) = loans.pop_first()
        {
            loan.cut.cancel();
            // Its share is given back now, and not once the connection has ended.
            drop(loan);
            lent.returned = lent.returned.saturating_add(1);
        }
    }

    /// How many are lent.
    pub fn open(&self) -> usize {
        self.shares.taken()
    }

    /// How many had to be given back until now.
    pub fn returned(&self) -> u64 {
        self.lent.lock().returned
    }
}

impl Borrower {
    fn of(user: &str) -> Self {
        namespace_of(user).map_or_else(|| Self::User(user.into()), |namespace| Self::Namespace(namespace.into()))
    }
}

impl Drop for BorrowedPlace {
    fn drop(&mut self) {
        let mut lent = self.of.lent.lock();
        let Some(loans) = lent.by_borrower.get_mut(&self.by) else { return };
        loans.remove(&self.id);
        if loans.is_empty() {
            lent.by_borrower.remove(&self.by);
        }
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
    fn no_user_and_no_namespace_borrows_all() {
        let nodes = Shares::new(100, usize::MAX);
        let places = BorrowedPlaces::new(nodes.clone(), 100);
        let busy: Vec<_> = (0..100).flat_map(|number| borrow_all(&places, &account("busy", number))).collect();
        assert!((30..=50).contains(&busy.len()), "{}", busy.len());
        let joe = borrow_all(&places, "joe");
        assert!(joe.len() > 10, "{}", joe.len());
        drop((busy, joe));
        assert_eq!((places.open(), places.returned()), (0, 0));
        assert!(places.lent.lock().by_borrower.is_empty());
        // What nodes have is not free.
        let _nodes: Vec<_> = (0..50).map(|number| nodes.take_anyway(&format!("node-{number}"), 1)).collect();
        assert_eq!(borrow_all(&places, "joe").len(), 19);
    }

    #[test]
    fn who_has_borrowed_most_gives_back_first() {
        let nodes = Shares::new(100, usize::MAX);
        let places = BorrowedPlaces::new(nodes.clone(), 100);
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
        let places = BorrowedPlaces::new(nodes.clone(), 64);
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
