//! The pod network of this node: addresses, veth pairs, routes to the other nodes' pods, masquerade to the outside.
//!
//! Every pod reaches every pod by its own address. There is no bridge and no ARP: a pod's veth ends on the node, which
//! routes. Service addresses are none of its business (see [`crate::proxy`]), and firewall rules of others are never
//! touched.

mod address_records;
mod attach;
mod bypass;
mod docker_user;
pub(crate) mod forwarding;
mod host_links;
pub(crate) mod inside;
mod kernel_events;
mod legacy_firewall;
mod masquerade;
mod netconf;
pub(crate) mod netlink;
mod nft;
mod pod_link;
mod program;
mod reconciler;
mod routes;
pub(crate) mod service_link;
mod source_filter;
mod subnet;
mod sysctl;
mod uplink;
mod vxlan;

#[cfg(test)]
pub(crate) mod namespaces;
#[cfg(test)]
mod tests;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnetwork::Ipv4Network;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::{
    address_records::RecordError,
    attach::Attacher,
    bypass::Bypass,
    kernel_events::KernelEvents,
    netlink::{Netlink, NetlinkError},
    nft::NftError,
    reconciler::{KernelCache, NetworkReconciler, SyncError, SyncFailures},
    source_filter::SourceFilter,
    subnet::SubnetError,
};
pub use self::{
    host_links::HostLinks,
    uplink::{Uplink, UplinkError, choose_uplinks, uplinks},
};
use crate::{Teardown, private_file, supervise::Supervisor, world::World};

/// What the pod lifecycle needs of the pod network. Both calls are idempotent: repeated after a crash they end in the
/// same state.
#[async_trait::async_trait]
pub trait PodNetwork: Send + Sync {
    /// Gives the network namespace at `netns` (`/proc/PID/ns/net`) its veth, address and routes, and returns the
    /// address. The same `pod_uid` gets the same address as long as it is attached, over restarts of the agent too.
    async fn attach(&self, pod_uid: &str, netns: &Path) -> Result<Ipv4Addr, AttachError>;

    /// Takes the veth away and gives the address back. Not an error where nothing is attached.
    async fn detach(&self, pod_uid: &str) -> Result<(), AttachError>;

    /// Detaches every pod that is not in `keep`: called once at start, after the running pods are known.
    async fn retain(&self, keep: &[String]) -> Result<(), AttachError>;
}

/// Why a pod could not be attached to the network, or detached from it.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct AttachError {
    /// What was tried, such as `let the pod by the firewall`.
    pub operation: String,
    /// The kernel's answer, or the file's.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Configuration of the pod network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Tells this node's own objects from those of its peers.
    pub node_name: String,
    /// `InternalIP` of this node: source address of the node towards its pods, and end of its VXLAN tunnels.
    pub node_ip: Ipv4Addr,
    /// Addresses of this node's pods; the first one is the gateway, held by the node itself.
    pub pod_cidr: Ipv4Network,
    /// Addresses of all nodes' pods: never masqueraded.
    pub cluster_cidr: Ipv4Network,
    /// ClusterIPs: never masqueraded.
    pub service_cidr: Ipv4Network,
    /// The agent's data directory; this part keeps its state in `network/` below it.
    pub data_dir: PathBuf,
}

/// Why the pod network could not start, or could not be taken down.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Name the node's address with `--node-ip`.
    #[error("no link found that leads to other hosts")]
    Uplink(#[source] UplinkError),
    /// The pod subnet that the control plane assigned is too small.
    #[error("cannot use the pod subnet")]
    Subnet(#[source] SubnetError),
    /// The records of addresses or settings, below the data directory.
    #[error("cannot use state directory {path}")]
    State { path: PathBuf, source: std::io::Error },
    /// A record of a pod's address can neither be read nor dropped.
    #[error("cannot use the records of the pods' addresses")]
    Records(#[from] RecordError),
    /// The kernel refused a link, an address or a route: mostly for want of CAP_NET_ADMIN.
    #[error("cannot set up the host's network")]
    Netlink(#[from] NetlinkError),
    /// `/proc/sys` is read-only, as in many containers.
    #[error("cannot change a kernel setting")]
    Sysctl(#[from] sysctl::SysctlError),
    /// Routes or tables could not be brought to what the cluster needs.
    #[error("cannot set up the host's network")]
    Sync(#[from] SyncError),
    /// nft is missing, or refused the table.
    #[error("cannot write the firewall tables of the pod network")]
    Firewall(#[from] NftError),
    /// Rules in Docker's chain could not be written.
    #[error("cannot write rules into Docker's firewall")]
    DockerUser(#[from] docker_user::DockerUserError),
}

/// The running pod network of one node.
pub struct Network {
    config: NetworkConfig,
    netlink: Netlink,
    attacher: Arc<Attacher>,
    bypass: Arc<Bypass>,
    source_filter: Arc<SourceFilter>,
    sysctls: Arc<sysctl::Sysctls>,
    problem: watch::Receiver<Option<SyncFailures>>,
    /// Has the reconciler look at the kernel.
    resync: Arc<Notify>,
    supervisor: Supervisor,
}

/// Brings up the node's own side (gateway address, forwarding) and starts to follow the other nodes in `world`.
///
/// Must run in the network namespace of the node, inside a tokio runtime whose threads are all in that namespace.
pub async fn start(config: NetworkConfig, world: watch::Receiver<Arc<World>>) -> Result<Network, NetworkError> {
    start_filtering(config, world, SourceFilter::default()).await
}

async fn start_filtering(
    config: NetworkConfig,
    world: watch::Receiver<Arc<World>>,
    source_filter: SourceFilter,
) -> Result<Network, NetworkError> {
    let state = config.data_dir.join("network");
    std::fs::create_dir_all(&state).map_err(|source| NetworkError::State { path: state.clone(), source })?;
    let netlink = Netlink::open()?;
    let links = HostLinks::read(&netlink).await?;
    let uplinks = choose_uplinks(&links, Some(config.node_ip)).map_err(NetworkError::Uplink)?;
    let sysctls = Arc::new(sysctl::Sysctls::open(state.join("sysctls.json"))?);
    let subnet = subnet::Subnet::new(config.pod_cidr).map_err(NetworkError::Subnet)?;
    assign_gateway(&netlink, &state.join("gateway"), subnet.gateway()).await?;
    let mtu = uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(ETHERNET_MTU);
    let attacher = Attacher::open(netlink.clone(), state.join("pods"), subnet, config.node_ip, mtu).await?;
    let attacher = Arc::new(attacher);

    // Subscribed before the first look at the kernel, so that no change is missed in between.
    let events = KernelEvents::open()?;
    let (bypass, source_filter) = (Arc::new(Bypass::default()), Arc::new(source_filter));
    let (publish_problem, problem) = watch::channel(None);
    let (for_each, netlink_for_each, attacher_for_each) = (config.clone(), netlink.clone(), attacher.clone());
    let (bypass_for_each, sysctls_for_each) = (bypass.clone(), sysctls.clone());
    let (source_filter_for_each, resync) = (source_filter.clone(), Arc::new(Notify::new()));
    let resync_for_each = resync.clone();
    let new_reconciler = move || NetworkReconciler {
        config: for_each.clone(),
        netlink: netlink_for_each.clone(),
        attacher: attacher_for_each.clone(),
        bypass: bypass_for_each.clone(),
        source_filter: source_filter_for_each.clone(),
        sysctls: sysctls_for_each.clone(),
        problem: publish_problem.clone(),
        resync: resync_for_each.clone(),
        cache: KernelCache::default(),
    };
    let mut first = new_reconciler();
    let snapshot = world.borrow().clone();
    let outcome = first.sync(&snapshot).await;
    first.report(&outcome);
    // Neither another node nor a single pod keeps this one from its work, and a kernel may refuse the filter for good:
    // what else failed is said, and tried again. Pods that run go on meanwhile, and no other starts without a filter.
    if let Some(error) = outcome.node.into_iter().next() {
        return Err(error.into());
    }
    let supervisor = Supervisor::new();
    let first = Mutex::new(Some((first, events)));
    supervisor.spawn("network", move |stop| {
        let (world, first, fresh) = (world.clone(), first.lock().take(), new_reconciler());
        async move {
            let (reconciler, events) = match first {
                Some(both) => both,
                // A restarted task begins without the cached kernel state of the one that failed.
                None => match KernelEvents::open_again() {
                    Ok(events) => (fresh, events),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        return tracing::warn!(error, "cannot listen to the kernel's network events");
                    }
                },
            };
            reconciler.run(world, events, stop).await;
        }
    });
    Ok(Network { config, netlink, attacher, bypass, source_filter, sysctls, problem, resync, supervisor })
}

/// Assigns `gateway` to the node, and removes the one of an earlier pod subnet, which the file `record` names.
async fn assign_gateway(netlink: &Netlink, record: &Path, gateway: Ipv4Addr) -> Result<(), NetworkError> {
    let loopback = netlink.loopback().await?;
    let earlier = std::fs::read_to_string(record).ok().and_then(|text| text.parse::<Ipv4Addr>().ok());
    if let Some(earlier) = earlier.filter(|earlier| *earlier != gateway) {
        netlink.remove_address(loopback, earlier).await?;
    }
    let failed = |source| NetworkError::State { path: record.to_owned(), source };
    private_file::write(record, gateway.to_string().as_bytes()).map_err(failed)?;
    Ok(netlink.ensure_address(loopback, gateway).await?)
}

impl Network {
    /// The node's own address in its pod subnet: next hop of its pods, where the node's DNS listens.
    pub fn gateway(&self) -> Ipv4Addr {
        self.attacher.gateway()
    }

    /// Why this node's network as a whole is not as the cluster needs it; `None` where it is.
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().as_ref().and_then(|failures| failures.network.clone())
    }

    /// What is wrong with the links of single pods and the ways to other nodes; `None` where nothing is.
    pub fn warning(&self) -> Option<String> {
        self.problem.borrow().as_ref().and_then(|failures| failures.parts.clone())
    }

    /// The tasks of this part.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Stops following the cluster. With [`Teardown::Remove`] takes down every pod's link and all else that this part
    /// added to the host, and restores the kernel settings it changed.
    pub async fn shutdown(&self, teardown: Teardown) -> Result<(), NetworkError> {
        self.supervisor.shutdown().await;
        if teardown == Teardown::Keep {
            return Ok(());
        }
        self.attacher.remove_all().await?;
        for route in self.netlink.routes().await?.iter().filter(|route| route.ours) {
            self.netlink.delete_route(route).await?;
        }
        vxlan::remove_device(&self.netlink).await?;
        self.bypass.remove().await?;
        self.source_filter.remove().await?;
        docker_user::remove().await?;
        nft::remove(masquerade::FAMILY).await?;
        self.netlink.remove_address(self.netlink.loopback().await?, self.gateway()).await?;
        self.sysctls.restore()?;
        let state = self.config.data_dir.join("network");
        std::fs::remove_dir_all(&state).map_err(|source| NetworkError::State { path: state, source })
    }
}

impl Network {
    /// A pod gets no link without the tables. One that has its link runs on without them, as it did: the reconciler
    /// says so, and tries again.
    fn tolerate_if_linked<E: std::error::Error + Send + Sync + 'static>(
        &self,
        (pod_uid, has_link): (&str, bool),
        operation: &str,
        error: E,
    ) -> Result<(), AttachError> {
        if !has_link {
            return Err(AttachError { operation: operation.into(), source: error.into() });
        }
        let error = &error as &dyn std::error::Error;
        tracing::warn!(pod_uid, error, "cannot {operation}: it runs on, and this is tried again");
        self.resync.notify_one();
        Ok(())
    }
}

#[async_trait::async_trait]
impl PodNetwork for Network {
    async fn attach(&self, pod_uid: &str, netns: &Path) -> Result<Ipv4Addr, AttachError> {
        // Before there is a link: one that is there was filtered when it was made, whatever came in between.
        self.attacher.reserve(pod_uid)?;
        if let Err(error) = self.source_filter.refresh(|| self.attacher.pods()).await {
            let has_link = self.attacher.has_link(pod_uid, netns).await?;
            self.tolerate_if_linked((pod_uid, has_link), "filter what the pod sends", error)?;
        }
        let attached = self.attacher.attach(pod_uid, netns).await?;
        let refreshed: Result<(), SyncError> = self.bypass.refresh(|| self.attacher.links()).await;
        if let Err(error) = refreshed {
            self.tolerate_if_linked((pod_uid, !attached.is_new), "let the pod by the firewall", error)?;
        }
        Ok(attached.address)
    }

    async fn detach(&self, pod_uid: &str) -> Result<(), AttachError> {
        self.attacher.detach(pod_uid).await
    }

    async fn retain(&self, keep: &[String]) -> Result<(), AttachError> {
        self.attacher.retain(keep).await
    }
}

/// Where no uplink says otherwise.
const ETHERNET_MTU: u32 = 1500;
