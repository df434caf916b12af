//! Clients that are stuck to a backend which left them: their sockets are closed, so that they connect again, to another.
//!
//! A stream is closed when its backend is gone for good; a connected datagram socket as soon as its Service no longer picks the
//! backend, since it would send there for ever. Only sockets that the datapath itself led there are touched: the programs keep where
//! each was led. Closing is per network namespace, in all those of the processes under the hooks.

mod diag;
mod namespaces;

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use aya::maps::{HashMap, MapData};
use nix::sched::{CloneFlags, setns};
use proxy_ebpf::{Backend, BackendId, MemberKey, SetId, TCP, Translation, UDP};
use tracing::{debug, warn};

/// A backend that clients lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The set that no longer has it; `None`: no Service knows it any more.
    pub set: Option<SetId>,
    pub id: BackendId,
    pub backend: Backend,
}

/// Departures that mean something for the sockets of one protocol.
#[derive(Debug, Default)]
struct Lost {
    streams: BTreeSet<(BackendId, u32, u16)>,
    datagrams: BTreeSet<(SetId, BackendId)>,
}

impl Lost {
    fn add(&mut self, departure: &Departure) {
        let Backend { address_be, port_be, protocol, .. } = departure.backend;
        match (departure.set, protocol) {
            (None, TCP) => drop(self.streams.insert((departure.id, address_be, port_be))),
            (Some(set), UDP) => drop(self.datagrams.insert((set, departure.id))),
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.datagrams.is_empty()
    }

    fn strands_stream(&self, translation: &Translation) -> bool {
        let Translation { backend, backend_address_be, backend_port_be, .. } = *translation;
        self.streams.contains(&(backend, backend_address_be, backend_port_be))
    }

    fn strands_datagrams(&self, led_to: &MemberKey) -> bool {
        self.datagrams.contains(&(led_to.set, led_to.backend))
    }
}

/// The maps that tell where a socket was led.
pub struct LedSockets {
    /// Socket storage; sock_diag tells that of streams.
    pub streams: OwnedFd,
    /// By socket cookie.
    pub datagrams: HashMap<MapData, u64, MemberKey>,
}

/// The thread that closes sockets: a change of the maps never waits for it.
pub struct Resets {
    requests: SyncSender<Vec<Departure>>,
}

impl Resets {
    /// `cgroup` holds the processes whose sockets are looked at.
    pub fn start(sockets: LedSockets, cgroup: PathBuf) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(WAITING);
        std::thread::Builder::new().name("fairlead-resets".into()).spawn(move || run(inbox, &sockets, &cgroup))?;
        Ok(Self { requests })
    }

    /// Has the sockets closed that these departures strand. Waits only when far behind.
    pub fn request(&self, departures: Vec<Departure>) {
        if !departures.is_empty() && self.requests.send(departures).is_err() {
            warn!("the thread that resets clients has ended");
        }
    }
}

/// Changes that may wait for the thread.
const WAITING: usize = 256;

fn run(inbox: Receiver<Vec<Departure>>, sockets: &LedSockets, cgroup: &Path) {
    while let Ok(first) = inbox.recv() {
        let mut lost = Lost::default();
        first.iter().for_each(|departure| lost.add(departure));
        // What came meanwhile goes in the same walk.
        while let Ok(more) = inbox.try_recv() {
            more.iter().for_each(|departure| lost.add(departure));
        }
        if lost.is_empty() {
            continue;
        }
        // On a thread that ends with the walk: one that stayed would keep its last namespace alive after the pod.
        std::thread::scope(|scope| drop(scope.spawn(|| walk(&lost, sockets, cgroup)).join()));
    }
}

fn walk(lost: &Lost, sockets: &LedSockets, cgroup: &Path) {
    for namespace in namespaces::of_processes(cgroup) {
        let closed = setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .and_then(|()| diag::close_stranded(lost, sockets));
        match closed {
            Ok(0) => {}
            Ok(count) => debug!(count, "closed sockets whose backend is gone"),
            Err(error) => {
                warn!(%error, "clients of a backend that is gone may hang: their sockets cannot be closed")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(protocol: u8) -> Backend {
        Backend { address_be: 1, port_be: 2, protocol, flags: 0 }
    }

    fn translation(set: SetId, id: BackendId) -> Translation {
        Translation { backend_address_be: 1, backend_port_be: 2, set, backend: id, ..Translation::default() }
    }

    #[test]
    fn a_stream_outlives_its_backends_place_in_a_set_but_not_the_backend() {
        let mut lost = Lost::default();
        lost.add(&Departure { set: Some(7), id: 3, backend: backend(TCP) });
        assert!(lost.is_empty());
        lost.add(&Departure { set: None, id: 3, backend: backend(TCP) });
        assert!(lost.strands_stream(&translation(7, 3)));
        assert!(!lost.strands_stream(&translation(7, 4)), "another backend that had the address later");
    }

    #[test]
    fn datagrams_leave_with_the_set_that_led_them() {
        let mut lost = Lost::default();
        lost.add(&Departure { set: Some(7), id: 3, backend: backend(UDP) });
        assert!(lost.strands_datagrams(&MemberKey { set: 7, backend: 3 }));
        assert!(!lost.strands_datagrams(&MemberKey { set: 8, backend: 3 }), "another Service still picks it");
    }
}
