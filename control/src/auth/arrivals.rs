//! Connections that were accepted and whose handshake has not begun, so that thousands that come at once are all
//! served, one after the other: a handshake costs the processor most of a millisecond, and all at once would take so
//! long that clients give up, and so much memory.
//!
//! One that waits costs little more than its file descriptor. It may take a place that nobody else needs; when there is
//! none left, the oldest of the address that has the most makes room. One address alone gets three quarters of what is
//! free. Handshakes take turns ([`HandshakeTurns`]), so that an address that sends many does not hold up the others;
//! whoever lets the server wait gives its turn to the next. There is a bound on those that are waited for, too: clients
//! of which thousands connect at once are slow to answer, and none of them is to be cut for the next one before it had
//! some time ([`SPARED`]).
//!
//! An address here is a network of a client, and those of one site count together, too ([`ClientNetwork`]).

use std::{net::IpAddr, sync::Arc, time::Duration};

use fairlead_serving::{
    client_network::{ClientNetwork, ClientSite},
    connection_limit,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    by_network::ByNetwork,
    handshake_turns::{HandshakeLimits, HandshakeTurns, Turn},
};

/// What one site, or an address that is one, may hold, of what is left free.
const SHARE: usize = 3;

/// For how long a handshake keeps its place among those under way, and others wait for it.
pub const SPARED: Duration = connection_limit::SPARED;

/// All that wait. Clones share them.
#[derive(Clone, Debug)]
pub struct Arrivals {
    turns: HandshakeTurns,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// How many had to make room.
    cut: u64,
    connections: ByNetwork<CancellationToken>,
}

/// One that waits. Dropped, it does so no more.
#[derive(Debug)]
pub struct WaitingConnection {
    id: u64,
    from: ClientNetwork,
    cut: CancellationToken,
    of: Arrivals,
}

impl Arrivals {
    /// Nobody waits.
    pub fn new(limits: HandshakeLimits) -> Self {
        Self { turns: HandshakeTurns::new(limits), waiting: Arc::default() }
    }

    /// Takes one in that comes from this address, while so many places are free beside those that wait already.
    pub fn arrive(&self, from: IpAddr, free: usize) -> WaitingConnection {
        let from = ClientNetwork::of(from);
        let mut waiting = self.waiting.lock();
        let left = free.saturating_sub(waiting.connections.len());
        let mine = waiting.connections.count_of_site(from.site());
        if left == 0 {
            waiting.cut_oldest_of_most();
        } else if mine >= left.saturating_mul(SHARE) {
            waiting.cut_oldest(from.site());
        }
        let (id, cut) = (waiting.next, CancellationToken::new());
        waiting.next = waiting.next.wrapping_add(1);
        waiting.connections.insert(from, id, cut.clone());
        WaitingConnection { id, from, cut, of: self.clone() }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().connections.len()
    }

    /// How many had to make room until now.
    pub fn cut(&self) -> u64 {
        self.waiting.lock().cut
    }
}

impl Waiting {
    fn cut_oldest_of_most(&mut self) {
        if let Some((site, _)) = self.connections.most() {
            self.cut_oldest(site);
        }
    }

    /// Of the network that has the most there.
    fn cut_oldest(&mut self, site: ClientSite) {
        let most = self.connections.most_of_site(site);
        if let Some((_, cut)) = most.and_then(|(network, _)| self.connections.remove_oldest(network)) {
            self.cut = self.cut.saturating_add(1);
            cut.cancel();
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
        self.of.turns.turn(self.from).await
    }
}

impl Drop for WaitingConnection {
    fn drop(&mut self) {
        // One that made room is gone already.
        self.of.waiting.lock().connections.remove(self.from, self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::{super::handshake_turns::TURNS_OF_ONE_ADDRESS, *};

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn arrivals(turns: usize) -> Arrivals {
        Arrivals::new(HandshakeLimits { turns, under_way: 1_000, of_one_address: 1_000 })
    }

    fn arrive(arrivals: &Arrivals, from: u8, count: usize, free: usize) -> Vec<WaitingConnection> {
        (0..count).map(|_| arrivals.arrive(address(from), free)).collect()
    }

    fn is_idle(arrivals: &Arrivals) -> bool {
        arrivals.waiting() == 0 && arrivals.turns.is_idle()
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
        assert!(is_idle(&arrivals));
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
    fn where_no_place_is_left_the_address_that_has_the_most_makes_room_for_the_others() {
        let arrivals = arrivals(64);
        let victim = arrive(&arrivals, 1, 2, 100);
        let attackers: Vec<_> = (2..=9).map(|from| arrive(&arrivals, from, 200, 100)).collect();
        let late = arrive(&arrivals, 1, 1, 100);
        assert_eq!((cut(&victim), cut(&late)), (0, 0), "though they are the oldest");
        let left: usize = attackers.iter().map(|held| held.len() - cut(held)).sum();
        assert_eq!((left, arrivals.waiting()), (97, 100));
    }

    #[test]
    fn where_no_place_is_left_the_site_of_many_subnets_makes_room_and_its_subnet_that_has_the_most() {
        let arrivals = arrivals(64);
        let arrive = |subnet: u16| arrivals.arrive([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1].into(), 100);
        let victims: Vec<_> = [1, 2].into_iter().map(|from| arrivals.arrive(address(from), 100)).collect();
        let neighbour = arrive(0);
        let many: Vec<_> = (0..400).map(|number| arrive(1 + number % 20)).collect();
        assert_eq!((cut(&victims), cut(&[neighbour])), (0, 0), "though they are the oldest");
        assert_eq!((many.len() - cut(&many), arrivals.waiting()), (73, 75), "the neighbour has gone");
    }

    #[test]
    fn an_address_has_few_turns_at_a_time_and_holds_up_no_other() {
        let arrivals = arrivals(64);
        let many = arrive(&arrivals, 1, 100, 1_000);
        let turns: Vec<Turn> = many.iter().filter_map(|arrival| arrival.turn().now_or_never()).collect();
        assert_eq!(turns.len(), TURNS_OF_ONE_ADDRESS);
        let other = arrivals.arrive(address(2), 1_000);
        assert!(other.turn().now_or_never().is_some());
        drop(many);
        let again = arrivals.arrive(address(1), 1_000);
        assert!(again.turn().now_or_never().is_none(), "though nobody else waited meanwhile");
        drop(turns);
        assert!(again.turn().now_or_never().is_some());
        drop((again, other));
        assert!(is_idle(&arrivals));
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
        assert!(is_idle(&arrivals));
    }
}
