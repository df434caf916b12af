//! The host's firewalls, as far as they drop what pods' packets are: looked for, let by, or reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnetwork::Ipv4Network;

use super::{
    super::{
        bypass::ForwardingPaths,
        docker_user::{self, DockerUserError, Firewall},
        host_links::HostLinks,
        legacy_firewall::{self, LegacyFirewallError},
        masquerade, nft,
        routes::{Path, Routes},
        uplink::Uplink,
        vxlan,
    },
    NetworkReconciler, SyncError,
};

impl NetworkReconciler {
    /// Needed only where some chain drops forwarded packets.
    pub(super) async fn sync_bypass(
        &mut self,
        desired: &Routes,
        host: &HostLinks,
        uplinks: &[Uplink],
        tunnel_ends: BTreeSet<Ipv4Addr>,
    ) -> Result<(), SyncError> {
        let (of_nft, is_news) = match self.cache.dropping.clone() {
            Some(chains) => (chains, false),
            None => (nft::dropping_chains().await?, true),
        };
        // No event tells of the older firewall. Where it cannot be looked at, it counts as it last was.
        let looked = legacy_firewall::drops_forwarded().await;
        let dropped = self.cache.legacy_drops;
        self.report_legacy(looked.as_ref().err());
        if let Ok(drops) = looked {
            self.cache.legacy_drops = drops;
        }
        let mut chains = of_nft.clone();
        chains.extend(self.cache.legacy_drops.then(|| legacy_firewall::FORWARD.to_owned()));
        let paths = |tunnel_ends| ForwardingPaths { tunnel_ends, ..self.forwarding_paths(desired, host, uplinks) };
        self.bypass.set((!chains.is_empty()).then(|| paths(tunnel_ends))).await;
        let refreshed: Result<(), SyncError> = self.bypass.refresh(|| self.attacher.links()).await;
        refreshed?;
        // Nor can rules be written into one that cannot be looked at.
        if is_news || looked.is_ok() && (dropped || self.cache.legacy_drops) {
            let looked_at = |chain: &&String| looked.is_ok() || **chain != legacy_firewall::FORWARD;
            let chains: Vec<String> = chains.iter().filter(looked_at).cloned().collect();
            self.allow_forwarding(&chains).await?;
            // A chain that Docker is about to have asked is none of Docker's yet, and that it is asked no event tells:
            // it is looked for again.
            self.cache.dropping = self.cache.reported.is_empty().then_some(of_nft);
        }
        Ok(())
    }

    /// Says in the log, once, that the older firewall cannot be looked at. It is no problem of the node's: pods go on
    /// by what was known last.
    fn report_legacy(&mut self, error: Option<&LegacyFirewallError>) {
        if let Some(error) = error
            && !self.cache.legacy_is_unknown
        {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the host's older firewall counts as it last was");
        }
        self.cache.legacy_is_unknown = error.is_some();
    }

    fn forwarding_paths(&self, desired: &Routes, host: &HostLinks, uplinks: &[Uplink]) -> ForwardingPaths {
        let name = |index| host.links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let mut routes = BTreeMap::new();
        for (cidr, route) in desired {
            match route.path {
                Path::Direct { link } => {
                    let Some(link) = name(link) else { continue };
                    // The node itself too: what it sends to pods comes from this address, and so must the answers go
                    // there.
                    routes.insert(Ipv4Network::from(route.node_ip), (route.node_ip, link.clone()));
                    routes.insert(*cidr, (route.node_ip, link));
                }
                Path::Vxlan => {
                    routes.insert(*cidr, (vxlan::next_hop(*cidr), vxlan::DEVICE.to_owned()));
                }
            }
        }
        let mut links: BTreeSet<String> = uplinks.iter().map(|uplink| uplink.name.clone()).collect();
        links.extend(routes.values().map(|(_, link)| link.clone()));
        // Nodes that are reached directly may send by the tunnel all the same.
        links.insert(vxlan::DEVICE.to_owned());
        let nodes = desired.values().map(|route| Ipv4Network::from(route.node_ip));
        let sources = nodes.chain([self.config.cluster_cidr]).collect();
        ForwardingPaths { links, sources, routes, tunnel_ends: BTreeSet::new() }
    }

    /// Chains or rules changed, by others or by this agent: what [`KernelCache`] says of the kernel's tables may be
    /// stale.
    pub(super) async fn forget_firewall(&mut self) {
        if let Some(applied) = &self.cache.applied
            // One that cannot be looked at is written.
            && !masquerade::stands(applied).await.unwrap_or(false)
        {
            self.cache.applied = None;
        }
        self.bypass.forget_changed().await;
        self.source_filter.forget_changed().await;
        self.cache.dropping = None;
    }

    /// Lets pods' packets pass where the firewall that drops is Docker's; chains of others are reported in the log.
    async fn allow_forwarding(&mut self, chains: &[String]) -> Result<(), DockerUserError> {
        let mut closed = Vec::new();
        for chain in chains {
            let open = match Firewall::of_chain(chain) {
                Some(firewall) => docker_user::allow(firewall, self.config.pod_cidr).await?,
                None => false,
            };
            if !open {
                closed.push(chain.clone());
            }
        }
        if !closed.is_empty() && self.cache.reported != closed {
            tracing::warn!(
                chains = closed.join(", "),
                "a firewall on this host drops what is forwarded: pods reach each other past it, but not the outside; let it accept \
                 them, for example: iptables -I FORWARD -s {cidr} -j ACCEPT; iptables -I FORWARD -d {cidr} -j ACCEPT",
                cidr = self.config.pod_cidr,
            );
        }
        self.cache.reported = closed;
        Ok(())
    }
}
