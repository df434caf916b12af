//! Picks a backend for a client, remembers affinity, and says when a backend is gone. Knows no socket.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proxy_ebpf::Counters;
use tokio_util::sync::CancellationToken;

use super::is_stream;
use crate::{proxy::table::Selection, world::Protocol};

/// The backends of one selection.
#[derive(Debug)]
pub struct Balancer {
    protocol: Protocol,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the table's order.
    picked: Vec<Backend>,
    /// No longer picked, but still there for open streams.
    draining: Vec<Backend>,
    next: usize,
    affinity_timeout: Option<Duration>,
    affinity: HashMap<Ipv4Addr, (SocketAddrV4, Instant)>,
    unserved: u64,
}

#[derive(Clone, Debug)]
struct Backend {
    at: SocketAddrV4,
    counters: Counters,
    /// Cancelled when connections to it must end.
    gone: CancellationToken,
}

/// A backend for one connection.
#[derive(Clone, Debug)]
pub struct Picked {
    /// Where to connect.
    pub at: SocketAddrV4,
    /// Cancelled when the backend leaves for good, and its connections with it.
    pub gone: CancellationToken,
}

/// What a balancer would pick from now.
pub struct HeldBackends {
    /// Each with its counters, in the order of the rotation.
    pub backends: Vec<(SocketAddrV4, Counters)>,
    /// Connections and datagrams that found no backend.
    pub unserved: u64,
}

impl Balancer {
    /// A balancer without backends.
    pub fn new(protocol: Protocol) -> Arc<Self> {
        Arc::new(Self { protocol, state: Mutex::default() })
    }

    /// Takes over another list of backends. Connections to those that are gone end; datagrams leave one that is not
    /// picked.
    pub fn update(&self, selection: &Selection, affinity_timeout: Option<Duration>) {
        let state = &mut *self.state.lock();
        let mut known: HashMap<SocketAddrV4, Backend> = HashMap::new();
        for backend in state.picked.drain(..).chain(state.draining.drain(..)) {
            known.insert(backend.at, backend);
        }
        for candidate in &selection.backends {
            let at = SocketAddrV4::new(candidate.address, candidate.port);
            let new = || Backend { at, counters: Counters::default(), gone: CancellationToken::new() };
            state.picked.push(known.remove(&at).unwrap_or_else(new));
        }
        if is_stream(self.protocol) {
            let draining = selection.excluded.iter().filter(|excluded| excluded.reason.keeps_connections());
            let at = draining.filter_map(|excluded| Some(SocketAddrV4::new(excluded.address, excluded.port?)));
            state.draining.extend(at.filter_map(|at| known.remove(&at)));
        }
        known.values().for_each(|backend| backend.gone.cancel());
        state.affinity_timeout = affinity_timeout;
    }

    /// A backend for `client`, other than those that were `tried`; `None` where there is none.
    pub fn pick(&self, client: Ipv4Addr, tried: &[SocketAddrV4], now: Instant) -> Option<Picked> {
        let state = &mut *self.state.lock();
        let kept = state.affine(client, now).filter(|place| !tried.contains(&state.picked[*place].at));
        let count = state.picked.len();
        let turn =
            (0..count).map(|step| (state.next + step) % count).find(|place| !tried.contains(&state.picked[*place].at));
        let Some(place) = kept.or(turn) else {
            state.unserved += 1;
            return None;
        };
        if kept.is_none() {
            state.next = place + 1;
        }
        let backend = &mut state.picked[place];
        backend.counters.picks += 1;
        backend.counters.affine += u64::from(kept.is_some());
        let picked = Picked { at: backend.at, gone: backend.gone.clone() };
        if state.affinity_timeout.is_some() {
            state.remember(client, picked.at, now);
        }
        Some(picked)
    }

    /// Whether no backend would be picked.
    pub fn is_empty(&self) -> bool {
        self.state.lock().picked.is_empty()
    }

    /// The backends now, with their counters.
    pub fn held(&self, _now: Instant) -> HeldBackends {
        let state = self.state.lock();
        HeldBackends {
            backends: state.picked.iter().map(|backend| (backend.at, backend.counters)).collect(),
            unserved: state.unserved,
        }
    }

    /// The Service is gone. Streams go on, datagrams end.
    pub fn close(&self) {
        let state = self.state.lock();
        if !is_stream(self.protocol) {
            state.picked.iter().for_each(|backend| backend.gone.cancel());
        }
    }
}

impl State {
    fn affine(&self, client: Ipv4Addr, now: Instant) -> Option<usize> {
        let (at, last_used) = self.affinity.get(&client)?;
        let holds = now.saturating_duration_since(*last_used) <= self.affinity_timeout?;
        self.picked.iter().position(|backend| backend.at == *at).filter(|_| holds)
    }

    /// Bounded: of too many clients those whose affinity has ended go, or all.
    fn remember(&mut self, client: Ipv4Addr, at: SocketAddrV4, now: Instant) {
        if self.affinity.len() >= CLIENTS {
            let timeout = self.affinity_timeout.unwrap_or_default();
            self.affinity.retain(|_, (_, last_used)| now.saturating_duration_since(*last_used) <= timeout);
            if self.affinity.len() >= CLIENTS {
                self.affinity.clear();
            }
        }
        self.affinity.insert(client, (at, now));
    }
}

/// Clients with affinity that one selection remembers.
const CLIENTS: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::table::{Candidate, SelectionName, SelectionPolicy};

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 9);

    fn selection(hosts: &[u8]) -> Selection {
        let candidate = |host: &u8| Candidate {
            address: Ipv4Addr::new(10, 0, 0, *host),
            port: 80,
            node: None,
            zone: None,
            pod: None,
            local: true,
            terminating: false,
        };
        let name = SelectionName { port_name: "".into(), protocol: Protocol::Tcp, policy: SelectionPolicy::EveryNode };
        Selection { name, backends: hosts.iter().map(candidate).collect(), excluded: Vec::new(), elsewhere: false }
    }

    #[test]
    fn backends_take_turns_and_a_tried_one_is_left_out() {
        let balancer = Balancer::new(Protocol::Tcp);
        balancer.update(&selection(&[1, 2]), None);
        let now = Instant::now();
        let mut hosts: Vec<_> = (0..4).map(|_| balancer.pick(CLIENT, &[], now).unwrap().at.ip().octets()[3]).collect();
        hosts.sort();
        assert_eq!(hosts, [1, 1, 2, 2]);
        let first = balancer.pick(CLIENT, &[], now).unwrap().at;
        let second = balancer.pick(CLIENT, &[first], now).unwrap().at;
        assert_ne!(first, second);
        assert!(balancer.pick(CLIENT, &[first, second], now).is_none());
    }

    #[test]
    fn affinity_holds_until_its_timeout_or_until_the_backend_goes() {
        let balancer = Balancer::new(Protocol::Tcp);
        let timeout = Duration::from_secs(10);
        balancer.update(&selection(&[1, 2, 3]), Some(timeout));
        let start = Instant::now();
        let first = balancer.pick(CLIENT, &[], start).unwrap();
        assert_eq!(balancer.pick(CLIENT, &[], start + timeout).unwrap().at, first.at);
        assert_ne!(balancer.pick(CLIENT, &[], start + timeout * 3).unwrap().at, first.at);
        balancer.update(&selection(&[9]), Some(timeout));
        assert!(first.gone.is_cancelled());
        assert_eq!(balancer.pick(CLIENT, &[], start + timeout * 3).unwrap().at.ip().octets()[3], 9);
    }
}
