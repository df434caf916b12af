//! The datapath for machines without eBPF: the same table, served by listeners.
//!
//! ClusterIPs and external IPs are served in a network namespace of their own, which accepts the whole Service range
//! and has a listener for each frontend with backends: what has no listener is refused by the kernel. NodePorts and
//! host ports listen on the node's addresses. No firewall rule is needed and no other port of the host is taken. It
//! ends with the agent, and leaves nothing.
//!
//! What it cannot do: keep a client's address, and drop instead of refuse.

mod balancer;
mod datagrams;
mod listeners;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Instant,
};

use balancer::Balancer;
use ipnetwork::Ipv4Network;
use listeners::{ListenAddress, Listeners, ScopedBalancers};
use proxy_ebpf::{Backend, Counters, ServiceHead, ServiceKey};
use tracing::info;

use super::{
    HeldBackend, HeldFrontend, ProxyConfig, ProxyError,
    active_datapath::ApplyOutcome,
    image::{address_be, key_of},
    service_netns::ServiceNetns,
    table::{FrontendAddress, FrontendOwner, Scope, SelectionName, ServiceTable},
};
use crate::world::Protocol;

/// The userspace datapath.
pub struct Userspace {
    reason: String,
    netns: ServiceNetns,
    balancers: HashMap<(FrontendOwner, SelectionName), Arc<Balancer>>,
    /// Which balancer serves a frontend.
    frontends: HashMap<ServiceKey, Arc<Balancer>>,
    listeners: Listeners,
}

impl Userspace {
    /// Makes the network namespace; nothing listens yet. `reason` says why this datapath serves.
    pub async fn start(config: &ProxyConfig, reason: String) -> Result<Self, ProxyError> {
        let netns = ServiceNetns::make(config.service_cidr, config.node_ips.first().copied()).await?;
        info!(reason, "serving Services in userspace");
        Ok(Self {
            reason,
            netns,
            balancers: HashMap::new(),
            frontends: HashMap::new(),
            listeners: Listeners::default(),
        })
    }

    /// Why it is not eBPF.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Serves `table`, of which `changed` differs from the last.
    pub async fn apply(&mut self, table: &ServiceTable, changed: &BTreeSet<FrontendOwner>) -> ApplyOutcome {
        let names: BTreeSet<&FrontendOwner> = changed.iter().collect();
        self.balancers.retain(|(name, selection), balancer| {
            let kept = !names.contains(name) || has_selection(table, name, selection);
            if !kept {
                balancer.close();
            }
            kept
        });
        for service in changed.iter().filter_map(|name| table.services.get(name)) {
            for frontend in &service.frontends {
                let key = (service.owner.clone(), frontend.selection.name.clone());
                let balancer = self.balancers.entry(key).or_insert_with(|| Balancer::new(frontend.protocol)).clone();
                balancer.update(&frontend.selection, service.affinity);
            }
        }
        self.rebuild_frontends(table);
        self.listen(table).await
    }

    /// What serves each frontend at this moment.
    pub fn held(&self, keys: &[ServiceKey]) -> Vec<Option<HeldFrontend>> {
        keys.iter().map(|key| self.frontends.get(key).map(|balancer| held(key, balancer))).collect()
    }

    /// Ends every listener and connection and takes the namespace away.
    pub async fn shutdown(self) -> Result<(), ProxyError> {
        drop(self.listeners);
        self.balancers.values().for_each(|balancer| balancer.close());
        self.netns.remove().await
    }

    fn rebuild_frontends(&mut self, table: &ServiceTable) {
        self.frontends.clear();
        for service in table.services.values() {
            for frontend in &service.frontends {
                let key = (service.owner.clone(), frontend.selection.name.clone());
                if let Some(balancer) = self.balancers.get(&key) {
                    // Of two Services that claim one frontend the first has it, as in the maps.
                    self.frontends.entry(key_of(frontend)).or_insert_with(|| balancer.clone());
                }
            }
        }
    }

    /// Listens where a frontend has backends, and nowhere else.
    async fn listen(&mut self, table: &ServiceTable) -> ApplyOutcome {
        let mut wanted: BTreeMap<ListenAddress, ScopedBalancers> = BTreeMap::new();
        let mut outside = BTreeSet::new();
        let inside = Arc::new(inside(table));
        let mut of_pods = BTreeSet::new();
        let frontends = table.services.values().flat_map(|entry| entry.frontends.iter().map(|f| (&entry.owner, f)));
        for (owner, frontend) in frontends {
            let Some(balancer) = self.frontends.get(&key_of(frontend)) else { continue };
            let addresses = match frontend.address {
                FrontendAddress::ClusterIp(address) | FrontendAddress::External(address) => {
                    if !self.netns.has(address) {
                        outside.insert(address);
                    }
                    vec![(false, address)]
                }
                FrontendAddress::HostIp(address) => vec![(true, address)],
                FrontendAddress::EveryNode | FrontendAddress::ThisNode => {
                    node_addresses(table).map(|address| (true, address)).collect()
                }
            };
            for (on_host, ip) in addresses {
                let address =
                    ListenAddress { on_host, at: SocketAddrV4::new(ip, frontend.port), protocol: frontend.protocol };
                if owner.is_pod() {
                    of_pods.insert(address);
                }
                let balancers = wanted.entry(address).or_insert_with(|| ScopedBalancers::new(inside.clone()));
                match frontend.scope {
                    Scope::Internal => balancers.internal = Some(balancer.clone()),
                    Scope::External => balancers.external = Some(balancer.clone()),
                }
            }
        }
        wanted.retain(|_, balancers| balancers.serves());
        let mut problems = Vec::new();
        if let Err(error) = self.netns.route(&outside).await {
            problems.push(crate::error_chain(&error));
        }
        let unbound = self.listeners.reconcile(wanted, &self.netns).await;
        // A pod that asks for a port which the host uses itself is a problem, but none of the Services'.
        let served = problems.is_empty() && unbound.keys().all(|address| of_pods.contains(address));
        problems.extend(unbound.into_values());
        ApplyOutcome { served, problems }
    }
}

fn has_selection(table: &ServiceTable, name: &FrontendOwner, selection: &SelectionName) -> bool {
    let service = table.services.get(name);
    service.is_some_and(|service| service.frontends.iter().any(|frontend| frontend.selection.name == *selection))
}

fn node_addresses(table: &ServiceTable) -> impl Iterator<Item = Ipv4Addr> {
    let own = table.node_addresses.iter().filter(|(_, local)| **local).map(|(address, _)| *address);
    own.chain([Ipv4Addr::LOCALHOST])
}

/// Where clients of the internal policy come from: nodes and pods.
fn inside(table: &ServiceTable) -> Vec<Ipv4Network> {
    let nodes = table.node_addresses.keys().map(|address| Ipv4Network::from(*address));
    let loopback = Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8);
    nodes.chain(table.pod_subnets.iter().copied()).chain(loopback).collect()
}

fn held(key: &ServiceKey, balancer: &Balancer) -> HeldFrontend {
    let held = balancer.held(Instant::now());
    let backends: Vec<HeldBackend> = (1..)
        .zip(held.backends)
        .map(|(id, (at, counters))| HeldBackend {
            id,
            backend: Backend {
                address_be: address_be(*at.ip()),
                port_be: at.port().to_be(),
                protocol: key.protocol,
                flags: 0,
            },
            counters,
        })
        .collect();
    HeldFrontend {
        head: ServiceHead { count: backends.len() as u32, ..ServiceHead::default() },
        backends,
        unserved: Counters { picks: held.unserved, affine: 0 },
    }
}

/// Where a socket of a protocol belongs.
fn is_stream(protocol: Protocol) -> bool {
    protocol == Protocol::Tcp
}
