//! Addresses that no Service and no pod takes from who listens there: those of the control service, and of this node's
//! own agent.
//!
//! `externalIPs` and host ports may be anybody's address, and who may write Services or pods in one namespace may ask
//! for any. With that of the control service, each agent's next connection would lead to a pod: the agent could not
//! even learn that the Service is gone again. kube-proxy has this gap (CVE-2020-8554).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::ThisNode;
use crate::world::{ObjectName, Protocol, World};

/// Those of `world`'s control service, and those that `node` was told.
pub(super) fn addresses(world: &World, node: &ThisNode) -> BTreeSet<SocketAddrV4> {
    let slices = world.slices.get(&ObjectName::new("default", "kubernetes")).into_iter().flat_map(|all| all.values());
    let of_control = slices.flat_map(|slice| {
        let ports = slice.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        ports.flat_map(|port| {
            let addresses = slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
            addresses.map(|address| SocketAddrV4::new(*address, port.port))
        })
    });
    of_control.chain(node.reserved.iter().copied()).collect()
}

/// Whether a host port would take one: on `host_ip`, or on all addresses of this node.
pub(super) fn has_host_port(
    reserved: &BTreeSet<SocketAddrV4>,
    host_ip: Option<Ipv4Addr>,
    host_port: u16,
    node_addresses: &BTreeMap<Ipv4Addr, bool>,
) -> bool {
    let is_here = |ip: &Ipv4Addr| ip.is_loopback() || node_addresses.get(ip) == Some(&true);
    reserved.iter().filter(|taken| taken.port() == host_port).any(|taken| match host_ip {
        Some(host_ip) => *taken.ip() == host_ip,
        None => is_here(taken.ip()),
    })
}
