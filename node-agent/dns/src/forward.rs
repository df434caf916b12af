//! Names outside the cluster: which resolvers are queried, in which order, with which timeouts, and the response when
//! none answers.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};

use super::{
    cache::{Cache, Key},
    cached_response::CachedResponse,
    counters::{Counters, count},
    query::Query,
    resolv_conf::ResolvConfFile,
    response::{Response, Transport},
    upstream,
    zone::Zone,
};
use fairlead_serving::client_limit::{ClientLimit, ClientSlot};

/// Asks other resolvers, and caches what they say.
pub struct Forwarder {
    shared: Arc<Shared>,
}

/// What the tasks that ask hold on to.
struct Shared {
    cache: Cache,
    resolv_conf: ResolvConfFile,
    counters: Arc<Counters>,
    /// Questions being asked: who comes meanwhile with the same one waits for the same response. This also ends a loop
    /// through other resolvers: a question that comes back to us waits for itself, and all give up in time.
    asking: Mutex<HashMap<Key, watch::Receiver<Option<Answer>>>>,
    /// Which clients began them.
    begun_by: ClientLimit,
    /// Resolvers that failed lately are asked last.
    failed: Mutex<HashMap<SocketAddr, Instant>>,
    /// Stale responses that are given without asking until then (RFC 8767, section 5).
    resting: Mutex<HashMap<Key, Instant>>,
}

/// What asking gave: a response, or why there is none.
type Answer = Result<Arc<CachedResponse>, Arc<str>>;

impl Forwarder {
    /// `own` is where this server itself is asked, and never asks.
    pub fn new(resolv_conf: PathBuf, own: SocketAddrV4, counters: Arc<Counters>) -> Self {
        let shared = Shared {
            cache: Cache::new(CACHE_CAPACITY, CACHE_BYTES),
            resolv_conf: ResolvConfFile::new(resolv_conf, own),
            counters,
            asking: Mutex::default(),
            begun_by: ClientLimit::new(MAX_OF_ONE_CLIENT),
            failed: Mutex::default(),
            resting: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Writes a fresh response, or one that is resting, if the cache has it; false where it has not. One whose time is
    /// nearly over counts as missing for the one client that comes first, so that it is asked again before others have
    /// to wait.
    pub fn write_cached(&self, query: &Query<'_>, transport: Transport, out: &mut Vec<u8>) -> bool {
        let (key, now) = (Key::of(query), Instant::now());
        let Some(cached) = self.shared.cache.get(&key) else { return false };
        let fresh = cached.is_fresh(now);
        if fresh && cached.is_nearly_over(now) && !self.shared.asking.lock().contains_key(&key) {
            return false;
        }
        let resting = !fresh && self.shared.resting.lock().get(&key).is_some_and(|until| now < *until);
        if fresh || resting {
            count(if fresh { &self.shared.counters.cache_hits } else { &self.shared.counters.cache_stale });
            cached.write(query, now, transport, out);
        }
        fresh || resting
    }

    /// Queries the resolvers, and writes a response, a stale one, or SERVFAIL with the reason.
    pub async fn resolve(
        &self,
        query: &Query<'_>,
        zone: &Zone,
        client: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) {
        let key = Key::of(query);
        let cached = self.shared.cache.get(&key).filter(|cached| cached.is_usable_stale(Instant::now()));
        let mut asked = self.ask(&key, query, zone, client);
        let limit = if cached.is_some() { STALE_AFTER } else { GIVE_UP_AFTER };
        let answer = match timeout(limit, asked.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.clone().unwrap_or_else(|| Err("nothing was asked".into())),
            Ok(Err(_)) => Err("the question was given up".into()),
            Err(_) => Err("no resolver answered in time".into()),
        };
        let now = Instant::now();
        match (answer, cached) {
            (Ok(response), _) => response.write(query, now, transport, out),
            (Err(_), Some(stale)) => {
                let counter = if stale.is_fresh(now) {
                    &self.shared.counters.cache_hits
                } else {
                    &self.shared.counters.cache_stale
                };
                count(counter);
                self.shared.rest(key, now);
                stale.write(query, now, transport, out);
            }
            (Err(reason), None) => Response::start(query, transport, out).fail(&reason),
        }
    }

    /// The question as it is being asked, begun now for `client` unless someone has.
    fn ask(&self, key: &Key, query: &Query<'_>, zone: &Zone, client: IpAddr) -> watch::Receiver<Option<Answer>> {
        let mut asking = self.shared.asking.lock();
        if let Some(asked) = asking.get(key) {
            return asked.clone();
        }
        let (done, asked) = watch::channel(None);
        if asking.len() >= MAX_IN_FLIGHT {
            done.send_replace(Some(Err("too many questions are waiting for resolvers".into())));
            return asked;
        }
        let Some(slot) = self.shared.begun_by.take(client) else {
            done.send_replace(Some(Err("too many questions of this client are waiting for resolvers".into())));
            return asked;
        };
        asking.insert(key.clone(), asked.clone());
        drop(asking);
        let in_flight = InFlight { shared: self.shared.clone(), key: key.clone(), _slot: slot };
        count(&self.shared.counters.forwards);
        let resolvers = self.shared.resolv_conf.resolvers(Instant::now(), |address| zone.knows_address(address));
        let (shared, key) = (self.shared.clone(), key.clone());
        let (packet, question_len) = (query.for_upstream(rand::random()), query.question.len());
        tokio::spawn(async move {
            let answer = match &resolvers.problem {
                Some(problem) => Err(problem.to_string().into()),
                None => shared.ask_all(&resolvers.servers, packet, question_len).await,
            };
            match &answer {
                Ok(response) if matches!(response.code(), NO_ERROR | NX_DOMAIN) => {
                    shared.resting.lock().remove(&key);
                    shared.cache.insert(key.clone(), response.clone());
                }
                Ok(_) => (),
                Err(reason) => {
                    count(&shared.counters.forward_failures);
                    tracing::debug!(%reason, "a name outside the cluster could not be resolved");
                }
            }
            drop(in_flight);
            done.send_replace(Some(answer));
        });
        asked
    }
}

/// A question in [`Shared::asking`], which leaves it however its task ends: one that stayed would be waited for by all
/// who ask it later.
struct InFlight {
    shared: Arc<Shared>,
    key: Key,
    _slot: ClientSlot,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.asking.lock().remove(&self.key);
    }
}

impl Shared {
    /// Each resolver in turn, twice, those that failed lately last. A refusal or failure that a resolver reports is
    /// only given on when no other does better.
    async fn ask_all(&self, servers: &[SocketAddr], packet: Vec<u8>, question_len: usize) -> Answer {
        let (mut refusal, mut problem) = (None, Arc::from("no resolver answered"));
        let started = Instant::now();
        for timeout in RESOLVER_TIMEOUTS {
            for server in self.healthy_first(servers) {
                let left = GIVE_UP_AFTER.saturating_sub(started.elapsed());
                let response = upstream::ask(server, &packet, question_len, timeout.min(left)).await;
                let read = match response {
                    Ok(response) => CachedResponse::read(&response, question_len, Instant::now()),
                    Err(error) => {
                        self.failed.lock().insert(server, Instant::now());
                        problem = format!("resolver {server}: {error}").into();
                        continue;
                    }
                };
                match read.map(Arc::new) {
                    Some(response) if matches!(response.code(), NO_ERROR | NX_DOMAIN) => {
                        self.failed.lock().remove(&server);
                        return Ok(response);
                    }
                    Some(response) => refusal = Some(response),
                    None => problem = format!("resolver {server} gave a malformed response").into(),
                }
            }
            if refusal.is_some() {
                break;
            }
        }
        refusal.ok_or(problem)
    }

    fn healthy_first(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let failed = self.failed.lock();
        let mut servers = servers.to_vec();
        servers.sort_by_key(|server| failed.get(server).is_some_and(|at| at.elapsed() < FAILED_FOR));
        servers
    }

    fn rest(&self, key: Key, now: Instant) {
        let mut resting = self.resting.lock();
        resting.retain(|_, until| now < *until);
        resting.insert(key, now.checked_add(STALE_RECHECK_AFTER).unwrap_or(now));
    }
}

const NO_ERROR: u16 = 0;
const NX_DOMAIN: u16 = 3;

const CACHE_CAPACITY: usize = 10_000;
/// Usual responses have a few hundred bytes; over TCP one may have 64 KiB, and whoever owns a domain decides which.
const CACHE_BYTES: usize = 16 << 20;

/// Distinct questions asked at one time.
const MAX_IN_FLIGHT: usize = 2_000;
/// Of those, begun for one client.
const MAX_OF_ONE_CLIENT: usize = 200;

/// How long each resolver has, in the first and in the second round.
const RESOLVER_TIMEOUTS: [Duration; 2] = [Duration::from_millis(1200), Duration::from_millis(2000)];

/// Below the five seconds that clients wait, so that they get an error and not a timeout.
const GIVE_UP_AFTER: Duration = Duration::from_millis(4500);

/// How long a client waits before it gets a stale response (RFC 8767, section 5).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// How long a stale response is served without a new query, after a query failed (RFC 8767, section 5).
const STALE_RECHECK_AFTER: Duration = Duration::from_secs(30);
const FAILED_FOR: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;
    use crate::query;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2));

    /// Asks a resolver that never answers.
    struct Silent {
        forwarder: Forwarder,
        zone: Zone,
        _resolver: UdpSocket,
        _dir: tempfile::TempDir,
    }

    impl Silent {
        fn new() -> Self {
            let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("resolv.conf");
            let address = resolver.local_addr().unwrap();
            std::fs::write(&path, format!("nameserver [{}]:{}\n", address.ip(), address.port())).unwrap();
            let own = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
            let forwarder = Forwarder::new(path, own, Arc::default());
            let zone = Zone::new("cluster.local", Ipv4Addr::LOCALHOST).unwrap();
            Self { forwarder, zone, _resolver: resolver, _dir: dir }
        }

        fn ask(&self, name: &str, client: IpAddr) -> watch::Receiver<Option<Answer>> {
            let name = hickory_proto::rr::Name::from_ascii(name).unwrap();
            let mut message = hickory_proto::op::Message::query();
            message.add_query(hickory_proto::op::Query::query(name, hickory_proto::rr::RecordType::A));
            let packet = message.to_vec().unwrap();
            let query = query::parse(&packet).unwrap();
            self.forwarder.ask(&Key::of(&query), &query, &self.zone, client)
        }
    }

    #[tokio::test]
    async fn one_client_leaves_room_for_the_questions_of_others() {
        let silent = Silent::new();
        let refused = |asked: &watch::Receiver<Option<Answer>>| asked.borrow().is_some();
        let asked: Vec<_> = (0..MAX_IN_FLIGHT).map(|n| silent.ask(&format!("n{n}.example."), ONE)).collect();
        assert_eq!(asked.iter().filter(|asked| !refused(asked)).count(), MAX_OF_ONE_CLIENT);
        assert!(!refused(&silent.ask("www.example.", OTHER)));
        assert!(!refused(&silent.ask("www.example.", ONE)), "what another asks already is waited for");
    }

    #[test]
    fn a_question_whose_task_is_dropped_can_be_asked_again() {
        let silent = Silent::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = runtime.block_on(async { silent.ask("www.example.", ONE) });
        assert_eq!(silent.forwarder.shared.asking.lock().len(), 1);
        drop(runtime);
        assert!(silent.forwarder.shared.asking.lock().is_empty());
        assert!(silent.forwarder.shared.begun_by.take(ONE).is_some() && asked.has_changed().is_err());
    }
}
