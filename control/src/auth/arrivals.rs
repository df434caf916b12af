//! Connections that were accepted and whose handshake has not begun, so that thousands that come at once are all
//! served, one after the other: a handshake costs the processor most of a millisecond, and all at once would take so
//! long that clients give up, and so much memory.
//!
//! One that waits costs little more than its file descriptor. It may take a place that nobody else needs; when there is
//! none left, the oldest makes room. One address alone gets three quarters of what is free. Handshakes take turns, a
//! few of each address at a time, so that one that sends many does not hold up the others; whoever lets the server wait
//! gives its turn to the next. There is a bound on those that are waited for, too: clients of which thousands connect
//! at once are slow to answer, and none of them is to be cut for the next one before it had some time ([`SPARED`]).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use fairlead_serving::connection_limit;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// What one address may hold, of what is left free.
const SHARE: usize = 3;
/// Handshakes of one address at a time.
const OF_ONE_ADDRESS: usize = 16;

/// For how long a handshake keeps its place among those under way, and others wait for it.
pub const SPARED: Duration = connection_limit::SPARED;

/// How many handshakes there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// That the server has just begun.
    pub turns: usize,
    /// That are under way, for as long as they are spared.
    pub under_way: usize,
    /// The same, of one address.
    pub of_one_address: usize,
}

/// All that wait. Clones share them.
#[derive(Clone, Debug)]
pub struct Arrivals {
    limits: HandshakeLimits,
    turns: Arc<Semaphore>,
    under_way: Arc<Semaphore>,
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
    handshakes: HandshakesOfAddress,
}

#[derive(Clone, Debug)]
struct HandshakesOfAddress {
    turns: Arc<Semaphore>,
    under_way: Arc<Semaphore>,
    most_under_way: usize,
}

/// One that waits. Dropped, it does so no more.
#[derive(Debug)]
pub struct WaitingConnection {
    id: u64,
    from: IpAddr,
    cut: CancellationToken,
    of_address: HandshakesOfAddress,
    of: Arrivals,
}

/// The right to take part in a handshake; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    from: IpAddr,
    /// Of its address and of all.
    turns: Option<[OwnedSemaphorePermit; 2]>,
    under_way: Option<[OwnedSemaphorePermit; 2]>,
    of: Arrivals,
}

impl HandshakeLimits {
    /// Where there are so many places for strangers, whose handshakes take most of them. The rest is for those who have
    /// not shown yet who they are.
    pub fn within(strangers: usize, of_one_address: usize) -> Self {
        let most = |places: usize| places.saturating_sub(places / 8).max(1);
        Self { turns: (strangers / 4).max(1), under_way: most(strangers), of_one_address: most(of_one_address) }
    }
}

impl Arrivals {
    /// Nobody waits.
    pub fn new(limits: HandshakeLimits) -> Self {
        let [turns, under_way] = [limits.turns, limits.under_way].map(|most| Arc::new(Semaphore::new(most)));
        Self { limits, turns, under_way, waiting: Arc::default() }
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
        let handshakes = || HandshakesOfAddress::at_most(self.limits.of_one_address);
        let address =
            waiting.by_address.entry(from).or_insert_with(|| Address { waiting: 0, handshakes: handshakes() });
        address.waiting = address.waiting.saturating_add(1);
        WaitingConnection { id, from, cut, of_address: address.handshakes.clone(), of: self.clone() }
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
        let is_idle = |address: &Address| address.waiting == 0 && address.handshakes.are_none();
        if self.by_address.get(&from).is_some_and(is_idle) {
            self.by_address.remove(&from);
        }
    }
}

impl HandshakesOfAddress {
    fn at_most(most_under_way: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { turns: semaphore(OF_ONE_ADDRESS), under_way: semaphore(most_under_way), most_under_way }
    }

    fn are_none(&self) -> bool {
        self.turns.available_permits() == OF_ONE_ADDRESS && self.under_way.available_permits() == self.most_under_way
    }
}

impl WaitingConnection {
    /// Completes when it has to make room.
    pub async fn is_cut(&self) {
        self.cut.cancelled().await;
    }

    /// Waits for its turn.
    pub async fn turn(&self) -> Turn {
        let one = async |semaphore: &Arc<Semaphore>| {
            semaphore.clone().acquire_owned().await.expect("nobody closes the semaphore")
        };
        // First those of the address: one with many takes nothing from others while it waits for its own.
        let turn_of_address = one(&self.of_address.turns).await;
        let of_address = one(&self.of_address.under_way).await;
        let under_way = Some([of_address, one(&self.of.under_way).await]);
        let turns = Some([turn_of_address, one(&self.of.turns).await]);
        Turn { from: self.from, turns, under_way, of: self.of.clone() }
    }
}

impl Turn {
    /// Lets others begin: this handshake waits for its client.
    pub fn pass_on(&mut self) {
        self.turns = None;
    }
}

impl Drop for WaitingConnection {
    fn drop(&mut self) {
        let mut waiting = self.of.waiting.lock();
        waiting.remove(self.id);
        // One that made room may have had a part of its turn until now.
        waiting.forget_if_idle(self.from);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        (self.turns, self.under_way) = (None, None);
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

    fn arrivals(turns: usize) -> Arrivals {
        Arrivals::new(HandshakeLimits { turns, under_way: 1_000, of_one_address: 1_000 })
    }

    fn arrive(arrivals: &Arrivals, from: u8, count: usize, free: usize) -> Vec<WaitingConnection> {
        (0..count).map(|_| arrivals.arrive(address(from), free)).collect()
    }

    fn cut(held: &[WaitingConnection]) -> usize {
        held.iter().filter(|arrival| arrival.is_cut().now_or_never().is_some()).count()
    }

    #[test]
    fn thousands_that_come_at_once_wait_as_long_as_there_are_places() {
        let arrivals = arrivals(64);
        let held = arrive(&arrivals, 1, 10_000, 15_000);
        assert_eq!((cut(&held), arrivals.waiting()), (0, 10_000));
        drop(held);
        assert_eq!(arrivals.waiting(), 0);
        assert!(arrivals.waiting.lock().by_address.is_empty());
    }

    #[test]
    fn one_address_leaves_a_quarter_to_others_and_cuts_its_own() {
        let arrivals = arrivals(64);
        let greedy = arrive(&arrivals, 1, 200, 100);
        assert_eq!((arrivals.waiting(), cut(&greedy)), (75, 125));
        let others = arrive(&arrivals, 2, 10, 100);
        assert_eq!((cut(&others), cut(&greedy)), (0, 125));
    }

    #[test]
    fn where_no_place_is_left_the_oldest_makes_room_and_whoever_comes_is_taken_in() {
        let arrivals = arrivals(64);
        let crowd: Vec<_> = (0..200).map(|from| arrivals.arrive(address(from), 100)).collect();
        assert_eq!((arrivals.waiting(), cut(&crowd), arrivals.cut()), (100, 100, 100));
        assert_eq!(cut(&crowd[..100]), 100, "the oldest");
        let late = arrivals.arrive(address(250), 0);
        assert!(late.is_cut().now_or_never().is_none());
    }

    #[test]
    fn an_address_has_few_turns_at_a_time_and_holds_up_no_other() {
        let arrivals = arrivals(64);
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

    #[test]
    fn others_begin_while_a_client_is_slow_to_answer_and_wait_where_too_many_are() {
        let arrivals = Arrivals::new(HandshakeLimits { turns: 2, under_way: 5, of_one_address: 3 });
        let (one, two) = (arrive(&arrivals, 1, 9, 1_000), arrive(&arrivals, 2, 9, 1_000));
        let begin = |held: &[WaitingConnection]| {
            let mut begun: Vec<Turn> = held.iter().filter_map(|arrival| arrival.turn().now_or_never()).collect();
            begun.iter_mut().for_each(Turn::pass_on);
            begun
        };
        let begun = [begin(&one[..2]), begin(&one[2..4]), begin(&two[..2]), begin(&two[2..4])];
        assert_eq!(begun.each_ref().map(Vec::len), [2, 1, 2, 0], "three of an address, and five of all");
        let [first, ..] = begun;
        drop(first);
        assert_eq!((begin(&two[2..3]).len(), begin(&one[4..5]).len()), (1, 1));
        drop((one, two));
        assert_eq!(arrivals.waiting(), 0);
    }

    #[test]
    fn one_that_is_cut_while_it_waits_for_its_turn_leaves_nothing() {
        let arrivals = arrivals(1);
        let turn = arrivals.arrive(address(1), 1_000).turn().now_or_never().unwrap();
        let second = arrivals.arrive(address(2), 1_000);
        let mut waiting = Box::pin(second.turn());
        assert!((&mut waiting).now_or_never().is_none());
        let third = arrivals.arrive(address(3), 0);
        assert!(second.is_cut().now_or_never().is_some());
        drop(waiting);
        drop((second, third, turn));
        assert!(arrivals.waiting.lock().by_address.is_empty());
    }

    #[test]
    fn handshakes_leave_some_places_of_strangers_to_others() {
        let limits = HandshakeLimits::within(1875, 234);
        assert_eq!(limits, HandshakeLimits { turns: 468, under_way: 1641, of_one_address: 205 });
        let least = HandshakeLimits::within(1, 1);
        assert_eq!(least, HandshakeLimits { turns: 1, under_way: 1, of_one_address: 1 });
    }
}
