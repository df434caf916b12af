//! Which handshakes may be begun, and for how long each has the server wait for its client before others do.
//!
//! A handshake that begins has a **turn**, for as long as the server works on it, and a **place** among those under
//! way, for as long as it is spared. Of both there are so many, and so many for one address. When there is none left,
//! the next one is of the address that has the fewest places, and of several of these whoever waits for the longest
//! time: handshakes that are begun and left undone, by the hundred from each of some addresses, hold up others of these
//! addresses and nobody else. While all places are taken, an address that has two fewer than another takes the oldest
//! place of the address that has the most: that handshake goes on, but is not spared any more.
//!
//! Where each handshake is of another address they are begun in the order in which they came, and none loses its place:
//! a crowd of slow clients must not have each of them give way to the next, or none would come to an end.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::by_address::ByAddress;

/// Turns of one address at a time.
pub const TURNS_OF_ONE_ADDRESS: usize = 16;

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

/// All handshakes that are waited for. Clones share them.
#[derive(Clone, Debug)]
pub struct HandshakeTurns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    limits: HandshakeLimits,
    next: u64,
    waiting: ByAddress<Waiting>,
    turns: ByAddress<()>,
    /// Told when their place is another's.
    under_way: ByAddress<CancellationToken>,
    /// The addresses of those that wait and that may have one more: who has the fewest places first, then who waits
    /// for the longest time.
    queue: BTreeSet<(usize, u64, IpAddr)>,
}

#[derive(Debug)]
struct Waiting {
    /// It is its turn.
    tell: oneshot::Sender<()>,
    withdrawn: CancellationToken,
}

/// The right to take part in a handshake, or to wait for it; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    id: u64,
    from: IpAddr,
    withdrawn: CancellationToken,
    of: HandshakeTurns,
}

impl HandshakeLimits {
    /// Where there are so many places for strangers, whose handshakes take most of them. The rest is for those who have
    /// not shown yet who they are.
    pub fn within(strangers: usize, of_one_address: usize) -> Self {
        let most = |places: usize| places.saturating_sub(places / 8).max(1);
        Self { turns: (strangers / 4).max(1), under_way: most(strangers), of_one_address: most(of_one_address) }
    }
}

impl HandshakeTurns {
    /// None is under way.
    pub fn new(limits: HandshakeLimits) -> Self {
        Self(Arc::new(Mutex::new(State {
            limits,
            next: 0,
            waiting: ByAddress::default(),
            turns: ByAddress::default(),
            under_way: ByAddress::default(),
            queue: BTreeSet::new(),
        })))
    }

    /// Waits for the turn of a handshake from this address.
    pub async fn turn(&self, from: IpAddr) -> Turn {
        let (turn, told) = self.wait(from);
        told.await.expect("one that waits is told before it is forgotten");
        turn
    }

    fn wait(&self, from: IpAddr) -> (Turn, oneshot::Receiver<()>) {
        let ((tell, told), withdrawn) = (oneshot::channel(), CancellationToken::new());
        let mut state = self.0.lock();
        let id = state.next;
        state.next = state.next.wrapping_add(1);
        let waiting = Waiting { tell, withdrawn: withdrawn.clone() };
        state.change(from, |state| state.waiting.insert(from, id, waiting));
        state.begin_next();
        (Turn { id, from, withdrawn, of: self.clone() }, told)
    }

    /// Whether none waits, or is under way.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        let state = self.0.lock();
        state.waiting.len() + state.turns.len() + state.under_way.len() + state.queue.len() == 0
    }
}

impl State {
    /// Where an address stands in the queue.
    fn rank(&self, from: IpAddr) -> Option<(usize, u64, IpAddr)> {
        let (oldest, places) = (self.waiting.oldest(from)?, self.under_way.count(from));
        let may_begin = places < self.limits.of_one_address && self.turns.count(from) < TURNS_OF_ONE_ADDRESS;
        may_begin.then_some((places, oldest, from))
    }

    /// Changes what an address has.
    fn change(&mut self, from: IpAddr, change: impl FnOnce(&mut Self)) {
        if let Some(rank) = self.rank(from) {
            self.queue.remove(&rank);
        }
        change(self);
        self.queue.extend(self.rank(from));
    }

    fn begin_next(&mut self) {
        while self.turns.len() < self.limits.turns
            && let Some((places, _, from)) = self.queue.first().copied()
        {
            if self.under_way.len() >= self.limits.under_way && !self.make_room_for(places) {
                return;
            }
            self.change(from, |state| {
                let Some((id, Waiting { tell, withdrawn })) = state.waiting.remove_oldest(from) else { return };
                state.turns.insert(from, id, ());
                state.under_way.insert(from, id, withdrawn);
                // One that does not wait any more is about to give its turn back.
                let _is_gone = tell.send(());
            });
        }
    }

    /// Takes a place away for an address that has so many, if another has more by two at least: by one, the two would
    /// take it from each other for ever.
    fn make_room_for(&mut self, places: usize) -> bool {
        let most = self.under_way.most().filter(|(_, most)| *most >= places.saturating_add(2));
        let Some((from, _)) = most else { return false };
        self.change(from, |state| {
            if let Some((_, withdrawn)) = state.under_way.remove_oldest(from) {
                withdrawn.cancel();
            }
        });
        true
    }
}

impl Turn {
    /// Lets others begin: this handshake waits for its client.
    pub fn pass_on(&mut self) {
        let mut state = self.of.0.lock();
        state.change(self.from, |state| {
            state.turns.remove(self.from, self.id);
        });
        state.begin_next();
    }

    /// Completes when its place is another's: the handshake may go on, but is spared no more.
    pub async fn is_withdrawn(&self) {
        self.withdrawn.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.of.0.lock();
        state.change(self.from, |state| {
            state.waiting.remove(self.from, self.id);
            state.turns.remove(self.from, self.id);
            state.under_way.remove(self.from, self.id);
        });
        state.begin_next();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn turns(under_way: usize, of_one_address: usize) -> HandshakeTurns {
        HandshakeTurns::new(HandshakeLimits { turns: 16, under_way, of_one_address })
    }

    /// One that is begun and left undone.
    fn stall(turns: &HandshakeTurns, from: u8) -> Option<Turn> {
        let mut turn = turns.turn(address(from)).now_or_never()?;
        turn.pass_on();
        Some(turn)
    }

    fn withdrawn(turns: &[Turn]) -> Vec<bool> {
        turns.iter().map(|turn| turn.is_withdrawn().now_or_never().is_some()).collect()
    }

    #[test]
    fn some_addresses_that_leave_all_handshakes_undone_hold_up_no_other() {
        let turns = turns(1641, 205);
        let begin = |from: u8| -> Vec<Turn> { std::iter::from_fn(|| stall(&turns, from)).take(1_000).collect() };
        let attackers: Vec<Vec<Turn>> = (1..=9).map(begin).collect();
        assert!(attackers.iter().all(|begun| (182..=205).contains(&begun.len())));
        assert!(stall(&turns, 1).is_none(), "all places are taken, evenly");
        // More of them wait.
        let _more: Vec<_> = (1..=9).map(|from| turns.wait(address(from))).collect();
        let others: Vec<Turn> = (100..200).filter_map(|from| stall(&turns, from)).collect();
        assert_eq!(others.len(), 100, "they are begun at once");
        let state = turns.0.lock();
        assert_eq!(state.under_way.len(), 1641, "no more than there may be");
        assert!((1..=9).all(|from| (171..=172).contains(&state.under_way.count(address(from)))));
    }

    #[test]
    fn the_oldest_of_the_address_with_the_most_gives_way_and_goes_on() {
        let turns = turns(4, 4);
        let many: Vec<Turn> = (0..3).filter_map(|_| stall(&turns, 1)).collect();
        let one = stall(&turns, 2).unwrap();
        let second = stall(&turns, 3).expect("it has none");
        assert_eq!((withdrawn(&many), withdrawn(&[one, second])), (vec![true, false, false], vec![false, false]));
        drop(many);
        assert!(turns.is_idle(), "what was withdrawn is given back once");
    }

    #[test]
    fn of_a_crowd_of_many_addresses_each_waits_for_its_turn_and_none_gives_way() {
        let turns = turns(4, 4);
        let mut crowd: Vec<Turn> = (1..=4).filter_map(|from| stall(&turns, from)).collect();
        let mut late: Vec<_> = (5..=7).map(|from| turns.wait(address(from))).collect();
        assert_eq!(withdrawn(&crowd), [false; 4]);
        crowd.remove(2);
        let begun: Vec<bool> = late.iter_mut().map(|(_, told)| told.try_recv().is_ok()).collect();
        assert_eq!(begun, [true, false, false], "who came first");
    }

    #[test]
    fn who_has_the_fewest_under_way_begins_next_however_many_of_others_came_before() {
        let turns = HandshakeTurns::new(HandshakeLimits { turns: 1, under_way: 100, of_one_address: 100 });
        let begun = turns.turn(address(1)).now_or_never().unwrap();
        let mut many: Vec<_> = (0..50).map(|_| turns.wait(address(1))).collect();
        let (_other, mut told) = turns.wait(address(2));
        drop(begun);
        assert!(many[0].1.try_recv().is_ok() && told.try_recv().is_err(), "neither has one, and it came first");
        let (mut first, _) = many.remove(0);
        first.pass_on();
        assert!(told.try_recv().is_ok() && many[0].1.try_recv().is_err());
    }

    #[test]
    fn handshakes_leave_some_places_of_strangers_to_others() {
        let limits = HandshakeLimits::within(1875, 234);
        assert_eq!(limits, HandshakeLimits { turns: 468, under_way: 1641, of_one_address: 205 });
        let least = HandshakeLimits::within(1, 1);
        assert_eq!(least, HandshakeLimits { turns: 1, under_way: 1, of_one_address: 1 });
    }
}
