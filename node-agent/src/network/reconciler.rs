//! Keeps the kernel's routes, tunnel and masquerade equal to what the World asks for: after every change of its nodes,
//! and whenever somebody else changes links, addresses, our routes or our table.
//!
//! It decides nothing: see [`super::routes`], [`super::vxlan`], [`super::masquerade`], [`super::bypass`],
//! [`super::source_filter`], [`super::docker_user`].

mod firewalls;

use std::{collections::HashSet, sync::Arc, time::Duration};

use ipnetwork::Ipv4Network;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    NetworkConfig,
    attach::{Attacher, RepairError},
    bypass::Bypass,
    docker_user::DockerUserError,
    forwarding,
    host_links::HostLinks,
    kernel_events::KernelEvents,
    legacy_firewall::LegacyFirewallError,
    masquerade::{self, Masquerade},
    netlink::{Netlink, NetlinkError, Route},
    nft::{self, NftError},
    routes::{self, LocalNode, Path, Routes, UnroutableNodes},
    service_link,
    source_filter::{SourceFilter, tunnel_ends},
    sysctl::{SysctlError, Sysctls},
    uplink::{Uplink, UplinkError, choose_uplinks},
    vxlan,
};
use crate::world::World;

/// What could not be brought to what the World asks for.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Links, routes or neighbours.
    #[error("cannot set up routes to other nodes")]
    Netlink(#[from] NetlinkError),
    /// No link leads to other hosts now.
    #[error("cannot find links to other hosts")]
    Uplink(#[from] UplinkError),
    /// Our own tables.
    #[error("cannot write the firewall tables of the pod network")]
    Firewall(#[from] NftError),
    /// A kernel without the family `arp` refuses one of them for good.
    #[error("cannot keep pods to their own addresses")]
    SourceFilter(#[source] super::source_filter::FilterError),
    /// Whether the kernel's older firewall drops what is forwarded is not known.
    #[error("cannot look at the kernel's older firewall")]
    LegacyFirewall(#[from] LegacyFirewallError),
    /// Rules in Docker's chain.
    #[error("cannot write rules into Docker's firewall")]
    DockerUser(#[from] DockerUserError),
    /// The node's side of pods' links.
    #[error("cannot restore the links of pods")]
    Repair(#[from] RepairError),
    /// A setting of a link.
    #[error("cannot change a kernel setting")]
    Sysctl(#[from] SysctlError),
    /// The setting of a link of our own.
    #[error("cannot enable forwarding on {link}")]
    Forwarding { link: &'static str, source: std::io::Error },
}

/// What failed as the kernel was brought to a World. No part keeps another from being tried that does not need it.
#[derive(Debug, Default)]
pub struct SyncOutcome {
    /// What this node needs for any pod: links to other hosts, forwarding, masquerade. Without them an agent does not
    /// start.
    pub node: Vec<SyncError>,
    /// What concerns all pods of this node, and a host's kernel or firewall may refuse for good: the node is not ready,
    /// since no others start, or none reaches the outside.
    pub pods: Vec<SyncError>,
    /// What concerns single pods or other nodes, and what pods come and go without: no reason to take this node's pods
    /// away.
    pub rest: Vec<SyncError>,
}

impl SyncOutcome {
    /// What failed.
    pub fn errors(&self) -> impl Iterator<Item = &SyncError> {
        self.node.iter().chain(&self.pods).chain(&self.rest)
    }

    fn of_node<T>(&mut self, result: Result<T, impl Into<SyncError>>) -> Option<T> {
        result.map_err(|error| self.node.push(error.into())).ok()
    }

    fn of_pods<T>(&mut self, result: Result<T, impl Into<SyncError>>) -> Option<T> {
        result.map_err(|error| self.pods.push(error.into())).ok()
    }

    fn of_rest<T>(&mut self, result: Result<T, impl Into<SyncError>>) -> Option<T> {
        result.map_err(|error| self.rest.push(error.into())).ok()
    }
}

/// What failed at the last sync, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFailures {
    /// Why the network of this node as a whole is not as the cluster needs it.
    pub network: Option<String>,
    /// What is wrong with single pods and other nodes.
    pub parts: Option<String>,
}

impl SyncFailures {
    fn of(outcome: &SyncOutcome) -> Option<Self> {
        fn texts<'a>(errors: impl Iterator<Item = &'a SyncError>) -> Option<String> {
            let texts: Vec<String> = errors.map(|error| crate::error_chain(error)).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        let failures =
            Self { network: texts(outcome.node.iter().chain(&outcome.pods)), parts: texts(outcome.rest.iter()) };
        (failures.network.is_some() || failures.parts.is_some()).then_some(failures)
    }
}

/// Keeps the kernel's side of the pod network equal to the World.
pub struct NetworkReconciler {
    /// As the agent was told at its start.
    pub config: NetworkConfig,
    /// A socket into the host's network namespace.
    pub netlink: Netlink,
    /// Knows the pods' links.
    pub attacher: Arc<Attacher>,
    /// Forwarding paths past firewalls that drop what is not theirs.
    pub bypass: Arc<Bypass>,
    /// Keeps pods to their own addresses.
    pub source_filter: Arc<SourceFilter>,
    /// Kernel settings with the values they had before.
    pub sysctls: Arc<Sysctls>,
    /// What failed at the last attempt; `None` after one that succeeded.
    pub problem: watch::Sender<Option<SyncFailures>>,
    /// Notified where something failed that the next sync may mend.
    pub resync: Arc<Notify>,
    /// Survives failures; only success is remembered.
    pub cache: KernelCache,
}

/// Cache of the kernel's state, so that unchanged parts are not written again. Empty at first.
#[derive(Default)]
pub struct KernelCache {
    applied: Option<Masquerade>,
    /// Chains of others that drop what is forwarded; not known before the first look, nor after the firewall changed.
    dropping: Option<Vec<String>>,
    /// The kernel's older firewall drops, too.
    legacy_drops: bool,
    /// It could not be looked at, as reported to the log.
    legacy_is_unknown: bool,
    /// Those of them that still drop packets of pods, as reported to the log.
    reported: Vec<String>,
    /// Nodes without a route, as reported to the log.
    unroutable: UnroutableNodes,
}

impl NetworkReconciler {
    /// Until `stop`, or until the kernel's events end. A failure is reported and tried again with back-off; what works
    /// goes on.
    pub async fn run(
        mut self,
        mut world: watch::Receiver<Arc<World>>,
        mut events: KernelEvents,
        stop: CancellationToken,
    ) {
        let (mut back_off, resync) = (FIRST_BACK_OFF, self.resync.clone());
        loop {
            if events.firewall_changed() {
                self.forget_firewall().await;
            }
            let snapshot = world.borrow_and_update().clone();
            let outcome = self.sync(&snapshot).await;
            self.report(&outcome);
            let (wait, quiet) = if outcome.errors().next().is_none() {
                back_off = FIRST_BACK_OFF;
                (RESYNC, Duration::ZERO)
            } else {
                back_off = back_off.saturating_mul(2).min(LAST_BACK_OFF);
                (back_off, back_off.min(QUIET_AFTER_FAILURE))
            };
            // What a sync that fails has changed wakes nobody at once: it would be an endless loop.
            let told = async { tokio::join!(events.next(), tokio::time::sleep(quiet)).0 };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = concerning_change(&mut world, &snapshot) => {
                    if changed.is_err() || stop.run_until_cancelled(tokio::time::sleep(DEBOUNCE)).await.is_none() {
                        return;
                    }
                }
                told = told => if let Err(error) = told {
                    let error = &error as &dyn std::error::Error;
                    return tracing::warn!(error, "listening to the kernel's network events anew");
                },
                () = resync.notified() => (),
                () = tokio::time::sleep(wait) => (),
            }
        }
    }

    /// Says in the log and in [`Self::problem`] what failed.
    pub fn report(&self, outcome: &SyncOutcome) {
        for error in outcome.errors() {
            tracing::warn!(error = error as &dyn std::error::Error, "the pod network is incomplete, trying again");
        }
        let problem = SyncFailures::of(outcome);
        self.problem.send_if_modified(|held| {
            let differs = *held != problem;
            *held = problem;
            differs
        });
    }

    /// The filter first: it needs neither links nor routes, and pods send whether these are there or not. Removes
    /// nothing before the World is complete.
    pub async fn sync(&mut self, world: &World) -> SyncOutcome {
        let mut outcome = SyncOutcome::default();
        let ends = tunnel_ends(world, &self.config.node_name);
        let prune = world.allows_removal();
        let filtered = self.source_filter.reconcile(ends.clone(), prune, || self.attacher.pods()).await;
        if let Err(error) = filtered {
            let concerned = if error.is_of_packets() { &mut outcome.pods } else { &mut outcome.rest };
            concerned.push(SyncError::SourceFilter(error));
        }
        let Some(host) = outcome.of_node(HostLinks::read(&self.netlink).await) else { return outcome };
        let me = LocalNode {
            node_name: self.config.node_name.clone(),
            node_ip: self.config.node_ip,
            pod_cidr: self.config.pod_cidr,
            cluster_cidr: self.config.cluster_cidr,
        };
        let (desired, unroutable) = routes::desired(world, &me, &host);
        self.report_unroutable(unroutable);
        let uplinks = outcome.of_node(choose_uplinks(&host, Some(self.config.node_ip)));
        for uplink in uplinks.iter().flatten() {
            outcome.of_node(self.sysctls.set(&format!("net/ipv4/conf/{}/forwarding", uplink.name), "1"));
        }
        if let Some(uplinks) = &uplinks {
            self.sync_nodes(&desired, uplinks, prune, &mut outcome).await;
        }
        outcome.of_rest(self.attacher.repair().await);
        outcome.of_rest(service_link::keep_forwarding().await.map_err(forwarding_of(service_link::NAME)));
        outcome.of_node(self.sync_masquerade(&desired, prune).await);
        if let Some(uplinks) = &uplinks {
            outcome.of_pods(self.sync_bypass(&desired, &host, uplinks, ends).await);
        }
        outcome
    }

    /// The ways to other nodes: tunnel and routes.
    async fn sync_nodes(&self, desired: &Routes, uplinks: &[Uplink], prune: bool, outcome: &mut SyncOutcome) {
        let uplink_mtu = uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(super::ETHERNET_MTU);
        let peers = vxlan::peers(desired);
        // Also without peers of our own: a node that is on one of our links may not see us on one of its own, as where
        // its prefix is longer, and tunnels to us then.
        let tunnel = if desired.is_empty() { None } else { outcome.of_rest(self.ensure_tunnel(uplink_mtu).await) };
        if let Some(tunnel) = tunnel {
            outcome.of_rest(vxlan::sync_peers(&self.netlink, tunnel, &peers, prune).await);
        }
        // While the World is not complete there may be peers that are not known: pods keep what the tunnel takes.
        let may_tunnel = !peers.is_empty() || !prune && vxlan::has_peers(&self.netlink).await.unwrap_or(true);
        let overhead = if may_tunnel { vxlan::OVERHEAD } else { 0 };
        self.attacher.set_mtu(uplink_mtu.saturating_sub(overhead));
        outcome.of_rest(self.sync_routes(desired, tunnel, prune).await);
        if desired.is_empty() && prune {
            outcome.of_rest(vxlan::remove_device(&self.netlink).await);
        }
    }

    /// The tunnel's device, by its index.
    async fn ensure_tunnel(&self, uplink_mtu: u32) -> Result<u32, SyncError> {
        let device = vxlan::ensure_device(&self.netlink, self.config.node_ip, uplink_mtu).await?;
        forwarding::enable(vxlan::DEVICE).await.map_err(forwarding_of(vxlan::DEVICE))?;
        Ok(device.index)
    }

    /// Names in the log, once, the nodes that get no route.
    fn report_unroutable(&mut self, unroutable: UnroutableNodes) {
        for (node, why) in unroutable.iter().filter(|(node, why)| self.cache.unroutable.get(*node) != Some(*why)) {
            tracing::warn!(%node, %why, "no route to the pods of a node");
        }
        self.cache.unroutable = unroutable;
    }

    /// Each route for itself; the error is the first one's.
    async fn sync_routes(&self, desired: &Routes, tunnel: Option<u32>, prune: bool) -> Result<(), NetlinkError> {
        let wanted: Vec<Route> = desired.iter().filter_map(|(cidr, route)| self.route(*cidr, route, tunnel)).collect();
        let held = self.netlink.routes().await?;
        let ours =
            || held.iter().filter(|route| route.ours && !self.config.pod_cidr.contains(route.destination.network()));
        // A cluster may have thousands of nodes.
        let is_held: HashSet<&Route> = held.iter().collect();
        let replaceable: HashSet<Ipv4Network> = ours().map(|route| route.destination).collect();
        let mut done = Ok(());
        for route in wanted.iter().filter(|route| !is_held.contains(route)) {
            tracing::info!(pods = %route.destination, through = ?route.gateway, "route to another node's pods");
            // Another's that came in this moment is not replaced: the next sync finds it.
            done = done.and(match replaceable.contains(&route.destination) {
                true => self.netlink.replace_route(route).await,
                false => self.netlink.add_route(route).await,
            });
        }
        // Also one through a tunnel that could not be looked at is wanted.
        for route in ours().filter(|held| prune && !desired.contains_key(&held.destination)) {
            tracing::info!(pods = %route.destination, "no route any more to another node's pods");
            done = done.and(self.netlink.delete_route(route).await);
        }
        done
    }

    fn route(&self, destination: Ipv4Network, route: &routes::NodeRoute, tunnel: Option<u32>) -> Option<Route> {
        let (gateway, link, source) = match route.path {
            Path::Direct { link } => (route.node_ip, link, self.config.node_ip),
            // An address of our own pod subnet: only such answers come back through the tunnel, as strict reverse-path
            // filters want.
            Path::Vxlan => (vxlan::next_hop(destination), tunnel?, self.attacher.gateway()),
        };
        let (gateway, link, source) = (Some(gateway), Some(link), Some(source));
        Some(Route { destination, gateway, link, source, metric: 0, ours: true })
    }

    async fn sync_masquerade(&mut self, desired: &Routes, prune: bool) -> Result<(), SyncError> {
        let mut wanted = Masquerade {
            pod_cidr: self.config.pod_cidr,
            gateway: self.attacher.gateway(),
            cluster_cidr: self.config.cluster_cidr,
            service_cidr: self.config.service_cidr,
            nodes: routes::direct_nodes(desired),
        };
        if !prune && let Some(applied) = &self.cache.applied {
            wanted.nodes.extend(&applied.nodes);
        }
        if self.cache.applied.as_ref() != Some(&wanted) {
            nft::apply(&masquerade::table(&wanted)).await?;
            self.cache.applied = Some(wanted);
        }
        Ok(())
    }
}

fn forwarding_of(link: &'static str) -> impl Fn(std::io::Error) -> SyncError {
    move |source| SyncError::Forwarding { link, source }
}

const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LAST_BACK_OFF: Duration = Duration::from_secs(30);
/// After a sync that failed, the kernel's events count from then on.
const QUIET_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Between two looks at the kernel while it reports nothing: some changes are told by no event, and events get lost.
const RESYNC: Duration = Duration::from_secs(30);
/// Nodes come in bursts, as a cluster grows: one sync serves all that change in this time.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Waits until the World differs from `synced` in what the pod network is made from: the nodes, and whether what is not
/// there may be removed. Changes of Services and endpoints pass by.
async fn concerning_change(
    world: &mut watch::Receiver<Arc<World>>,
    synced: &World,
) -> Result<(), watch::error::RecvError> {
    let concerns = |new: &World| !new.nodes.ptr_eq(&synced.nodes) || new.allows_removal() != synced.allows_removal();
    loop {
        world.changed().await?;
        if concerns(&world.borrow_and_update()) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::world::{Node, ObjectName, Service, ServiceKind};

    #[tokio::test]
    async fn a_service_wakes_no_sync_and_a_node_or_a_complete_world_does() {
        let (publish, mut world) = watch::channel(Arc::new(World::default()));
        let synced = world.borrow().clone();
        let woken = |world: &mut watch::Receiver<Arc<World>>, synced: &World| {
            concerning_change(world, synced).now_or_never().is_some()
        };
        let mut next = (*synced).clone();
        for number in 0..100 {
            let name = ObjectName::new("default", format!("web-{number}"));
            next.services.insert(name.clone(), Arc::new(Service::new(name, ServiceKind::Headless, vec![])));
            publish.send_replace(Arc::new(next.clone()));
            assert!(!woken(&mut world, &synced));
        }
        next.nodes.insert("b".into(), Arc::new(Node::from(&k8s_openapi::api::core::v1::Node::default())));
        publish.send_replace(Arc::new(next.clone()));
        assert!(woken(&mut world, &synced));
        publish.send_replace(Arc::new(World { synced: true, ..next.clone() }));
        assert!(woken(&mut world, &next));
    }
}
