//! Closes the sockets of clients whose backend was removed, so that they connect again, to
//! another.
//!
//! A stream is closed when its backend is gone for good; a connected datagram socket as soon as its Service no longer
//! picks the backend, since it would send there for ever. One that connected while nobody served is closed when
//! somebody does: it sends to the address that refuses. Only sockets that the datapath itself led there are touched:
//! the programs keep where each was led. Closing is per network namespace, in all those of the processes under the
//! hooks.

mod diag;
mod namespaces;

use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use aya::maps::{HashMap, MapData};
use nix::sched::{CloneFlags, setns};
use proxy_ebpf::{Backend, BackendId, MemberKey, REFUSING_SET, SetId, TCP, Translation, UDP};
use tracing::{debug, error, warn};

use crate::supervise::describe_panic;

/// A backend that clients lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovedBackend {
    /// The set that no longer has it; `None`: no Service knows it any more.
    pub set: Option<SetId>,
    /// As the sockets' translations name it.
    pub id: BackendId,
    /// Address, port and protocol, by which the kernel's sockets are found.
    pub backend: Backend,
}

/// A UDP address that nobody served, and somebody does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServedAddress {
    /// IPv4, network order; [`LOOPBACK`] for all addresses of the loopback.
    pub address_be: u32,
    /// Network order.
    pub port_be: u16,
}

/// Stands for every address of the host's loopback, on all of which a node port is served.
pub const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Changes that leave clients with sockets that lead nowhere.
#[derive(Debug, Default)]
pub struct StrandingChanges {
    /// Backends that clients lost.
    pub removed: Vec<RemovedBackend>,
    /// Addresses that clients may have connected to in vain.
    pub served: BTreeSet<ServedAddress>,
}

/// Which sockets must be closed, for each kind of change.
#[derive(Debug, Default)]
struct RemovedBackends {
    streams: BTreeSet<(BackendId, u32, u16)>,
    datagrams: BTreeSet<(SetId, BackendId)>,
    served: BTreeSet<ServedAddress>,
}

impl RemovedBackends {
    fn add_all(&mut self, changes: StrandingChanges) {
        changes.removed.iter().for_each(|backend| self.add(backend));
        self.served.extend(changes.served);
    }

    fn add(&mut self, backend: &RemovedBackend) {
        let Backend { address_be, port_be, protocol, .. } = backend.backend;
        match (backend.set, protocol) {
            (None, TCP) => drop(self.streams.insert((backend.id, address_be, port_be))),
            (Some(set), UDP) => drop(self.datagrams.insert((set, backend.id))),
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.streams.is_empty() && !self.concerns_datagrams()
    }

    fn strands_stream(&self, translation: &Translation) -> bool {
        let Translation { backend, backend_address_be, backend_port_be, .. } = *translation;
        self.streams.contains(&(backend, backend_address_be, backend_port_be))
    }

    fn concerns_datagrams(&self) -> bool {
        !self.datagrams.is_empty() || !self.served.is_empty()
    }

    /// `port_be` is that of the socket's peer. One that is refused keeps the port that it connected to.
    fn strands_datagrams(&self, redirected_to: &MemberKey, port_be: u16) -> bool {
        if redirected_to.set == REFUSING_SET {
            let address_be = match Ipv4Addr::from(redirected_to.backend.to_ne_bytes()) {
                address if address.is_loopback() => u32::from_ne_bytes(LOOPBACK.octets()),
                _ => redirected_to.backend,
            };
            return self.served.contains(&ServedAddress { address_be, port_be });
        }
        self.datagrams.contains(&(redirected_to.set, redirected_to.backend))
    }
}

/// The maps that record to which backend each socket was redirected.
pub struct RedirectedSockets {
    /// Socket storage. sock_diag reports socket storage only for TCP.
    pub streams: OwnedFd,
    /// By socket cookie.
    pub datagrams: HashMap<MapData, u64, MemberKey>,
}

/// The thread that closes sockets: a change of the maps never waits for it.
pub struct SocketTerminator {
    requests: SyncSender<StrandingChanges>,
}

impl SocketTerminator {
    /// `cgroup` holds the processes whose sockets are looked at.
    pub fn start(sockets: RedirectedSockets, cgroup: PathBuf) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(WAITING);
        std::thread::Builder::new().name("fl-sock-destroy".into()).spawn(move || run(inbox, &sockets, &cgroup))?;
        Ok(Self { requests })
    }

    /// Closes the sockets that `changes` strand, on the thread. Blocks only while [`WAITING`] requests are queued.
    pub fn request(&self, changes: StrandingChanges) {
        let is_empty = changes.removed.is_empty() && changes.served.is_empty();
        if !is_empty && self.requests.send(changes).is_err() {
            warn!("the thread that closes sockets has ended");
        }
    }
}

/// Changes that may wait for the thread.
const WAITING: usize = 256;

fn run(inbox: Receiver<StrandingChanges>, sockets: &RedirectedSockets, cgroup: &Path) {
    while let Ok(first) = inbox.recv() {
        let mut lost = RemovedBackends::default();
        lost.add_all(first);
        // What came meanwhile goes in the same walk.
        while let Ok(more) = inbox.try_recv() {
            lost.add_all(more);
        }
        if lost.is_empty() {
            continue;
        }
        // On a thread that ends with the walk: one that stayed would keep its last namespace alive after the pod.
        let walked = std::thread::scope(|scope| scope.spawn(|| walk(&lost, sockets, cgroup)).join());
        if let Err(panic) = walked {
            error!(reason = describe_panic(&*panic), "clients of a backend that is gone may hang");
        }
    }
}

fn walk(lost: &RemovedBackends, sockets: &RedirectedSockets, cgroup: &Path) {
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
        let mut lost = RemovedBackends::default();
        lost.add(&RemovedBackend { set: Some(7), id: 3, backend: backend(TCP) });
        assert!(lost.is_empty());
        lost.add(&RemovedBackend { set: None, id: 3, backend: backend(TCP) });
        assert!(lost.strands_stream(&translation(7, 3)));
        assert!(!lost.strands_stream(&translation(7, 4)), "another backend that had the address later");
    }

    #[test]
    fn datagrams_leave_with_the_set_that_led_them() {
        let mut lost = RemovedBackends::default();
        lost.add(&RemovedBackend { set: Some(7), id: 3, backend: backend(UDP) });
        assert!(lost.strands_datagrams(&MemberKey { set: 7, backend: 3 }, 2));
        assert!(!lost.strands_datagrams(&MemberKey { set: 8, backend: 3 }, 2), "another Service still picks it");
    }

    #[test]
    fn datagrams_that_were_refused_leave_when_their_own_address_and_port_are_served() {
        let mut lost = RemovedBackends::default();
        let served = BTreeSet::from([ServedAddress { address_be: 5, port_be: 80 }]);
        lost.add_all(StrandingChanges { removed: Vec::new(), served });
        assert!(lost.strands_datagrams(&MemberKey { set: REFUSING_SET, backend: 5 }, 80));
        assert!(!lost.strands_datagrams(&MemberKey { set: REFUSING_SET, backend: 5 }, 81), "still not served");
        assert!(!lost.strands_datagrams(&MemberKey { set: REFUSING_SET, backend: 6 }, 80), "another Service");
        assert!(!lost.strands_datagrams(&MemberKey { set: 7, backend: 5 }, 80), "led to a backend");
    }
}
