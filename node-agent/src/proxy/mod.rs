//! The Service datapath of this node: World and host ports → [`table`] → [`image`] → maps, and the programs that read them.
//!
//! One thread owns the maps. It publishes the table it works from and, once the kernel has all of it, the World's revision.

mod clients;
mod engine;
pub mod image;
mod kernel;
mod load;
mod maps;
mod netns;
mod sockets;
mod sync;
pub mod table;
mod userspace;

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
};

use engine::Engine;
use ipnetwork::Ipv4Network;
pub use load::LoadError;
pub use maps::{HeldBackend, HeldFrontend, MapError, MapUsage};
use proxy_ebpf::ServiceKey;
use table::{ServiceTable, ThisNode};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::{
    Teardown,
    config::DatapathChoice,
    world::{HostPorts, World},
};

/// What the datapath is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub datapath: DatapathChoice,
    /// The cgroup2 directory for the socket hooks: the cgroup2 root by default.
    pub cgroup: Option<PathBuf>,
    /// Directory on a bpffs for pins.
    pub bpf_pins: PathBuf,
    /// The cluster DNS address, and the server on this node that answers it.
    pub cluster_dns: Option<(Ipv4Addr, SocketAddrV4)>,
    /// Interfaces through which clients outside this node come.
    pub uplinks: Vec<String>,
    /// Where this node's NodePorts answer, beside the addresses of its Node object. The first is the node's own.
    pub node_ips: Vec<Ipv4Addr>,
    /// What is in here and no Service is refused; `None` leaves it alone.
    pub service_cidr: Option<Ipv4Network>,
}

/// Which datapath serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datapath {
    Ebpf,
    Userspace { reason: String },
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("start the eBPF datapath")]
    Load(#[from] LoadError),
    #[error("read what the kernel's maps hold")]
    Maps(#[from] MapError),
    #[error("{operation}")]
    Io { operation: &'static str, source: std::io::Error },
    #[error("give the Service range a place")]
    Netlink(#[from] crate::network::netlink::NetlinkError),
    #[error("the datapath thread has ended")]
    Ended,
}

/// The running datapath. Dropping it leaves the kernel as it is.
#[derive(Clone)]
pub struct Proxy {
    applied: watch::Receiver<u64>,
    state: watch::Receiver<State>,
    commands: mpsc::Sender<Command>,
}

/// What the datapath thread publishes.
#[derive(Clone, Debug)]
struct State {
    table: ServiceTable,
    datapath: Datapath,
    problems: Arc<[String]>,
}

enum Command {
    Held(Vec<ServiceKey>, oneshot::Sender<Result<Vec<Option<HeldFrontend>>, ProxyError>>),
    Usage(oneshot::Sender<Result<Vec<MapUsage>, ProxyError>>),
    Shutdown(Teardown, oneshot::Sender<Result<(), ProxyError>>),
}

/// Starts the datapath. Returns once the programs are loaded; serving starts with the first complete World and host ports.
pub async fn start(
    config: Config,
    world: watch::Receiver<Arc<World>>,
    host_ports: watch::Receiver<HostPorts>,
) -> Result<Proxy, ProxyError> {
    let (started, outcome) = oneshot::channel();
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("fairlead-proxy".into())
        .spawn(move || match runtime.block_on(Engine::start(&config)) {
            Ok(engine) => {
                let node = ThisNode {
                    name: config.node_name.as_str().into(),
                    addresses: config.node_ips.iter().copied().collect(),
                    dns: config.cluster_dns,
                };
                let state =
                    State { table: ServiceTable::default(), datapath: engine.datapath(), problems: Arc::new([]) };
                let (state_tx, state_rx) = watch::channel(state);
                let (applied_tx, applied_rx) = watch::channel(0);
                if started.send(Ok((applied_rx, state_rx))).is_ok() {
                    let worker =
                        Worker { engine, node, world, host_ports, inbox, applied: applied_tx, state: state_tx };
                    runtime.block_on(worker.run());
                }
            }
            Err(error) => drop(started.send(Err(error))),
        })
        .map_err(|source| ProxyError::Io { operation: "start the datapath thread", source })?;
    let (applied, state) = outcome.await.map_err(|_| ProxyError::Ended)??;
    Ok(Proxy { applied, state, commands })
}

const COMMANDS: usize = 16;

impl Proxy {
    /// The [`World::revision`] that the kernel serves now; 0 before the first.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Waits until the first complete World is served, or as much of it as can be: what cannot is among the [`Proxy::problems`].
    pub async fn first_served(&self) -> Result<(), ProxyError> {
        let (mut applied, mut state) = (self.applied.clone(), self.state.clone());
        tokio::select! {
            served = applied.changed() => served.map_err(|_| ProxyError::Ended),
            tried = state.wait_for(|state| !state.problems.is_empty()) => tried.map(drop).map_err(|_| ProxyError::Ended),
        }
    }

    /// The table that is served, or about to be.
    pub fn table(&self) -> ServiceTable {
        self.state.borrow().table.clone()
    }

    pub fn datapath(&self) -> Datapath {
        self.state.borrow().datapath.clone()
    }

    /// Why the kernel is not as the table says; empty when it is.
    pub fn problems(&self) -> Arc<[String]> {
        self.state.borrow().problems.clone()
    }

    /// What serves each of the frontends at this moment: read from the kernel's own maps, not from what was meant to be there.
    pub async fn held(&self, keys: Vec<ServiceKey>) -> Result<Vec<Option<HeldFrontend>>, ProxyError> {
        self.request(|reply| Command::Held(keys, reply)).await
    }

    /// How full the maps are; empty where the datapath has none.
    pub async fn usage(&self) -> Result<Vec<MapUsage>, ProxyError> {
        self.request(Command::Usage).await
    }

    /// Stops. [`Teardown::Keep`] leaves the kernel serving what it has.
    pub async fn shutdown(&self, teardown: Teardown) -> Result<(), ProxyError> {
        self.request(|done| Command::Shutdown(teardown, done)).await
    }

    async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ProxyError>>) -> Command,
    ) -> Result<T, ProxyError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| ProxyError::Ended)?;
        answer.await.map_err(|_| ProxyError::Ended)?
    }
}

/// The thread that owns the datapath.
struct Worker {
    engine: Engine,
    node: ThisNode,
    world: watch::Receiver<Arc<World>>,
    host_ports: watch::Receiver<HostPorts>,
    inbox: mpsc::Receiver<Command>,
    applied: watch::Sender<u64>,
    state: watch::Sender<State>,
}

impl Worker {
    async fn run(mut self) {
        let mut seen = Arc::new(World::default());
        let mut table = ServiceTable::default();
        let (mut world_goes_on, mut pods_go_on) = (true, true);
        self.world.mark_changed();
        loop {
            let failing = !self.state.borrow().problems.is_empty();
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(Command::Shutdown(teardown, done)) => {
                        return drop(done.send(self.engine.shutdown(teardown).await));
                    }
                    Some(command) => { self.answer(command); continue }
                    // Nobody can ask or stop it any more: the kernel goes on with what it has.
                    None => return,
                },
                changed = self.world.changed(), if world_goes_on => if changed.is_err() { world_goes_on = false; continue },
                changed = self.host_ports.changed(), if pods_go_on => if changed.is_err() { pods_go_on = false; continue },
                () = self.engine.serve_questions() => continue,
                () = tokio::time::sleep(RETRY), if failing => {}
            }
            let world = self.world.borrow_and_update().clone();
            let host_ports = self.host_ports.borrow_and_update().clone();
            if world.synced && host_ports.synced {
                self.apply(&mut table, &seen, &world, &host_ports).await;
                seen = world;
            }
        }
    }

    /// Replies to who asked; one that no longer waits is no error.
    fn answer(&self, command: Command) {
        match command {
            Command::Held(keys, reply) => drop(reply.send(self.engine.held(&keys))),
            Command::Usage(reply) => drop(reply.send(self.engine.usage())),
            Command::Shutdown(..) => unreachable!("handled by the loop, which it ends"),
        }
    }

    async fn apply(&mut self, table: &mut ServiceTable, seen: &World, world: &World, host_ports: &HostPorts) {
        let (services, mut changed) = table.advance(seen, world, &self.node);
        let (next, changed_pods) = services.with_host_ports(host_ports, &self.node);
        changed.extend(changed_pods);
        *table = next;
        let outcome = self.engine.apply(table, &changed).await;
        if *self.state.borrow().problems != *outcome.problems {
            outcome.problems.iter().for_each(|problem| warn!(problem, "a part of the Services is not served"));
        }
        self.state.send_modify(|state| {
            state.table = table.clone();
            state.problems = outcome.problems.into();
        });
        if outcome.served {
            self.applied.send_replace(table.revision);
        }
    }
}

/// Between attempts to write what could not be written.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// An error with its sources, on one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
