//! Addresses that no Service and no pod takes from who listens there: those of the control service, and of the nodes'
//! agents.
//!
//! `externalIPs` and host ports may be anybody's address, and who may write Services or pods in one namespace may ask
//! for any. With that of the control service, each agent's next connection would lead to a pod: the agent could not
//! even learn that the Service is gone again. With that of an agent, the control service on any node's host would have
//! no logs and no exec of it. kube-proxy has this gap (CVE-2020-8554).
//!
//! A node says itself where it is. One that lies keeps Services from an external address that is another's, as it can
//! draw their clients to itself by that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{Frontend, FrontendAddress, ThisNode};
use crate::world::{ObjectName, Protocol, World};

/// What is reserved, all of it TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reserved {
    addresses: BTreeSet<SocketAddrV4>,
    /// The ports of those that are at nodes: a NodePort would take them there.
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
        let of_agents =
            world.nodes.values().filter_map(|node| Some(SocketAddrV4::new(node.internal_ip?, node.agent_port?)));
        let addresses: BTreeSet<_> = of_control.chain(of_agents).chain(node.reserved.iter().copied()).collect();
        let is_at_node = |ip: &Ipv4Addr| ip.is_loopback() || node_addresses.contains_key(ip);
        let node_ports = addresses.iter().filter(|taken| is_at_node(taken.ip())).map(SocketAddrV4::port).collect();
        Self { addresses, node_ports }
    }

    /// Whether what it is made of is the same in both.
    pub fn is_same_in(old: &World, new: &World) -> bool {
        old.nodes.ptr_eq(&new.nodes) && old.slices.get(&kubernetes()) == new.slices.get(&kubernetes())
    }

    /// Whether a Service's frontend would take one.
    pub fn has_frontend(&self, frontend: &Frontend) -> bool {
        frontend.protocol == Protocol::Tcp
            && match frontend.address {
                FrontendAddress::External(ip) => self.addresses.contains(&SocketAddrV4::new(ip, frontend.port)),
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
        self.addresses.iter().filter(|taken| taken.port() == host_port).any(|taken| match host_ip {
            Some(host_ip) => *taken.ip() == host_ip,
            None => is_here(taken.ip()),
        })
    }
}

/// The Service whose endpoints are the control service.
fn kubernetes() -> ObjectName {
    ObjectName::new("default", "kubernetes")
}
