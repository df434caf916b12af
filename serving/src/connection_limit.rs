//! How many connections clients may hold of a server that anybody reaches, or before they have shown who they are.
//!
//! Each is a file descriptor that is needed elsewhere, and a place that others want. One that comes when there is no
//! room cuts the oldest on which nothing is asked, or the oldest of all: whoever holds many keeps nobody out. A request
//! protects its connection for a short time only ([`PROTECTED`]): one whose answer is never taken would otherwise stay,
//! and those in their handshake would go. A handshake may be spared for a short time, too ([`Counted::spare`]): before
//! it go those on which nothing happens, and after it those that are being answered.
//!
//! Connections are kept in the order in which they make room, so that each costs the logarithm of how many there are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client_network::{ClientNetwork, Scope};

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
    open: HashMap<u64, Open>,
    /// All in the order in which they make room.
    order: Order,
    /// The same of each scope that has any.
    of: HashMap<Scope, Order>,
    /// When protections end.
    ends: BTreeSet<(Instant, u64)>,
}

/// The least protected first, and of several the oldest.
type Order = BTreeSet<(Protection, u64)>;

#[derive(Debug)]
struct Open {
    from: ClientNetwork,
    cut: CancellationToken,
    requests: Arc<Mutex<Requests>>,
    /// With which it stands in the order, and when that ends.
    protection: (Protection, Option<Instant>),
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
    connection: u64,
    requests: Arc<Mutex<Requests>>,
    limit: ConnectionLimit,
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
    /// At most `of_one` connections of one client, some times that of its site ([`ClientNetwork::scopes`]), and
    /// `of_all` together.
    pub fn new(of_one: usize, of_all: usize) -> Self {
        Self { of_one, of_all, all: Arc::default() }
    }

    /// Takes in a connection from an address; makes room by cutting one of that client, of its site, or of all.
    pub fn admit(&self, from: IpAddr) -> Counted {
        self.admit_again(from, CancellationToken::new())
    }

    /// The same for a connection that counted before, and is to be cut by the token that it has.
    pub fn admit_again(&self, from: IpAddr, cut: CancellationToken) -> Counted {
        self.admit_at(from, cut, Instant::now())
    }

    fn admit_at(&self, from: IpAddr, cut: CancellationToken, now: Instant) -> Counted {
        let from = ClientNetwork::of(from);
        let mut all = self.all.lock();
        let victim = all.victim_for(from, self.of_one, self.of_all, now);
        if let Some(open) = victim.and_then(|id| all.remove(id)) {
            all.cut = all.cut.saturating_add(1);
            open.cut.cancel();
        }
        let (id, requests) = (all.next, Arc::<Mutex<Requests>>::default());
        all.next += 1;
        all.insert(
            id,
            Open { from, cut: cut.clone(), requests: requests.clone(), protection: (Protection::None, None) },
        );
        Counted { id, cut, requests, limit: self.clone() }
    }

    /// Changes what is asked on a connection.
    fn change<T>(
        &self,
        id: u64,
        requests: &Mutex<Requests>,
        now: Instant,
        change: impl FnOnce(&mut Requests) -> T,
    ) -> T {
        // Locked first, so that what is changed last is what the order shows.
        let mut all = self.all.lock();
        let changed = change(&mut requests.lock());
        all.update(id, now);
        changed
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
    /// Who has to make room for one more of a client; nobody where there is room.
    fn victim_for(&mut self, from: ClientNetwork, of_one: usize, of_all: usize, now: Instant) -> Option<u64> {
        self.end_protections(now);
        let full = from.scopes().find_map(|(scope, times)| {
            let order = self.of.get(&scope)?;
            (order.len() >= of_one.saturating_mul(times)).then_some(order)
        });
        let full = full.or_else(|| (self.open.len() >= of_all).then_some(&self.order));
        full?.first().map(|(_, id)| *id)
    }

    fn end_protections(&mut self, now: Instant) {
        while let Some((end, id)) = self.ends.first().copied()
            && end <= now
        {
            self.ends.pop_first();
            self.update(id, now);
        }
    }

    /// Puts a connection where it stands now. One that was cut stands nowhere.
    fn update(&mut self, id: u64, now: Instant) {
        let Some(open) = self.open.get(&id) else { return };
        let protection = open.requests.lock().protection(now);
        if protection != open.protection
            && let Some(open) = self.remove(id)
        {
            self.insert(id, Open { protection, ..open });
        }
    }

    fn insert(&mut self, id: u64, open: Open) {
        let (protection, end) = open.protection;
        self.order.insert((protection, id));
        for (scope, _) in open.from.scopes() {
            self.of.entry(scope).or_default().insert((protection, id));
        }
        self.ends.extend(end.map(|end| (end, id)));
        self.open.insert(id, open);
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        let (protection, end) = open.protection;
        self.order.remove(&(protection, id));
        for (scope, _) in open.from.scopes() {
            if let Some(order) = self.of.get_mut(&scope) {
                order.remove(&(protection, id));
                if order.is_empty() {
                    self.of.remove(&scope);
                }
            }
        }
        if let Some(end) = end {
            self.ends.remove(&(end, id));
        }
        Some(open)
    }
}

impl Requests {
    /// How ready the connection is now, and when that ends if nothing changes before.
    fn protection(&self, now: Instant) -> (Protection, Option<Instant>) {
        let answered_until = self.first.filter(|_| !self.under_way.is_empty()).and_then(|at| at.checked_add(PROTECTED));
        let lasting = |until: Option<Instant>| until.filter(|until| now < *until);
        match (lasting(answered_until), lasting(self.spared_until)) {
            (Some(until), _) => (Protection::Asked, Some(until)),
            (None, Some(until)) => (Protection::Spared, Some(until)),
            (None, None) => (Protection::None, None),
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
        self.limit.change(self.id, &self.requests, Instant::now(), |requests| requests.spared_until = None);
    }

    fn spare_at(&self, now: Instant) {
        self.limit.change(self.id, &self.requests, now, |requests| requests.spared_until = now.checked_add(SPARED));
    }

    /// A request has come.
    pub fn begin_request(&self) -> CountedRequest {
        self.begin_at(Instant::now())
    }

    fn begin_at(&self, now: Instant) -> CountedRequest {
        let id = self.limit.change(self.id, &self.requests, now, |requests| {
            requests.first.get_or_insert(now);
            let id = requests.next;
            requests.next += 1;
            requests.under_way.insert(id, now);
            id
        });
        CountedRequest { id, connection: self.id, requests: self.requests.clone(), limit: self.limit.clone() }
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
        self.limit.change(self.connection, &self.requests, Instant::now(), |requests| {
            requests.under_way.remove(&self.id);
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.limit.all.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests;
