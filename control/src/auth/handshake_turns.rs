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
//!
//! An address here is a network of a client ([`ClientNetwork`]). That is done twice: turns and places go to the site
//! that has the fewest, and within it to the network that has; so that who has thousands of IPv6 subnets counts as one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use fairlead_serving::client_network::{ClientNetwork, ClientSite, NETWORKS_OF_A_SITE};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::by_network::ByNetwork;

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
    waiting: ByNetwork<Waiting>,
    turns: ByNetwork<()>,
    /// Told when their place is another's.
    under_way: ByNetwork<CancellationToken>,
    /// The sites of those that wait and that may have one more: who has the fewest places first, then who waits for the
    /// longest time.
    queue: BTreeSet<(usize, u64, ClientSite)>,
    /// The same of the networks of each site that has any.
    queues: HashMap<ClientSite, BTreeSet<Rank>>,
}

/// Where a network stands among those of its site: how many places it has, and for how long it waits.
type Rank = (usize, u64, ClientNetwork);

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
    from: ClientNetwork,
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
            waiting: ByNetwork::default(),
            turns: ByNetwork::default(),
            under_way: ByNetwork::default(),
            queue: BTreeSet::new(),
            queues: HashMap::new(),
        })))
    }

    /// Waits for the turn of a handshake from this network.
    pub async fn turn(&self, from: ClientNetwork) -> Turn {
        let (turn, told) = self.wait(from);
        told.await.expect("one that waits is told before it is forgotten");
        turn
    }

    fn wait(&self, from: ClientNetwork) -> (Turn, oneshot::Receiver<()>) {
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
        state.waiting.len() + state.turns.len() + state.under_way.len() + state.queue.len() + state.queues.len() == 0
    }
}

impl State {
    /// Where a network stands in the queue of its site.
    fn rank(&self, from: ClientNetwork) -> Option<Rank> {
        let (oldest, places) = (self.waiting.oldest(from)?, self.under_way.count(from));
        let may_begin = places < self.limits.of_one_address && self.turns.count(from) < TURNS_OF_ONE_ADDRESS;
        may_begin.then_some((places, oldest, from))
    }

    /// Where a site stands in the queue.
    fn rank_of_site(&self, site: ClientSite) -> Option<(usize, u64, ClientSite)> {
        let (_, oldest, _) = self.queues.get(&site)?.first()?;
        let may_begin = self.turns.count_of_site(site) < TURNS_OF_ONE_ADDRESS.saturating_mul(NETWORKS_OF_A_SITE)
            && (self.has_place(site) || self.gives_way(site).is_some());
        may_begin.then_some((self.under_way.count_of_site(site), *oldest, site))
    }

    /// Whether a site may have another place.
    fn has_place(&self, site: ClientSite) -> bool {
        self.under_way.count_of_site(site) < self.limits.of_one_address.saturating_mul(NETWORKS_OF_A_SITE)
    }

    /// The network that gives way to the first that waits of the same site.
    fn gives_way(&self, site: ClientSite) -> Option<ClientNetwork> {
        let (places, ..) = self.queues.get(&site)?.first()?;
        let (network, most) = self.under_way.most_of_site(site)?;
        has_too_many(most, *places).then_some(network)
    }

    /// Changes what a network has.
    fn change(&mut self, from: ClientNetwork, change: impl FnOnce(&mut Self)) {
        let site = from.site();
        if let Some(rank) = self.rank_of_site(site) {
            self.queue.remove(&rank);
        }
        let rank_before = self.rank(from);
        change(self);
        let rank = self.rank(from);
        if rank != rank_before {
            let queue = self.queues.entry(site).or_default();
            if let Some(before) = rank_before {
                queue.remove(&before);
            }
            queue.extend(rank);
            if queue.is_empty() {
                self.queues.remove(&site);
            }
        }
        self.queue.extend(self.rank_of_site(site));
    }

    fn begin_next(&mut self) {
        while self.turns.len() < self.limits.turns
            && let Some((_, _, site)) = self.queue.first().copied()
            && let Some((_, _, from)) = self.queues.get(&site).and_then(BTreeSet::first).copied()
        {
            if !self.make_room_for(site) {
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

    /// Takes a place away for a site, where none is left, if another site has too many, or another network of the same.
    fn make_room_for(&mut self, site: ClientSite) -> bool {
        let has_place = self.has_place(site);
        if has_place && self.under_way.len() < self.limits.under_way {
            return true;
        }
        let most = self
            .under_way
            .most()
            .filter(|(_, most)| has_place && has_too_many(*most, self.under_way.count_of_site(site)));
        let of_another = most.and_then(|(site, _)| self.under_way.most_of_site(site)).map(|(network, _)| network);
        let Some(from) = of_another.or_else(|| self.gives_way(site)) else { return false };
        self.change(from, |state| {
            if let Some((_, withdrawn)) = state.under_way.remove_oldest(from) {
                withdrawn.cancel();
            }
        });
        true
    }
}

/// Whether one that has `most` gives way to another: by one more, the two would take it from each other for ever.
fn has_too_many(most: usize, other: usize) -> bool {
    most >= other.saturating_add(2)
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

    fn address(last: u8) -> ClientNetwork {
        ClientNetwork::of([10, 0, 0, last].into())
    }

    fn subnet(site: u16, subnet: u16) -> ClientNetwork {
        ClientNetwork::of([0x2001, 0xdb8, site, subnet, 0, 0, 0, 1].into())
    }

    fn turns(under_way: usize, of_one_address: usize) -> HandshakeTurns {
        HandshakeTurns::new(HandshakeLimits { turns: 16, under_way, of_one_address })
    }

    /// One that is begun and left undone.
    fn stall(turns: &HandshakeTurns, from: u8) -> Option<Turn> {
        stall_from(turns, address(from))
    }

    fn stall_from(turns: &HandshakeTurns, from: ClientNetwork) -> Option<Turn> {
        let mut turn = turns.turn(from).now_or_never()?;
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
    fn a_site_of_thousands_of_subnets_that_leaves_all_handshakes_undone_holds_up_no_other_site() {
        let turns = turns(1641, 205);
        let begun: Vec<Turn> = (0..5_000).filter_map(|number| stall_from(&turns, subnet(1, number))).collect();
        assert_eq!(begun.len(), 205 * NETWORKS_OF_A_SITE, "though each subnet has one alone");
        let second: Vec<Turn> = (0..5_000).filter_map(|number| stall_from(&turns, subnet(2, number))).collect();
        assert_eq!(second.len(), 205 * NETWORKS_OF_A_SITE, "all places but one are taken");
        let others: Vec<Turn> = (0..100).filter_map(|from| stall(&turns, from)).collect();
        let third: Vec<Turn> = (0..100).filter_map(|number| stall_from(&turns, subnet(3, number))).collect();
        assert_eq!((others.len(), third.len()), (100, 100), "they are begun at once");
        assert_eq!(turns.0.lock().under_way.len(), 1641, "no more than there may be");
        drop((begun, second, others, third));
        assert!(turns.is_idle());
    }

    #[test]
    fn subnets_of_a_site_that_leave_handshakes_undone_give_way_to_another_of_it() {
        let turns = turns(1641, 205);
        let attackers = || (1..=9).flat_map(|number| (0..100).map(move |_| subnet(1, number)));
        let begun: Vec<Turn> = attackers().filter_map(|from| stall_from(&turns, from)).collect();
        let of_site = || turns.0.lock().under_way.count_of_site(subnet(1, 1).site());
        assert_eq!((of_site(), begun.len() > of_site()), (205 * NETWORKS_OF_A_SITE, true), "evenly");
        let _more: Vec<_> = attackers().map(|from| turns.wait(from)).collect();
        let others: Vec<Turn> = (100..150).filter_map(|number| stall_from(&turns, subnet(1, number))).collect();
        assert_eq!((others.len(), withdrawn(&others)), (50, vec![false; 50]));
        assert_eq!(of_site(), 205 * NETWORKS_OF_A_SITE);
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
