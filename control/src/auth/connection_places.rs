//! How many connections there may be, by who holds them: strangers, nodes, components of the cluster, and other users.
//!
//! A connection waits for its handshake in whatever place is free ([`Arrivals`]), begins as a stranger's, and moves to
//! the class of its user once it has shown who that is: by the certificate of its handshake, or with the first request
//! that has a good token. So whoever shows nothing takes no place from those who do; strangers make room for strangers.
//! Each class is divided: a node holds some connections and always finds a place for its first, users share theirs as
//! they share seats ([`Shares`]). A connection beyond its user's share borrows a place that nodes, components and users
//! leave free ([`BorrowedPlaces`]), such as those of a DaemonSet that runs on each of many nodes: it has to make room
//! once those come whose share it is. So shares are a limit only while there are few places left. Where its user may
//! borrow no more, it stays among the strangers, with their limit for each address: it is served, and is one of those
//! that make room. Where a credential is not good any more, the connection becomes a stranger's again.
//!
//! Whoever shows nothing at all has little time, too: what strangers ask for is answered at once, so that an answer
//! which is not taken is one that nobody wants ([`ConnectionPlace::overstays`]).
//!
//! Kubernetes has no such limits: its server takes connections until it has no file descriptor left.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fairlead_serving::connection_limit::{ConnectionLimit, Counted, CountedRequest};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Identity,
    arrivals::{Arrivals, WaitingConnection},
    borrowed_places::{BorrowedPlace, BorrowedPlaces},
    handshake_turns::HandshakeLimits,
};
use crate::{
    flow_control::shares::{Share, Shares},
    identity::{ANONYMOUS, AUTHENTICATED, BOOTSTRAPPERS, MASTERS, SERVICE_ACCOUNTS},
    metrics::{Labels, Scrape},
};

/// How many connections there may be of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceLimits {
    /// Of strangers together.
    pub strangers: usize,
    /// Of the strangers of one address, or of one IPv6 subnet; its site has some times that
    /// ([`fairlead_serving::client_network`]).
    pub of_one_address: usize,
    /// Of nodes together.
    pub nodes: usize,
    /// Of one node.
    pub of_one_node: usize,
    /// Of components of the cluster: those users named `system:…` that are neither nodes nor ServiceAccounts.
    pub system: usize,
    /// Of all other users.
    pub users: usize,
}

/// The connections of the service by class. Clones share them.
#[derive(Clone, Debug)]
pub struct ConnectionPlaces {
    limits: PlaceLimits,
    /// Those that wait for their handshake.
    arrivals: Arrivals,
    /// All but those.
    open: Arc<AtomicUsize>,
    strangers: ConnectionLimit,
    /// How many of the strangers' places are held by known users beyond their share.
    beyond_share: Arc<AtomicUsize>,
    nodes: Arc<Shares>,
    /// Places of nodes, components and users that are held beyond a share.
    borrowed: Arc<BorrowedPlaces>,
    system: Arc<Shares>,
    users: Arc<Shares>,
}

/// The place of one connection: an extension of its requests. Given back with its last clone.
#[derive(Clone)]
pub struct ConnectionPlace(Arc<Place>);

struct Place {
    places: ConnectionPlaces,
    from: IpAddr,
    cut: CancellationToken,
    held: Mutex<PlaceState>,
    /// Told when a stranger's request comes; one waits.
    asked: Notify,
    /// Told when the connection becomes a stranger's again.
    forgotten: Notify,
}

enum PlaceState {
    Stranger {
        counted: Counted,
        /// Its user is known, and holds as many as they may.
        beyond_share: Option<BeyondShare>,
    },
    /// Its user is known and holds their share, and others leave places free.
    Borrowed {
        _place: BorrowedPlace,
    },
    Known {
        _share: Share,
    },
}

impl PlaceState {
    #[cfg(test)]
    fn is_beyond_share(&self) -> bool {
        matches!(self, Self::Stranger { beyond_share: Some(_), .. })
    }
}

/// Counts until it is dropped.
struct BeyondShare(Arc<AtomicUsize>);

impl BeyondShare {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for BeyondShare {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request of a stranger that is under way. Dropped, it is answered.
pub struct StrangersRequest {
    of: ConnectionPlace,
    _counted: CountedRequest,
}

/// Whose place a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Stranger,
    Node,
    System,
    User,
}

impl PlaceLimits {
    /// For a process that may open so many files. A quarter is left for other files: the store, connections to agents
    /// and webhooks.
    pub fn for_descriptors(most_open: u64) -> Self {
        let most_open = usize::try_from(most_open).unwrap_or(usize::MAX);
        let total = (most_open / 4).saturating_mul(3).clamp(LEAST, MOST);
        let (strangers, nodes, system) = (total / 8, total / 2, total / 16);
        Self {
            strangers,
            of_one_address: (strangers / 8).max(LEAST_OF_ONE_ADDRESS).min(strangers),
            nodes,
            of_one_node: MOST_OF_ONE_NODE.min(nodes),
            system,
            users: total.saturating_sub(strangers.saturating_add(nodes).saturating_add(system)),
        }
    }

    /// Of all classes together.
    pub fn total(&self) -> usize {
        self.strangers.saturating_add(self.nodes).saturating_add(self.system).saturating_add(self.users)
    }
}

/// A connection with its TLS takes some 12 KiB while nothing is asked over HTTP/1, and 50 KiB over HTTP/2.
const MOST: usize = 16 * 1024;
const LEAST: usize = 64;
/// When all places are taken, one connection for so many places may still wait for its handshake. The listener accepts
/// one for sixteen places beyond them: half of these wait, the others were cut and are about to close.
const WAITING_ROOM: usize = 32;
const LEAST_OF_ONE_ADDRESS: usize = 16;
/// An agent has one; one of an earlier version has some 20, which speaks HTTP/1.1.
const MOST_OF_ONE_NODE: usize = 64;

impl ConnectionPlaces {
    /// Nobody is connected.
    pub fn new(limits: PlaceLimits) -> Self {
        let nodes = Shares::new(limits.nodes, limits.of_one_node);
        let (system, users) = (Shares::new(limits.system, usize::MAX), Shares::new(limits.users, usize::MAX));
        Self {
            limits,
            arrivals: Arrivals::new(HandshakeLimits::within(limits.strangers, limits.of_one_address)),
            open: Arc::default(),
            strangers: ConnectionLimit::new(limits.of_one_address, limits.strangers),
            beyond_share: Arc::default(),
            borrowed: BorrowedPlaces::new(vec![nodes.clone(), system.clone(), users.clone()]),
            nodes,
            system,
            users,
        }
    }

    /// What was set.
    pub fn limits(&self) -> &PlaceLimits {
        &self.limits
    }

    /// Has a connection wait until its handshake may begin; another that waits may have to make room.
    pub fn arrive(&self, from: IpAddr) -> WaitingConnection {
        let total = self.limits.total();
        let free = total.saturating_sub(self.open.load(Ordering::Relaxed));
        // Places are lent to the last one: some wait beside them all the same, or each would be cut for the next.
        self.arrivals.arrive(from, free.max(total / WAITING_ROOM))
    }

    /// Takes in a connection of whom nothing is known; another stranger may have to make room.
    pub fn admit(&self, from: IpAddr) -> ConnectionPlace {
        self.open.fetch_add(1, Ordering::Relaxed);
        let counted = self.strangers.admit(from);
        let cut = counted.cut();
        let held = Mutex::new(PlaceState::Stranger { counted, beyond_share: None });
        let (asked, forgotten) = (Notify::new(), Notify::new());
        ConnectionPlace(Arc::new(Place { places: self.clone(), from, cut, held, asked, forgotten }))
    }

    fn take(&self, identity: &Identity) -> Option<Share> {
        let name = &*identity.name;
        match Class::of(identity) {
            Class::Stranger => None,
            Class::Node => self.nodes.take_or_first(name, 1),
            Class::System => self.system.take_or_first(name, 1),
            Class::User if identity.is_in(MASTERS) => self.users.take_or_first(name, 1),
            Class::User => self.users.take(name, 1),
        }
    }

    /// A place that others leave free, for a connection that is to be cut by this token. A node that holds too many
    /// gets none.
    fn borrow(&self, class: Class, user: &str, cut: &CancellationToken) -> Option<BorrowedPlace> {
        match class {
            Class::System | Class::User => self.borrowed.borrow(user, cut),
            Class::Stranger | Class::Node => None,
        }
    }

    /// Tells of each class how many connections it has, and may have.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        // One that comes or goes meanwhile may be in one count and not in the other.
        let beyond_share = self.beyond_share.load(Ordering::Relaxed);
        let strangers = self.strangers.open().saturating_sub(beyond_share);
        let classes: [(Labels<'_>, usize, usize); 4] = [
            (&[("class", "stranger")], strangers, self.limits.strangers),
            (&[("class", "node")], self.nodes.taken(), self.limits.nodes),
            (&[("class", "system")], self.system.taken(), self.limits.system),
            (&[("class", "user")], self.users.taken(), self.limits.users),
        ];
        let without_limit: [(Labels<'_>, usize); 3] = [
            (&[("class", "arriving")], self.arrivals.waiting()),
            (&[("class", "beyond_share")], beyond_share),
            (&[("class", "borrowed")], self.borrowed.open()),
        ];
        let held = classes.map(|(labels, held, _)| (labels, held));
        let held = held.into_iter().chain(without_limit).map(|(labels, held)| (labels, held as f64));
        scrape.gauges(
            "fairlead_connections",
            "Connections by who holds them; those beyond_share and of strangers are in the same places.",
            held,
        )?;
        let limits = classes.map(|(labels, _, limit)| (labels, limit as f64));
        scrape.gauges(
            "fairlead_connections_limit",
            "How many connections a class may hold; that of strangers counts those beyond_share, too.",
            limits,
        )?;
        scrape.counters(
            "fairlead_connections_cut",
            "Connections in places of strangers, or waiting for their handshake, that made room for others.",
            [(&[][..], self.strangers.cut().saturating_add(self.arrivals.cut()))],
        )?;
        scrape.counters(
            "fairlead_connections_returned",
            "Connections of users beyond their share that gave places back to whom they belong.",
            [(&[][..], self.borrowed.returned())],
        )
    }
}

impl Class {
    fn of(identity: &Identity) -> Self {
        if identity.name == ANONYMOUS || !identity.is_in(AUTHENTICATED) {
            return Self::Stranger;
        }
        if identity.node().is_some() {
            return Self::Node;
        }
        let is_system = identity.name.starts_with("system:");
        match is_system && !identity.is_in(SERVICE_ACCOUNTS) && !identity.is_in(BOOTSTRAPPERS) {
            true => Self::System,
            false => Self::User,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionPlace {
    /// Moves the connection to the class of its user, if that has room. The first user of a connection counts.
    pub fn belongs_to(&self, identity: &Identity) {
        let (places, mut held) = (&self.0.places, self.0.held.lock());
        if matches!(*held, PlaceState::Known { .. }) {
            return;
        }
        if let Some(share) = places.take(identity) {
            // What it has borrowed is given back first: nobody is cut for that.
            *held = PlaceState::Known { _share: share };
            places.borrowed.make_room();
        } else if let PlaceState::Stranger { beyond_share, .. } = &mut *held {
            let class = Class::of(identity);
            if class == Class::Stranger {
                // Their time is limited from now on.
                *beyond_share = None;
                self.0.asked.notify_one();
            } else if let Some(place) = places.borrow(class, &identity.name, &self.0.cut) {
                *held = PlaceState::Borrowed { _place: place };
            } else {
                beyond_share.get_or_insert_with(|| BeyondShare::new(&places.beyond_share));
            }
        }
    }

    /// Has others make room first for a moment: the client is to have the time for its part of the handshake.
    pub fn spare_in_handshake(&self) {
        if let PlaceState::Stranger { counted, .. } = &*self.0.held.lock() {
            counted.spare();
        }
    }

    /// Spares it no more: another handshake has its turn.
    pub fn spare_no_more(&self) {
        if let PlaceState::Stranger { counted, .. } = &*self.0.held.lock() {
            counted.spare_no_more();
        }
    }

    /// Makes the connection a stranger's again: the credential that it came with is not good any more.
    pub fn belongs_to_nobody(&self) {
        let mut held = self.0.held.lock();
        match &mut *held {
            PlaceState::Stranger { beyond_share, .. } => *beyond_share = None,
            PlaceState::Known { .. } | PlaceState::Borrowed { .. } => {
                let counted = self.0.places.strangers.admit_again(self.0.from, self.0.cut.clone());
                // What is under way was not counted: it has the time that a stranger may stay.
                drop(counted.begin_request());
                *held = PlaceState::Stranger { counted, beyond_share: None };
            }
        }
        drop(held);
        self.0.asked.notify_one();
        self.0.forgotten.notify_waiters();
    }

    /// Completes when the connection has to make room: never for one that has a place of its user's.
    pub async fn is_cut(&self) {
        loop {
            let forgotten = self.0.forgotten.notified();
            self.0.cut.cancelled().await;
            if !matches!(*self.0.held.lock(), PlaceState::Known { .. }) {
                return;
            }
            forgotten.await;
        }
    }

    /// Completes when a stranger has not taken an answer for so long, or has stayed for so long since their first
    /// request. A user beyond their share may stay: they are known. Kubernetes has no such limit, so that anonymous
    /// users whom roles allow to watch may do so for longer there.
    pub async fn overstays(&self, unanswered: Duration, stay: Duration) {
        loop {
            match self.stranger_must_go_at(unanswered, stay) {
                None => self.0.asked.notified().await,
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::time::sleep_until(at).await,
            }
        }
    }

    fn stranger_must_go_at(&self, unanswered: Duration, stay: Duration) -> Option<Instant> {
        let held = self.0.held.lock();
        let PlaceState::Stranger { counted, beyond_share: None } = &*held else { return None };
        let stayed = counted.first_request()?.checked_add(stay);
        let answered = counted.oldest_request().and_then(|begun| begun.checked_add(unanswered));
        stayed.into_iter().chain(answered).min()
    }

    /// Whether nobody is known to hold it, or its user holds too many and there is no place to borrow.
    pub fn is_strangers(&self) -> bool {
        matches!(*self.0.held.lock(), PlaceState::Stranger { .. })
    }

    /// Whether a request may be under way, whose answer is to be sent before the connection ends: those of known users
    /// are not counted.
    pub fn is_asked(&self) -> bool {
        match &*self.0.held.lock() {
            PlaceState::Stranger { counted, .. } => counted.is_asked(),
            PlaceState::Borrowed { .. } | PlaceState::Known { .. } => true,
        }
    }

    /// Counts a request that has come, if the connection is still a stranger's.
    pub fn begin_request(&self) -> Option<StrangersRequest> {
        let held = self.0.held.lock();
        let PlaceState::Stranger { counted, .. } = &*held else { return None };
        let counted = counted.begin_request();
        drop(held);
        self.0.asked.notify_one();
        Some(StrangersRequest { of: self.clone(), _counted: counted })
    }
}

impl StrangersRequest {
    /// Whether it turned out whose connection this is: then nobody asks any more whether a request is under way.
    pub fn is_known(&self) -> bool {
        !self.of.is_strangers()
    }
}

#[cfg(test)]
mod tests;
