//! How many connections clients may hold of a server that anybody reaches, or before they have shown who they are.
//!
//! Each is a file descriptor that is needed elsewhere, and a place that others want. One that comes when there is no
//! room cuts the oldest on which nothing is asked, or the oldest of all: whoever holds many keeps nobody out. A request
//! protects its connection for a short time only ([`PROTECTED`]): one whose answer is never taken would otherwise stay,
//! and those in their handshake would go. A handshake may be spared for a short time, too ([`Counted::spare`]): before
//! it go those on which nothing happens, and after it those that are being answered.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many connections there may be, and which there are. Clones share them.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    of_one: usize,
    of_all: usize,
    all: Arc<Mutex<Connections>>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    /// How many had to make room.
    cut: u64,
    /// By age, the oldest first.
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    from: IpAddr,
    cut: CancellationToken,
    requests: Arc<Mutex<Requests>>,
}

/// The requests of one connection.
#[derive(Debug, Default)]
struct Requests {
    /// When the first of all came.
    first: Option<Instant>,
    next: u64,
    /// When those under way came, the oldest first.
    under_way: BTreeMap<u64, Instant>,
    /// Until when the handshake is spared.
    spared_until: Option<Instant>,
}

/// How ready a connection is to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protection {
    None,
    Spared,
    Asked,
}

/// How long a connection on which something is asked is spared, from its first request on: enough to send a short
/// answer. Later requests prolong it by nothing, or who asks without end would never make room.
pub const PROTECTED: Duration = Duration::from_secs(2);

/// How long a handshake is spared: a client that begins thousands at once is slow to answer each of them.
pub const SPARED: Duration = Duration::from_secs(2);

/// A request under way. Dropped, it is answered.
#[derive(Debug)]
pub struct CountedRequest {
    id: u64,
    of: Arc<Mutex<Requests>>,
}

/// A connection that counts. Dropped, it counts no more.
#[derive(Debug)]
pub struct Counted {
    id: u64,
    cut: CancellationToken,
    requests: Arc<Mutex<Requests>>,
    limit: ConnectionLimit,
}

impl ConnectionLimit {
    /// At most `of_one` connections of one address, and `of_all` together.
    pub fn new(of_one: usize, of_all: usize) -> Self {
        Self { of_one, of_all, all: Arc::default() }
    }

    /// Takes in a connection from an address; makes room by cutting one of that address, or of all.
    pub fn admit(&self, from: IpAddr) -> Counted {
        self.admit_again(from, CancellationToken::new())
    }

    /// The same for a connection that counted before, and is to be cut by the token that it has.
    pub fn admit_again(&self, from: IpAddr, cut: CancellationToken) -> Counted {
        self.admit_at(from, cut, Instant::now())
    }

    fn admit_at(&self, from: IpAddr, cut: CancellationToken, now: Instant) -> Counted {
        let mut all = self.all.lock();
        let victim = all.victim_for(from, self.of_one, self.of_all, now);
        if let Some(open) = victim.and_then(|id| all.open.remove(&id)) {
            all.cut = all.cut.saturating_add(1);
            open.cut.cancel();
        }
        let (id, requests) = (all.next, Arc::<Mutex<Requests>>::default());
        all.next += 1;
        all.open.insert(id, Open { from, cut: cut.clone(), requests: requests.clone() });
        Counted { id, cut, requests, limit: self.clone() }
    }

    /// How many there may be together.
    pub fn most(&self) -> usize {
        self.of_all
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.all.lock().open.len()
    }

    /// How many had to make room until now.
    pub fn cut(&self) -> u64 {
        self.all.lock().cut
    }
}

impl Connections {
    /// Who has to make room for one more from an address; nobody where there is room.
    fn victim_for(&self, from: IpAddr, of_one: usize, of_all: usize, now: Instant) -> Option<u64> {
        let of_same = || self.open.iter().filter(|(_, open)| open.from == from);
        if of_same().count() >= of_one {
            return oldest(of_same(), now);
        }
        (self.open.len() >= of_all).then(|| oldest(self.open.iter(), now)).flatten()
    }
}

/// The oldest of those with the least protection; where each is asked, the oldest.
fn oldest<'o>(by_age: impl Iterator<Item = (&'o u64, &'o Open)>, now: Instant) -> Option<u64> {
    let mut first: Option<(Protection, u64)> = None;
    for (id, open) in by_age {
        let protection = open.requests.lock().protection(now);
        if protection == Protection::None {
            return Some(*id);
        }
        if first.is_none_or(|(least, _)| protection < least) {
            first = Some((protection, *id));
        }
    }
    first.map(|(_, id)| id)
}

impl Requests {
    fn protection(&self, now: Instant) -> Protection {
        let is_recent = |first| now.saturating_duration_since(first) < PROTECTED;
        if !self.under_way.is_empty() && self.first.is_some_and(is_recent) {
            return Protection::Asked;
        }
        match self.spared_until.is_some_and(|until| now < until) {
            true => Protection::Spared,
            false => Protection::None,
        }
    }
}

impl Counted {
    /// Completes when the connection is to make room.
    pub async fn is_cut(&self) {
        self.cut.cancelled().await;
    }

    /// What [`Counted::is_cut`] waits for; never cancelled once this is dropped.
    pub fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Its handshake begins, for which it is spared for a short time.
    pub fn spare(&self) {
        self.spare_at(Instant::now());
    }

    /// It is spared no more, though its time is not over.
    pub fn spare_no_more(&self) {
        self.requests.lock().spared_until = None;
    }

    fn spare_at(&self, now: Instant) {
        self.requests.lock().spared_until = now.checked_add(SPARED);
    }

    /// A request has come.
    pub fn begin_request(&self) -> CountedRequest {
        self.begin_at(Instant::now())
    }

    fn begin_at(&self, now: Instant) -> CountedRequest {
        let mut requests = self.requests.lock();
        requests.first.get_or_insert(now);
        let id = requests.next;
        requests.next += 1;
        requests.under_way.insert(id, now);
        CountedRequest { id, of: self.requests.clone() }
    }

    /// Whether a request is under way.
    pub fn is_asked(&self) -> bool {
        !self.requests.lock().under_way.is_empty()
    }

    /// When the first request of all came.
    pub fn first_request(&self) -> Option<Instant> {
        self.requests.lock().first
    }

    /// When the oldest of the requests under way came.
    pub fn oldest_request(&self) -> Option<Instant> {
        self.requests.lock().under_way.values().next().copied()
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        self.of.lock().under_way.remove(&self.id);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.limit.all.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 244, 0, last].into()
    }

    #[test]
    fn one_address_cuts_its_own_connections_and_those_of_no_other() {
        let limit = ConnectionLimit::new(32, 512);
        let other = limit.admit(address(2));
        let mut held: Vec<_> = (0..32).map(|_| limit.admit(address(1))).collect();
        assert!(held.iter().all(|held| !held.cut.is_cancelled()));
        held.push(limit.admit(address(1)));
        let cut: Vec<usize> = (0..held.len()).filter(|at| held[*at].cut.is_cancelled()).collect();
        assert_eq!((cut, other.cut.is_cancelled()), (vec![0], false));
        // A place that was given back cuts nobody.
        held.truncate(32 - 1);
        let next = limit.admit(address(1));
        assert!(!held[1].cut.is_cancelled() && !next.cut.is_cancelled());
        drop((held, other, next));
        assert!(limit.all.lock().open.is_empty());
    }

    #[test]
    fn all_addresses_together_have_a_limit() {
        let limit = ConnectionLimit::new(32, 512);
        let addresses = (0..u8::MAX).cycle().map(address);
        let held: Vec<_> = addresses.take(513).map(|from| limit.admit(from)).collect();
        assert_eq!(held.iter().filter(|held| held.cut.is_cancelled()).count(), 1);
        assert!(held[0].cut.is_cancelled());
        assert_eq!(limit.all.lock().open.len(), 512);
    }

    #[test]
    fn the_oldest_on_which_nothing_is_asked_makes_room_first() {
        let limit = ConnectionLimit::new(3, 3);
        let held: Vec<_> = (0..3).map(|_| limit.admit(address(1))).collect();
        let _asked = held[0].begin_request();
        let next = limit.admit(address(1));
        let cut = |held: &[Counted]| held.iter().map(|held| held.cut.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(cut(&held), [false, true, false]);
        let (asked, _of_next) = (held[2].begin_request(), next.begin_request());
        let last = limit.admit(address(2));
        assert_eq!(cut(&held), [true, true, false], "where all are asked, the oldest");
        drop(asked);
        assert!(!held[2].is_asked() && next.is_asked());
        assert_eq!((limit.open(), limit.cut()), (3, 2));
        drop((held, next, last));
        assert_eq!(limit.open(), 0);
    }

    #[test]
    fn a_request_that_is_never_answered_protects_for_a_short_time_only() {
        let limit = ConnectionLimit::new(2, 2);
        let held = [limit.admit(address(1)), limit.admit(address(1))];
        let begun = Instant::now();
        let _asked = held[0].begin_at(begun);
        let _later = held[0].begin_at(begun + PROTECTED);
        let admit = |now| limit.admit_at(address(1), CancellationToken::new(), now);
        let in_handshake = admit(begun + PROTECTED - Duration::from_millis(1));
        assert!(held[1].cut.is_cancelled() && !held[0].cut.is_cancelled());
        let _next = admit(begun + PROTECTED);
        assert!(held[0].cut.is_cancelled() && !in_handshake.cut.is_cancelled());
    }

    #[test]
    fn a_handshake_is_spared_for_a_short_time_and_makes_room_before_what_is_asked() {
        let limit = ConnectionLimit::new(3, 3);
        let begun = Instant::now();
        let admit = |now| limit.admit_at(address(1), CancellationToken::new(), now);
        let (in_handshake, idle, asked) = (admit(begun), admit(begun), admit(begun));
        in_handshake.spare_at(begun);
        let _request = asked.begin_at(begun);
        let is_cut = || [&in_handshake, &idle, &asked].map(|held| held.cut.is_cancelled());
        let second = admit(begun + SPARED / 2);
        second.spare_at(begun + SPARED / 2);
        assert_eq!(is_cut(), [false, true, false], "on which nothing happens");
        let third = admit(begun + SPARED - Duration::from_millis(1));
        third.spare_at(begun + SPARED - Duration::from_millis(1));
        assert_eq!(is_cut(), [true, true, false], "where there is no other");
        let _fourth = admit(begun + SPARED + SPARED / 2);
        assert_eq!((is_cut(), second.cut.is_cancelled()), ([true, true, true], false), "neither lasts for ever");
        for held in [&second, &third] {
            held.spare_at(begun + SPARED + SPARED / 2);
        }
        third.spare_no_more();
        let _fifth = admit(begun + SPARED + SPARED / 2);
        assert_eq!([&second, &third].map(|held| held.cut.is_cancelled()), [false, true], "one is spared no more");
    }
}
