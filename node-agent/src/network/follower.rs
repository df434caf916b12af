//! Keeps the kernel's routes, tunnel and masquerade what the World asks for: after every change of the World, and whenever somebody
//! else changes links, addresses, our routes or our table.
//!
//! It decides nothing: see [`super::routes`], [`super::vxlan`], [`super::masquerade`].

use std::{sync::Arc, time::Duration};

use ipnetwork::Ipv4Network;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Config,
    attach::Attacher,
    host_links::HostLinks,
    kernel_events::KernelEvents,
    masquerade::{self, Masquerade, MasqueradeError},
    netlink::{Netlink, NetlinkError, Route},
    routes::{self, Me, Path, Routes},
    sysctl::{SysctlError, Sysctls},
    uplink::{UplinkError, choose_uplinks},
    vxlan,
};
use crate::world::World;

/// What could not be brought to what the World asks for.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("routes to other nodes")]
    Netlink(#[from] NetlinkError),
    #[error("links to other hosts")]
    Uplink(#[from] UplinkError),
    #[error("masquerade")]
    Masquerade(#[from] MasqueradeError),
    #[error("kernel setting")]
    Sysctl(#[from] SysctlError),
    #[error("forwarding on {DEVICE}", DEVICE = vxlan::DEVICE)]
    Forwarding(#[source] std::io::Error),
}

pub struct Follower {
    pub config: Config,
    pub netlink: Netlink,
    pub attacher: Arc<Attacher>,
    pub sysctls: Arc<Sysctls>,
    applied: Option<Masquerade>,
}

impl Follower {
    pub fn new(config: Config, netlink: Netlink, attacher: Arc<Attacher>, sysctls: Arc<Sysctls>) -> Self {
        Self { config, netlink, attacher, sysctls, applied: None }
    }

    /// Until `stop`. A failure is reported and tried again with back-off; what works goes on.
    pub async fn run(
        mut self,
        mut world: watch::Receiver<Arc<World>>,
        mut events: KernelEvents,
        stop: CancellationToken,
    ) {
        let mut back_off = FIRST_BACK_OFF;
        loop {
            if events.table_may_be_gone() && !masquerade::is_there().await.unwrap_or(false) {
                self.applied = None;
            }
            let snapshot = world.borrow_and_update().clone();
            let retry = match self.sync(&snapshot).await {
                Ok(()) => {
                    back_off = FIRST_BACK_OFF;
                    None
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the pod network is incomplete, trying again"
                    );
                    back_off = (back_off * 2).min(LAST_BACK_OFF);
                    Some(back_off)
                }
            };
            let again = async {
                match retry {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = world.changed() => if changed.is_err() { return },
                () = events.next() => (),
                () = again => (),
            }
        }
    }

    /// Before the World is complete, nothing is taken away.
    pub async fn sync(&mut self, world: &World) -> Result<(), SyncError> {
        let host = HostLinks::read(&self.netlink).await?;
        let uplinks = choose_uplinks(&host, Some(self.config.node_ip))?;
        for uplink in &uplinks {
            self.sysctls.set(&format!("net/ipv4/conf/{}/forwarding", uplink.name), "1")?;
        }
        let uplink_mtu = uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(super::ETHERNET_MTU);
        let me = Me {
            node_name: self.config.node_name.clone(),
            node_ip: self.config.node_ip,
            pod_cidr: self.config.pod_cidr,
        };
        let desired = routes::desired(world, &me, &host);
        let peers = vxlan::peers(&desired);
        let mut tunnel = None;
        if !peers.is_empty() {
            let device = vxlan::ensure_device(&self.netlink, me.node_ip, uplink_mtu).await?;
            // Of our own link, which takes the setting with it when it goes: nothing to record.
            let forwarding = format!("/proc/sys/net/ipv4/conf/{}/forwarding", vxlan::DEVICE);
            tokio::fs::write(forwarding, "1").await.map_err(SyncError::Forwarding)?;
            vxlan::sync_peers(&self.netlink, device.index, &peers, world.synced).await?;
            tunnel = Some(device.index);
        }
        self.attacher.set_mtu(if tunnel.is_some() { uplink_mtu.saturating_sub(vxlan::OVERHEAD) } else { uplink_mtu });
        self.sync_routes(&desired, tunnel, world.synced).await?;
        if tunnel.is_none() && world.synced {
            vxlan::remove_device(&self.netlink).await?;
        }
        self.attacher.repair().await?;
        self.sync_masquerade(&desired, world.synced).await
    }

    async fn sync_routes(&self, desired: &Routes, tunnel: Option<u32>, prune: bool) -> Result<(), NetlinkError> {
        let wanted: Vec<Route> = desired.iter().filter_map(|(cidr, route)| self.route(*cidr, route, tunnel)).collect();
        let held = self.netlink.routes().await?;
        let ours =
            || held.iter().filter(|route| route.ours && !self.config.pod_cidr.contains(route.destination.network()));
        for route in wanted.iter().filter(|route| !held.contains(route)) {
            tracing::info!(pods = %route.destination, through = ?route.gateway, "route to another node's pods");
            self.netlink.replace_route(route).await?;
        }
        for route in ours().filter(|held| prune && !wanted.iter().any(|w| w.destination == held.destination)) {
            tracing::info!(pods = %route.destination, "no route any more to another node's pods");
            self.netlink.delete_route(route).await?;
        }
        Ok(())
    }

    fn route(&self, destination: Ipv4Network, route: &routes::NodeRoute, tunnel: Option<u32>) -> Option<Route> {
        let (gateway, link, source) = match route.path {
            Path::Direct { link } => (route.node_ip, link, self.config.node_ip),
            // An address of our own pod subnet: only such answers come back through the tunnel, as strict reverse-path filters want.
            Path::Vxlan => (vxlan::next_hop(destination), tunnel?, self.attacher.gateway()),
        };
        let (gateway, link, source) = (Some(gateway), Some(link), Some(source));
        Some(Route { destination, gateway, link, source, metric: 0, ours: true })
    }

    async fn sync_masquerade(&mut self, desired: &Routes, synced: bool) -> Result<(), SyncError> {
        let mut wanted = Masquerade {
            pod_cidr: self.config.pod_cidr,
            cluster_cidr: self.config.cluster_cidr,
            service_cidr: self.config.service_cidr,
            nodes: routes::direct_nodes(desired),
        };
        if !synced && let Some(applied) = &self.applied {
            wanted.nodes.extend(&applied.nodes);
        }
        if self.applied.as_ref() != Some(&wanted) {
            masquerade::apply(&wanted).await?;
            self.applied = Some(wanted);
        }
        Ok(())
    }
}

const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LAST_BACK_OFF: Duration = Duration::from_secs(30);
