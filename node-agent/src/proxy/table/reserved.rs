//! Addresses that no Service and no pod takes from who listens there: those of the control service, and of the nodes'
//! agents.
//!
//! `externalIPs` and host ports may be anybody's address, and who may write Services or pods in one namespace may ask
//! for any. With that of the control service, each agent's next connection would lead to a pod: the agent could not
//! even learn that the Service is gone again. With that of an agent, the control service on any node's host would have
//! no logs and no exec of it. kube-proxy has this gap (CVE-2020-8554).
//!
//! A node says itself where it is, and that may be false. So what other nodes say keeps Services from external
//! addresses alone, whose clients such a node can draw to itself anyway; NodePorts and host ports, which every node
//! has, keep clear of the control service and of this node's own agent. That no Service gets the port of another agent
//! is the control service's to see to when it allocates NodePorts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{Frontend, FrontendAddress, ThisNode};
use crate::world::{ObjectName, Protocol, Service, World};

/// What is reserved, all of it TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reserved {
    /// Of the control service, and of this node's agent.
    certain: BTreeSet<SocketAddrV4>,
    /// As all nodes say of their agents.
    told: BTreeSet<SocketAddrV4>,
    /// The ports of those `certain` ones that are at nodes: a NodePort would take them there.
    node_ports: BTreeSet<u16>,
}

impl Reserved {
    /// Of `world`'s control service and agents, and what `node` was told. `node_addresses` are those of all nodes.
    pub fn new(world: &World, node: &ThisNode, node_addresses: &BTreeMap<Ipv4Addr, bool>) -> Self {
        let slices = world.slices.get(&kubernetes()).into_iter().flat_map(|all| all.values());
        let of_control = slices.flat_map(|slice| {
            let ports = slice.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
            ports.flat_map(|port| {
                let addresses = slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
                addresses.map(|address| SocketAddrV4::new(*address, port.port))
            })
        });
        let certain: BTreeSet<_> = of_control.chain(node.reserved.iter().copied()).collect();
        let told = world.nodes.values().filter_map(|node| {
            let ip = node.internal_ip.filter(may_be_another_hosts)?;
            Some(SocketAddrV4::new(ip, node.agent_port?))
        });
        let told = told.collect();
        let is_at_node = |ip: &Ipv4Addr| ip.is_loopback() || node_addresses.contains_key(ip);
        let node_ports = certain.iter().filter(|taken| is_at_node(taken.ip())).map(SocketAddrV4::port).collect();
        Self { certain, told, node_ports }
    }

    /// Whether what it is made of is the same in both.
    pub fn is_same_in(old: &World, new: &World) -> bool {
        old.nodes.ptr_eq(&new.nodes) && old.slices.get(&kubernetes()) == new.slices.get(&kubernetes())
    }

    /// What one of the two reserves and the other does not.
    pub fn difference(&self, other: &Self) -> ReservedDifference {
        // An address of both sets may be in the difference of one: a Service too many is looked at, and none too few.
        let certain = self.certain.symmetric_difference(&other.certain);
        let addresses = certain.chain(self.told.symmetric_difference(&other.told)).copied().collect();
        let node_ports = self.node_ports.symmetric_difference(&other.node_ports).copied().collect();
        ReservedDifference { addresses, node_ports }
    }

    /// Whether a Service's frontend would take one.
    pub fn has_frontend(&self, frontend: &Frontend) -> bool {
        frontend.protocol == Protocol::Tcp
            && match frontend.address {
                FrontendAddress::External(ip) => {
                    let wanted = SocketAddrV4::new(ip, frontend.port);
                    self.certain.contains(&wanted) || self.told.contains(&wanted)
                }
                FrontendAddress::EveryNode => self.node_ports.contains(&frontend.port),
                _ => false,
            }
    }

    /// Whether a host port would take one: on `host_ip`, or on all addresses of this node.
    pub fn has_host_port(
        &self,
        host_ip: Option<Ipv4Addr>,
        host_port: u16,
        node_addresses: &BTreeMap<Ipv4Addr, bool>,
    ) -> bool {
        let is_here = |ip: &Ipv4Addr| ip.is_loopback() || node_addresses.get(ip) == Some(&true);
        self.certain.iter().filter(|taken| taken.port() == host_port).any(|taken| match host_ip {
            Some(host_ip) => *taken.ip() == host_ip,
            None => is_here(taken.ip()),
        })
    }
}

/// What came to be reserved, or ceased to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReservedDifference {
    addresses: BTreeSet<SocketAddrV4>,
    node_ports: BTreeSet<u16>,
}

impl ReservedDifference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    /// Whether a frontend of `service` may come or go by it.
    pub fn concerns(&self, service: &Service) -> bool {
        service.ports.iter().any(|port| {
            let is_external = |ip: &Ipv4Addr| self.addresses.contains(&SocketAddrV4::new(*ip, port.port));
            port.node_port.is_some_and(|port| self.node_ports.contains(&port))
                || service.external_ips.iter().any(is_external)
        })
    }
}

/// False of addresses that are each host's own, or nobody's.
fn may_be_another_hosts(ip: &Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
}

/// The Service whose endpoints are the control service.
fn kubernetes() -> ObjectName {
    ObjectName::new("default", "kubernetes")
}
