//! The Service datapath of this node: World and host ports → [`table`] → [`image`] → maps, and the programs that read
//! them.
//!
//! One thread owns the maps. It publishes the table it works from and, once the kernel has all of it, the World's
//! revision.
//!
//! ```text
//! World ──► table ──► image ──► diff ──► maps ◄── programs (connect, sendmsg, uplink …)
//!  HostPorts ─┘                            ▲
//!                                          └── held: read back at the start and by `inspect`
//! ```
//!
//! Glossary:
//! - **table**: every Service and host port with its frontends, their candidates, and the excluded endpoints with the
//!   reason ([`table::ServiceTable`]). The same for every datapath.
//! - **frontend**: an address, port, protocol and scope that clients connect to; **backend**: an endpoint's address and
//!   port.
//! - **image**: the exact map entries that one Service of the table asks for ([`image::ServiceImage`]).
//! - **head**: a frontend's one entry in `SERVICES`. It names a set and its generation, so that one write replaces all
//!   backends.
//! - **set**: the backends that one or more frontends share; immutable within a **generation**.
//! - **slot**: position `1..=count` of a set's generation in `SLOTS`, naming one backend by its id.
//! - **member**: a (set, backend) pair in `MEMBERS`, kept while connections to that backend may go on.
//! - **held**: what the maps contain now, as opposed to what the table asks for ([`image::Held`]).
//!
//! Files: `table/` what should be, `image/` as map entries, `map_reconciler.rs` diff and order of writes, `maps/` the
//! maps themselves, `load/` programs and pins, `kernel.rs` and `userspace/` the two datapaths, `active_datapath.rs` the
//! choice, `sockets/` stranded clients, `clients.rs` affinity by pod address, `service_netns.rs` a namespace for
//! userspace listeners and for what is refused. To inspect: `fairlead inspect service NAME`, `GET /inspect/datapath`,
//! `/metrics`.

mod active_datapath;
mod clients;
pub mod image;
mod kernel;
mod load;
mod map_reconciler;
mod maps;
mod metrics;
mod netns;
mod service_netns;
mod sockets;
pub mod table;
mod userspace;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
};

use active_datapath::ActiveDatapath;
use ipnetwork::Ipv4Network;
pub use load::LoadError;
pub use maps::{HeldBackend, HeldFrontend, MapError, MapUsage};
pub use metrics::ProxyMetrics;
use proxy_ebpf::ServiceKey;
use table::{ServiceTable, ThisNode};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::{
    Teardown,
    config::DatapathChoice,
    supervise::{Supervisor, TaskHealth, keep_serving},
    world::{HostPorts, World},
};

/// What the datapath is told at its start.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The World's name of this node.
    pub node_name: String,
    /// Which datapath to use, or to find out.
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
    /// This agent's own server, and the control service's where the agent was told its address: no Service and no pod
    /// takes them.
    pub reserved: BTreeSet<SocketAddrV4>,
}

/// Which datapath serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// Programs and maps in the kernel.
    Ebpf,
    /// Listeners in a network namespace.
    Userspace {
        /// Why it is not eBPF, for people.
        reason: String,
    },
}

/// Why the datapath could not be started, asked or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// This kernel or container forbids BPF; `--datapath auto` goes on without.
    #[error("cannot start the eBPF datapath")]
    Load(#[from] LoadError),
    /// The pinned maps of an earlier agent are damaged: stop the agent, and remove the pins.
    #[error("cannot read what the kernel's maps hold")]
    Maps(#[from] MapError),
    /// A thread, a socket or a namespace could not be made.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Mostly for want of CAP_NET_ADMIN.
    #[error("cannot set up the network namespace of the Service range")]
    Netlink(#[from] crate::network::netlink::NetlinkError),
    /// The datapath was shut down before it answered.
    #[error("the datapath thread has ended")]
    Ended,
}

/// The running datapath. Dropping it leaves the kernel as it is.
#[derive(Clone)]
pub struct Proxy {
    applied: watch::Receiver<u64>,
    state: watch::Receiver<State>,
    commands: mpsc::Sender<Command>,
    metrics: ProxyMetrics,
    supervisor: Supervisor,
}

/// What the datapath thread publishes.
#[derive(Clone, Debug)]
struct State {
    table: ServiceTable,
    datapath: Datapath,
    progress: Progress,
    problems: Arc<[String]>,
}

/// How far the datapath has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing is served: no table came yet, and no earlier agent left one.
    Empty,
    /// The kernel serves what an earlier agent left; no table came yet.
    Adopted,
    /// A table came: it is served but for the problems.
    Applied,
}

enum Command {
    Held(Vec<ServiceKey>, oneshot::Sender<Result<Vec<Option<HeldFrontend>>, ProxyError>>),
    Usage(oneshot::Sender<Result<Vec<MapUsage>, ProxyError>>),
    Shutdown(Teardown, oneshot::Sender<Result<(), ProxyError>>),
}

/// Starts the datapath. Returns once the programs are loaded; serving starts with the first complete World and host
/// ports.
pub async fn start(
    config: ProxyConfig,
    world: watch::Receiver<Arc<World>>,
    host_ports: watch::Receiver<HostPorts>,
) -> Result<Proxy, ProxyError> {
    let (started, outcome) = oneshot::channel();
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let (supervisor, metrics) = (Supervisor::new(), ProxyMetrics::default());
    let (health, for_thread) = (supervisor.track("datapath"), metrics.clone());
    let runtime = tokio::runtime::Handle::current();
    let thread = move || match runtime.block_on(ActiveDatapath::start(&config)) {
        Ok(datapath) => {
            let (state_tx, state) = watch::channel(State::of(&datapath));
            let (applied_tx, applied) = watch::channel(0);
            let node = ThisNode {
                name: config.node_name.as_str().into(),
                addresses: config.node_ips.iter().copied().collect(),
                dns: config.cluster_dns,
                reserved: config.reserved.clone(),
            };
            if started.send(Ok((applied, state))).is_ok() {
                let (applied, state) = (applied_tx, state_tx);
                let worker = Worker { node, world, host_ports, inbox, applied, state, metrics: for_thread };
                serve(worker, datapath, &config, &runtime, &health);
            }
        }
        Err(error) => drop(started.send(Err(error))),
    };
    std::thread::Builder::new()
        .name("fairlead-proxy".into())
        .spawn(thread)
        .map_err(|source| ProxyError::Io { operation: "start the datapath thread", source })?;
    let (applied, state) = outcome.await.map_err(|_| ProxyError::Ended)??;
    Ok(Proxy { applied, state, commands, metrics, supervisor })
}

/// Runs `worker` on this thread; where it panics, the datapath is started again and adopts what the maps hold.
fn serve(
    mut worker: Worker,
    first: ActiveDatapath,
    config: &ProxyConfig,
    runtime: &tokio::runtime::Handle,
    health: &TaskHealth,
) {
    let start = || runtime.block_on(ActiveDatapath::start(config));
    keep_serving(health, first, start, |datapath| {
        worker.state.send_replace(State::of(&datapath));
        runtime.block_on(worker.run(datapath));
    });
}

impl State {
    fn of(datapath: &ActiveDatapath) -> Self {
        let progress = if datapath.holds_nothing() { Progress::Empty } else { Progress::Adopted };
        Self { table: ServiceTable::default(), datapath: datapath.datapath(), progress, problems: Arc::new([]) }
    }
}

const COMMANDS: usize = 16;

impl Proxy {
    /// The [`World::revision`] that the kernel serves now; 0 before the first.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Waits until the first complete World is served, or as much of it as can be: what cannot is among the
    /// [`Proxy::problems`].
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

    /// Which datapath serves.
    pub fn datapath(&self) -> Datapath {
        self.state.borrow().datapath.clone()
    }

    /// Why the kernel is not as the table says; empty when it is.
    pub fn problems(&self) -> Arc<[String]> {
        self.state.borrow().problems.clone()
    }

    /// Whether the kernel serves nothing yet: neither a table of this agent nor what an earlier one left.
    pub fn is_empty(&self) -> bool {
        self.state.borrow().progress == Progress::Empty
    }

    /// Why the datapath does not serve all that it should; `None` when it does.
    pub fn failure(&self) -> Option<String> {
        if self.state.has_changed().is_err() {
            return Some("the datapath thread has ended".to_owned());
        }
        let state = self.state.borrow();
        match state.progress {
            Progress::Empty => Some("no Service is served yet".to_owned()),
            _ if !state.problems.is_empty() => Some(state.problems.join("; ")),
            _ => None,
        }
    }

    /// Durations of this datapath's work.
    pub fn metrics(&self) -> &ProxyMetrics {
        &self.metrics
    }

    /// The thread of this part.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// What serves each of the frontends at this moment: read from the kernel's own maps, not from what was meant to be
    /// there.
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

/// What the thread that owns the datapath works with; the datapath itself is made anew after a panic.
struct Worker {
    node: ThisNode,
    world: watch::Receiver<Arc<World>>,
    host_ports: watch::Receiver<HostPorts>,
    inbox: mpsc::Receiver<Command>,
    applied: watch::Sender<u64>,
    state: watch::Sender<State>,
    metrics: ProxyMetrics,
}

impl Worker {
    /// Runs until it is told to shut down, or every handle was dropped.
    async fn run(&mut self, mut active: ActiveDatapath) {
        // Nothing can be removed too early where nothing is: Services then need not wait for the API, nor for the pods.
        let started_empty = active.holds_nothing();
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
                        return drop(done.send(active.shutdown(teardown).await));
                    }
                    Some(command) => { answer(&active, command); continue }
                    // Every handle was dropped: the kernel keeps serving what it holds.
                    None => return,
                },
                changed = self.world.changed(), if world_goes_on => if changed.is_err() { world_goes_on = false; continue },
                changed = self.host_ports.changed(), if pods_go_on => if changed.is_err() { pods_go_on = false; continue },
                () = active.resolve_unknown_clients() => continue,
                () = tokio::time::sleep(RETRY), if failing => {}
            }
            let world = self.world.borrow_and_update().clone();
            let host_ports = self.host_ports.borrow_and_update().clone();
            let removes_only_what_is_gone = world.allows_removal() && host_ports.synced;
            if world.synced && (started_empty || removes_only_what_is_gone) {
                self.apply(&mut active, &mut table, &seen, &world, &host_ports).await;
                seen = world;
            }
        }
    }

    async fn apply(
        &mut self,
        active: &mut ActiveDatapath,
        table: &mut ServiceTable,
        seen: &World,
        world: &World,
        host_ports: &HostPorts,
    ) {
        let started = std::time::Instant::now();
        let (services, mut changed) = table.advance(seen, world, &self.node);
        let (next, changed_pods) = services.with_host_ports(host_ports, &self.node);
        changed.extend(changed_pods);
        *table = next;
        let outcome = active.apply(table, &changed).await;
        if *self.state.borrow().problems != *outcome.problems {
            outcome.problems.iter().for_each(|problem| warn!(problem, "a part of the Services is not served"));
        }
        self.state.send_modify(|state| {
            state.table = table.clone();
            state.progress = Progress::Applied;
            state.problems = outcome.problems.into();
        });
        self.metrics.synced(started.elapsed());
        if outcome.served {
            self.applied.send_replace(table.revision);
            self.metrics.programmed(seen, world, jiff::Timestamp::now());
        }
    }
}

/// Replies to a request; a requester that no longer waits is no error.
fn answer(active: &ActiveDatapath, command: Command) {
    match command {
        Command::Held(keys, reply) => drop(reply.send(active.held(&keys))),
        Command::Usage(reply) => drop(reply.send(active.usage())),
        Command::Shutdown(..) => unreachable!("handled by the loop, which it ends"),
    }
}

/// Between attempts to write what could not be written.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests;
