//! Which sockets listen: made and ended so that they are exactly those wanted.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use ipnetwork::Ipv4Network;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{balancer::Balancer, datagrams, is_stream, streams};
use crate::{client_limit::ClientLimit, proxy::service_netns::ServiceNetns, world::Protocol};

/// Where a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenAddress {
    /// In the host's namespace (a NodePort, a host port), not in that of the Service range.
    pub on_host: bool,
    /// Address and port that clients use.
    pub at: SocketAddrV4,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Who serves the clients of one address, by where they come from.
#[derive(Clone, Debug)]
pub struct ScopedBalancers {
    /// For clients on this node.
    pub internal: Option<Arc<Balancer>>,
    /// For clients outside; `None` where all are served alike.
    pub external: Option<Arc<Balancer>>,
    inside: Arc<Vec<Ipv4Network>>,
}

impl ScopedBalancers {
    /// Serves nobody yet; clients of the `inside` networks are internal.
    pub fn new(inside: Arc<Vec<Ipv4Network>>) -> Self {
        Self { internal: None, external: None, inside }
    }

    /// The balancer for a client. A ClusterIP has one policy for all.
    pub fn balancer(&self, client: Ipv4Addr) -> Option<&Arc<Balancer>> {
        let is_inside = self.inside.iter().any(|network| network.contains(client));
        match &self.external {
            Some(external) if !is_inside => Some(external),
            _ => self.internal.as_ref(),
        }
    }

    /// Whether any client would get a backend.
    pub fn serves(&self) -> bool {
        [&self.internal, &self.external].into_iter().flatten().any(|balancer| !balancer.is_empty())
    }

    fn is_same(&self, other: &Self) -> bool {
        let same = |a: &Option<Arc<Balancer>>, b: &Option<Arc<Balancer>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same(&self.internal, &other.internal) && same(&self.external, &other.external) && self.inside == other.inside
    }
}

/// The sockets that listen now.
pub struct Listeners {
    listening: BTreeMap<ListenAddress, Listener>,
    streams: ClientLimit,
    datagrams: ClientLimit,
}

/// Connections that one client may have, at all Services together: each takes two descriptors of the agent.
const MOST_STREAMS_OF_ONE: usize = 8192;
/// The same of conversations in datagrams.
const MOST_DATAGRAMS_OF_ONE: usize = 2048;

impl Default for Listeners {
    fn default() -> Self {
        Self {
            listening: BTreeMap::new(),
            streams: ClientLimit::new(MOST_STREAMS_OF_ONE),
            datagrams: ClientLimit::new(MOST_DATAGRAMS_OF_ONE),
        }
    }
}

struct Listener {
    balancers: tokio::sync::watch::Sender<ScopedBalancers>,
    stop: CancellationToken,
    /// What holds the socket.
    tasks: TaskTracker,
}

impl Listener {
    /// Returns once the socket is closed: from then on the kernel refuses.
    async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Listeners {
    /// Listens at what is `wanted` and nowhere else. Returns what could not be bound, which is tried again next time.
    pub async fn reconcile(
        &mut self,
        wanted: BTreeMap<ListenAddress, ScopedBalancers>,
        netns: &ServiceNetns,
    ) -> BTreeMap<ListenAddress, String> {
        let unwanted = self.listening.extract_if(.., |address, _| !wanted.contains_key(address));
        for (_, listener) in unwanted.collect::<Vec<_>>() {
            listener.close().await;
        }
        let mut problems = BTreeMap::new();
        for (address, balancers) in wanted {
            if let Some(listener) = self.listening.get(&address) {
                listener.balancers.send_if_modified(|held| {
                    let differs = !held.is_same(&balancers);
                    *held = balancers;
                    differs
                });
                continue;
            }
            match self.listen(address, balancers, netns) {
                Ok(listener) => drop(self.listening.insert(address, listener)),
                Err(error) => {
                    problems.insert(address, format!("listen at {} {:?}: {error}", address.at, address.protocol));
                }
            }
        }
        problems
    }

    fn listen(&self, address: ListenAddress, balancers: ScopedBalancers, netns: &ServiceNetns) -> io::Result<Listener> {
        let stop = CancellationToken::new();
        let (balancers_tx, balancers_rx) = tokio::sync::watch::channel(balancers);
        let tasks = TaskTracker::new();
        if is_stream(address.protocol) {
            let listener = netns.bind(address.on_host, move || streams::bind(address.at))?;
            tasks.spawn(streams::serve(listener, balancers_rx, self.streams.clone(), stop.clone()));
        } else {
            let socket = netns.bind(address.on_host, move || datagrams::bind(address.at))?;
            let limit = self.datagrams.clone();
            tasks.spawn(datagrams::serve(socket, balancers_rx, limit, tasks.clone(), stop.clone()));
        }
        Ok(Listener { balancers: balancers_tx, stop, tasks })
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.listening.values().for_each(|listener| listener.stop.cancel());
    }
}
