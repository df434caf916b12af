//! Connections that were accepted and whose handshake has not begun, so that thousands that come at once are all
//! served, one after the other: a handshake costs the processor most of a millisecond, and all at once would take so
//! long that clients give up, and so much memory.
//!
//! One that waits costs little more than its file descriptor. It may take a place that nobody else needs; when there is
//! none left, the oldest makes room. One address alone gets three quarters of what is free, as borrowers of places do
//! ([`super::borrowed_places`]). Handshakes take turns, a few of each address at a time, so that one that sends many
//! does not hold up the others; whoever lets the server wait gives its turn to the next.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// What one address may hold, of what is left free.
const SHARE: usize = 3;
/// Handshakes of one address at a time.
const OF_ONE_ADDRESS: usize = 16;

/// All that wait. Clones share them.
#[derive(Clone, Debug)]
pub struct Arrivals {
    turns: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// How many had to make room.
    cut: u64,
    /// By age, the oldest first.
    by_age: BTreeMap<u64, (IpAddr, CancellationToken)>,
    /// Only of addresses that have some, or turns.
    by_address: HashMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    waiting: usize,
    turns: Arc<Semaphore>,
}

/// One that waits. Dropped, it does so no more.
#[derive(Debug)]
pub struct WaitingConnection {
    id: u64,
    from: IpAddr,
    cut: CancellationToken,
    turns_of_address: Arc<Semaphore>,
    of: Arrivals,
}

/// The right to take part in a handshake; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    from: IpAddr,
    of_address: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
    of: Arrivals,
}

impl Arrivals {
    /// With so many turns at a time.
    pub fn new(turns: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(turns.max(1))), waiting: Arc::default() }
    }

    /// Takes one in that comes from this address, while so many places are free beside those that wait already.
    pub fn arrive(&self, from: IpAddr, free: usize) -> WaitingConnection {
        let mut waiting = self.waiting.lock();
        let left = free.saturating_sub(waiting.by_age.len());
        let mine = waiting.by_address.get(&from).map_or(0, |address| address.waiting);
        if mine > 0 && mine >= left.saturating_mul(SHARE) {
            waiting.cut_oldest(Some(from));
        } else if left == 0 {
            waiting.cut_oldest(None);
        }
        let (id, cut) = (waiting.next, CancellationToken::new());
        waiting.next = waiting.next.wrapping_add(1);
        waiting.by_age.insert(id, (from, cut.clone()));
        let turns = || Arc::new(Semaphore::new(OF_ONE_ADDRESS));
        let address = waiting.by_address.entry(from).or_insert_with(|| Address { waiting: 0, turns: turns() });
        address.waiting = address.waiting.saturating_add(1);
        WaitingConnection { id, from, cut, turns_of_address: address.turns.clone(), of: self.clone() }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().by_age.len()
    }

    /// How many had to make room until now.
    pub fn cut(&self) -> u64 {
        self.waiting.lock().cut
    }
}

impl Waiting {
    /// Of this address, or of all.
    fn cut_oldest(&mut self, of: Option<IpAddr>) {
        let oldest = self.by_age.iter().find(|(_, (from, _))| of.is_none_or(|of| of == *from));
        let Some(id) = oldest.map(|(id, _)| *id) else { return };
        if let Some(cut) = self.remove(id) {
            self.cut = self.cut.saturating_add(1);
            cut.cancel();
        }
    }

    /// `None` for one that made room before.
    fn remove(&mut self, id: u64) -> Option<CancellationToken> {
        let (from, cut) = self.by_age.remove(&id)?;
        if let Some(address) = self.by_address.get_mut(&from) {
            address.waiting = address.waiting.saturating_sub(1);
        }
        self.forget_if_idle(from);
        Some(cut)
    }

    fn forget_if_idle(&mut self, from: IpAddr) {
        let is_idle = |a: &Address| a.waiting == 0 && a.turns.available_permits() == OF_ONE_ADDRESS;
        if self.by_address.get(&from).is_some_and(is_idle) {
            self.by_address.remove(&from);
        }
    }
}

impl WaitingConnection {
    /// Completes when it has to make room.
    pub async fn is_cut(&self) {
        self.cut.cancelled().await;
    }

    /// Waits for its turn.
    pub async fn turn(&self) -> Turn {
        // First that of the address: one with many takes no turn from others while it waits for its own.
        let of_address = self.turns_of_address.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let of_all = self.of.turns.clone().acquire_owned().await.expect("nobody closes the semaphore");
        Turn { from: self.from, of_address: Some(of_address), _of_all: of_all, of: self.of.clone() }
    }
}

impl Drop for WaitingConnection {
    fn drop(&mut self) {
        self.of.waiting.lock().remove(self.id);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.of_address = None;
        self.of.waiting.lock().forget_if_idle(self.from);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn arrive(arrivals: &Arrivals, from: u8, count: usize, free: usize) -> Vec<WaitingConnection> {
        (0..count).map(|_| arrivals.arrive(address(from), free)).collect()
    }

    fn cut(held: &[WaitingConnection]) -> usize {
        held.iter().filter(|arrival| arrival.is_cut().now_or_never().is_some()).count()
    }

    #[test]
    fn thousands_that_come_at_once_wait_as_long_as_there_are_places() {
        let arrivals = Arrivals::new(64);
        let held = arrive(&arrivals, 1, 10_000, 15_000);
        assert_eq!((cut(&held), arrivals.waiting()), (0, 10_000));
        drop(held);
        assert_eq!(arrivals.waiting(), 0);
        assert!(arrivals.waiting.lock().by_address.is_empty());
    }

    #[test]
    fn one_address_leaves_a_quarter_to_others_and_cuts_its_own() {
        let arrivals = Arrivals::new(64);
        let greedy = arrive(&arrivals, 1, 200, 100);
        assert_eq!((arrivals.waiting(), cut(&greedy)), (75, 125));
        let others = arrive(&arrivals, 2, 10, 100);
        assert_eq!((cut(&others), cut(&greedy)), (0, 125));
    }

    #[test]
    fn where_no_place_is_left_the_oldest_makes_room_and_whoever_comes_is_taken_in() {
        let arrivals = Arrivals::new(64);
        let crowd: Vec<_> = (0..200).map(|from| arrivals.arrive(address(from), 100)).collect();
        assert_eq!((arrivals.waiting(), cut(&crowd), arrivals.cut()), (100, 100, 100));
        assert_eq!(cut(&crowd[..100]), 100, "the oldest");
        let late = arrivals.arrive(address(250), 0);
        assert!(late.is_cut().now_or_never().is_none());
    }

    #[test]
    fn an_address_has_few_turns_at_a_time_and_holds_up_no_other() {
        let arrivals = Arrivals::new(64);
        let many = arrive(&arrivals, 1, 100, 1_000);
        let turns: Vec<Turn> = many.iter().filter_map(|arrival| arrival.turn().now_or_never()).collect();
        assert_eq!(turns.len(), OF_ONE_ADDRESS);
        let other = arrivals.arrive(address(2), 1_000);
        assert!(other.turn().now_or_never().is_some());
        drop(many);
        let again = arrivals.arrive(address(1), 1_000);
        assert!(again.turn().now_or_never().is_none(), "though nobody else waited meanwhile");
        drop(turns);
        assert!(again.turn().now_or_never().is_some());
        drop((again, other));
        assert!(arrivals.waiting.lock().by_address.is_empty());
    }
}
