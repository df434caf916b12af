//! The ServiceTable: for every address that clients can use, which backends they get and which endpoints they do not,
//! and why.
//!
//! A pure function of the [`World`], of the host ports of this node's pods, and of what this node is. It knows no map,
//! no datapath and no time: every datapath, `inspect` and the tests read the same table.

mod frontends;
mod host_ports;
mod owner;
mod reserved;
mod selection;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnetwork::Ipv4Network;
pub use owner::FrontendOwner;
use reserved::{Reserved, ReservedDifference};
pub use selection::{Candidate, Excluded, Exclusion, Selection, SelectionName, SelectionPolicy};

use crate::world::{HostPorts, ObjectName, Protocol, World};

/// What this node is, as far as the table depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThisNode {
    /// The World's name of this node.
    pub name: Arc<str>,
    /// Addresses where this node's NodePorts answer, beside those of its Node object.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The cluster DNS address and the server on this node that answers it.
    pub dns: Option<(Ipv4Addr, SocketAddrV4)>,
    /// What no Service and no pod may take: this node's own server, and the control service's as the agent was told.
    /// Those of the World come to it.
    pub reserved: BTreeSet<SocketAddrV4>,
}

/// One snapshot; cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    /// [`World::revision`] of what it was made from.
    pub revision: u64,
    /// Services, and pods with host ports.
    pub services: OrdMap<FrontendOwner, Arc<TableService>>,
    /// Addresses of all nodes; `true` for this node's.
    pub node_addresses: BTreeMap<Ipv4Addr, bool>,
    /// Where the pods of all nodes are.
    pub pod_subnets: BTreeSet<Ipv4Network>,
    /// Addresses of the control service and of the nodes' agents.
    reserved: Arc<Reserved>,
}

/// One Service as the datapaths serve it, or the host ports of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableService {
    /// Whose frontends these are.
    pub owner: FrontendOwner,
    /// ClientIP affinity.
    pub affinity: Option<Duration>,
    /// In a fixed order: by port, then address kind.
    pub frontends: Vec<Frontend>,
    /// Ports that no datapath serves, and why.
    pub unserved: Vec<(Arc<str>, Unserved)>,
}

/// Why no datapath serves a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// No program reads SCTP's ports.
    #[error("SCTP is served by no datapath")]
    Sctp,
    /// A pod must not take what others send to an address elsewhere.
    #[error("its hostIP is no address of this node")]
    HostIpElsewhere,
    /// Agents would lose the control service, and could not learn any more that they may have it back.
    #[error("the control service or a node's agent listens there")]
    Reserved,
}

/// Something a client can connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Where clients connect.
    pub address: FrontendAddress,
    /// Where clients connect; backends have ports of their own.
    pub port: u16,
    /// TCP or UDP: SCTP is in [`TableService::unserved`].
    pub protocol: Protocol,
    /// Whose packets it takes.
    pub scope: Scope,
    /// For `inspect`; empty for an unnamed port.
    pub port_name: Arc<str>,
    /// Which backends clients get.
    pub selection: Arc<Selection>,
}

/// Where a frontend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontendAddress {
    /// In the Service range.
    ClusterIp(Ipv4Addr),
    /// A NodePort: every node's addresses.
    EveryNode,
    /// A host port: this node's addresses.
    ThisNode,
    /// A host port with a `hostIP`.
    HostIp(Ipv4Addr),
    /// An external IP or a load balancer's.
    External(Ipv4Addr),
}

/// Where the clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// On this node: its pods and the host.
    Internal,
    /// Behind an uplink.
    External,
}

impl ServiceTable {
    /// The table of `world`, from nothing, without host ports.
    pub fn new(world: &World, node: &ThisNode) -> Self {
        Self::default().advance(&World::default(), world, node).0
    }

    /// The table of `new`, from the table of `old`; with the Services whose entry changed.
    ///
    /// The cost is that of what differs: a change of one Service works on that Service only, a change of this node on
    /// all. One of another node's agent looks at all, and works on those with its address.
    pub fn advance(&self, old: &World, new: &World, node: &ThisNode) -> (Self, BTreeSet<FrontendOwner>) {
        let mut services = self.services.clone();
        let mut changed = BTreeSet::new();
        let is_first = self.node_addresses.is_empty();
        let (node_addresses, pod_subnets) = if old.nodes.ptr_eq(&new.nodes) && !is_first {
            (self.node_addresses.clone(), self.pod_subnets.clone())
        } else {
            (node_addresses(new, node), new.nodes.values().filter_map(|node| node.pod_cidr).collect())
        };
        let reserved = if Reserved::is_same_in(old, new) && !is_first {
            self.reserved.clone()
        } else {
            Arc::new(Reserved::new(new, node, &node_addresses))
        };
        let mut names = candidates(old, new, node);
        names.extend(concerned(new, &self.reserved.difference(&reserved)));
        for name in names {
            let entry = frontends::table_service(&name, new, node, &reserved).map(Arc::new);
            set_entry(&mut services, FrontendOwner::Service(name), entry, &mut changed);
        }
        (Self { revision: new.revision, services, node_addresses, pod_subnets, reserved }, changed)
    }

    /// This table with `host_ports` for its host ports; with the pods whose entry changed. To be asked after
    /// [`Self::advance`], whose node addresses it heeds. The cost is that of the pods with host ports.
    pub fn with_host_ports(&self, host_ports: &HostPorts, node: &ThisNode) -> (Self, BTreeSet<FrontendOwner>) {
        let mut services = self.services.clone();
        let mut changed = BTreeSet::new();
        let wanted: BTreeMap<FrontendOwner, _> =
            host_ports.pods.iter().map(|(uid, pod)| (FrontendOwner::pod(pod.pod.clone(), uid.clone()), pod)).collect();
        for (gone, _) in
            self.services.range(FrontendOwner::first_pod()..).filter(|(owner, _)| !wanted.contains_key(owner))
        {
            set_entry(&mut services, gone.clone(), None, &mut changed);
        }
        for (owner, pod) in wanted {
            let entry = host_ports::table_entry(owner.clone(), pod, node, self);
            set_entry(&mut services, owner, Some(Arc::new(entry)), &mut changed);
        }
        (Self { services, ..self.clone() }, changed)
    }

    /// The entry of a Service.
    pub fn service(&self, name: &ObjectName) -> Option<&Arc<TableService>> {
        self.services.get(&FrontendOwner::Service(name.clone()))
    }

    /// The entry of a pod with host ports; of one of them, while two have the name.
    pub fn pod(&self, name: &ObjectName) -> Option<&Arc<TableService>> {
        let named = self.services.range(FrontendOwner::pod(name.clone(), "".into())..).next();
        named.filter(|(owner, _)| owner.name() == name).map(|(_, entry)| entry)
    }
}

/// Replaces an entry, or removes it with `None`, and notes whether that is a change.
fn set_entry(
    services: &mut OrdMap<FrontendOwner, Arc<TableService>>,
    owner: FrontendOwner,
    entry: Option<Arc<TableService>>,
    changed: &mut BTreeSet<FrontendOwner>,
) {
    if services.get(&owner) == entry.as_ref() {
        return;
    }
    match entry {
        Some(entry) => services.insert(owner.clone(), entry),
        None => services.remove(&owner),
    };
    changed.insert(owner);
}

/// Services whose entry may differ.
fn candidates(old: &World, new: &World, node: &ThisNode) -> BTreeSet<ObjectName> {
    let mut names = BTreeSet::new();
    if old.nodes.get(&node.name).map(|own| &own.zone) != new.nodes.get(&node.name).map(|own| &own.zone) {
        names.extend(new.services.keys().cloned());
    }
    names.extend(old.services.diff(&new.services).map(changed_key));
    names.extend(old.slices.diff(&new.slices).map(changed_key));
    if node.dns.is_some() {
        names.insert(frontends::dns_service());
    }
    names
}

/// Services whose frontends depend on what came to be reserved, or ceased to be.
fn concerned(world: &World, difference: &ReservedDifference) -> impl Iterator<Item = ObjectName> {
    // A node that comes changes no NodePort, and no Service without its address: mostly none is looked at.
    let services = (!difference.is_empty()).then_some(&world.services);
    let all = services.into_iter().flat_map(|services| services.iter());
    all.filter(|(_, service)| difference.concerns(service)).map(|(name, _)| name.clone())
}

fn changed_key<V>(item: DiffItem<'_, '_, ObjectName, V>) -> ObjectName {
    match item {
        DiffItem::Add(name, _) | DiffItem::Remove(name, _) => name.clone(),
        DiffItem::Update { new: (name, _), .. } => name.clone(),
    }
}

fn node_addresses(world: &World, this: &ThisNode) -> BTreeMap<Ipv4Addr, bool> {
    let mut addresses = BTreeMap::new();
    for node in world.nodes.values() {
        for address in node.internal_ip.iter().chain(&node.external_ips) {
            let local = addresses.entry(*address).or_insert(false);
            *local |= node.name == this.name;
        }
    }
    addresses.extend(this.addresses.iter().map(|address| (*address, true)));
    addresses
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub mod world_kit;
