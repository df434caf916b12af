//! The node's DNS server: names of the cluster from the World, all others from the host's resolvers.
//!
//! A query takes one of two paths. The fast path is a pure function over prepared records ([`answer`]) or a cached
//! response ([`cache`]), run by one thread a core on a socket of its own. What needs other servers, and all of TCP,
//! runs on tokio.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod answer;
mod cache;
mod cached_response;
mod counters;
mod forward;
mod name;
mod query;
mod record;
mod resolv_conf;
mod response;
mod server;
mod service_names;
mod service_records;
mod tcp;
mod udp;
mod udp_batch;
mod upstream;
mod zone;

#[cfg(test)]
#[path = "../../../tests/fuzzing.rs"]
mod fuzzing;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddrV4, path::PathBuf, sync::Arc};

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    counters::Counts,
    query::soa_query,
    service_names::{NamedEndpoint, RecordSet, ServiceNames},
};
use self::{server::Server, udp::UdpThreads, zone::Zone};
use fairlead_serving::supervise::Supervisor;
use fairlead_world::{ObjectName, World};

/// Configuration of the DNS server.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Address to serve on, UDP and TCP; on this host already. Port 0 takes any free one.
    pub listen: SocketAddrV4,
    /// The cluster's zone, such as `cluster.local`.
    pub cluster_domain: String,
    /// Names the resolvers for all other zones; read again when it changes.
    pub resolv_conf: PathBuf,
    /// For the log.
    pub node_name: String,
}

/// Why the DNS server could not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// Not a domain name.
    #[error("{0:?} is not a domain name")]
    ClusterDomain(String),
    /// Another program has the port, or this host does not have the address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where the server should listen.
        address: SocketAddrV4,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The running server.
pub struct Dns {
    server: Arc<Server>,
    udp: UdpThreads,
    supervisor: Supervisor,
    address: SocketAddrV4,
}

/// Serves `config.listen` from now on, following `world`. Until the World is synced, names of the cluster get SERVFAIL.
pub async fn start(config: DnsConfig, world: watch::Receiver<Arc<World>>) -> Result<Dns, DnsError> {
    let zone = Zone::new(&config.cluster_domain, *config.listen.ip())
        .ok_or_else(|| DnsError::ClusterDomain(config.cluster_domain.clone()))?;
    let failed = |source| DnsError::Listen { address: config.listen, source };
    let tcp = tokio::net::TcpListener::bind(config.listen).await.map_err(failed)?;
    // UDP on the same port, also where that was chosen by the kernel.
    let port = tcp.local_addr().map_err(failed)?.port();
    let address = SocketAddrV4::new(*config.listen.ip(), port);
    let server = Arc::new(Server::new(zone, address, &config.resolv_conf));
    let supervisor = Supervisor::new();
    let (hand_over, jobs) = tokio::sync::mpsc::channel(udp::MAX_WAITING);
    let udp = UdpThreads::start(address, &server, &hand_over, &supervisor.track("dns-udp")).map_err(failed)?;
    let (jobs, tcp) = (Arc::new(Mutex::new(jobs)), Arc::new(tcp));
    let at_work = server.clone();
    supervisor.spawn("dns-resolve", move |stop| udp::serve_jobs(at_work.clone(), jobs.clone(), stop));
    let at_work = server.clone();
    supervisor.spawn("dns-tcp", move |stop| tcp::serve(at_work.clone(), tcp.clone(), stop));
    let at_work = server.clone();
    supervisor.spawn("dns-zone", move |stop| follow(at_work.clone(), world.clone(), stop));
    tracing::info!(%address, node = config.node_name, "serving names");
    Ok(Dns { server, udp, supervisor, address })
}

/// The one writer of the zone.
async fn follow(server: Arc<Server>, mut world: watch::Receiver<Arc<World>>, stop: CancellationToken) {
    loop {
        let next = world.borrow_and_update().clone();
        server.update_zone(next);
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = world.changed() => changed,
        };
        if changed.is_err() {
            // No further snapshot comes: the zone stays as it is.
            return stop.cancelled().await;
        }
    }
}

/// Tells what the server says of a Service, and what it did. Cloning shares it.
#[derive(Clone)]
pub struct Names(Arc<Server>);

impl Names {
    /// Queries since the server's start, by what became of them.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }

    /// `None` where there is no such Service.
    pub fn of(&self, service: &ObjectName) -> Option<ServiceNames> {
        ServiceNames::of(&self.0.zone(), service)
    }
}

impl Dns {
    /// Where it is served.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// What it did since its start.
    pub fn counts(&self) -> Counts {
        self.server.counts()
    }

    /// Tells what it says of a Service.
    pub fn names(&self) -> Names {
        Names(self.server.clone())
    }

    /// Highest revision of the World that answers reflect.
    pub fn revision(&self) -> u64 {
        self.server.zone().revision()
    }

    /// The tasks of this part.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Stops serving; queries that wait for other servers are given up.
    pub async fn shutdown(self) {
        self.supervisor.shutdown().await;
        self.udp.stop();
    }
}
