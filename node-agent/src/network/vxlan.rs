//! The VXLAN tunnel to nodes that are on none of our links, and from those on none of whose links we are: one device,
//! with static neighbour and forwarding entries for every peer.
//!
//! A peer's MAC follows from its address, so that entries are static: no flooding, no learning, no ARP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnetwork::Ipv4Network;

use super::{
    netlink::{Link, Mac, Netlink, NetlinkError, Vxlan},
    routes::{Path, Routes},
};

/// Name of the device.
pub const DEVICE: &str = "fairlead.vx";

/// Bytes that VXLAN over IPv4 adds to a packet: IPv4 20, UDP 8, VXLAN 8, Ethernet 14.
pub const OVERHEAD: u32 = 50;

/// Network identifier; the same on all nodes.
const VNI: u32 = 0xfa_1ead;

/// The port IANA gave to VXLAN.
pub const PORT: u16 = 4789;

/// The far ends that packets are sent to: next hop of the routes → node. Equal input gives equal order.
pub fn peers(routes: &Routes) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
    let tunnelled = routes.iter().filter(|(_, route)| route.path == Path::Vxlan);
    tunnelled.map(|(pod_cidr, route)| (next_hop(*pod_cidr), route.node_ip)).collect()
}

/// The node's own address in its pod subnet, which stands for the node within the tunnel.
pub fn next_hop(pod_cidr: Ipv4Network) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(pod_cidr.network()).saturating_add(1))
}

/// MAC of the tunnel's end on the node with `node_ip`. Locally administered.
pub fn mac(node_ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = node_ip.octets();
    [0xf2, 0x76, a, b, c, d]
}

/// The device, made if need be. One that was made for another node address is made anew.
pub async fn ensure_device(netlink: &Netlink, node_ip: Ipv4Addr, uplink_mtu: u32) -> Result<Link, NetlinkError> {
    let mtu = uplink_mtu.saturating_sub(OVERHEAD);
    if let Some(device) = netlink.link(DEVICE).await? {
        if device.mac == Some(mac(node_ip)) && device.mtu == mtu {
            if !device.up {
                // Somebody set it down, or has the port: made anew, it would be refused again.
                netlink.set_up(device.index).await?;
            }
            return Ok(device);
        }
        netlink.delete_link(device.index).await?;
    }
    let device = Vxlan { name: DEVICE, vni: VNI, port: PORT, local: node_ip, mac: mac(node_ip), mtu };
    netlink.add_vxlan(device).await?;
    let made = netlink.link(DEVICE).await?.ok_or_else(|| NetlinkError::NoLink { name: DEVICE.into() })?;
    netlink.set_up(made.index).await?;
    Ok(made)
}

/// Whether there is a device with far ends that packets are sent to.
pub async fn has_peers(netlink: &Netlink) -> Result<bool, NetlinkError> {
    match netlink.link(DEVICE).await? {
        Some(device) => Ok(!netlink.forwarding(device.index).await?.is_empty()),
        None => Ok(false),
    }
}

/// Takes the device away with all its routes and peers. Not an error where there is none.
pub async fn remove_device(netlink: &Netlink) -> Result<(), NetlinkError> {
    match netlink.link(DEVICE).await? {
        Some(device) => netlink.delete_link(device.index).await,
        None => Ok(()),
    }
}

/// Makes the kernel's list of far ends that of `peers`; with `prune`, takes away those that are in it no more. Each for
/// itself; the error is the first one's.
pub async fn sync_peers(
    netlink: &Netlink,
    device: u32,
    peers: &BTreeMap<Ipv4Addr, Ipv4Addr>,
    prune: bool,
) -> Result<(), NetlinkError> {
    let wanted: BTreeSet<(Ipv4Addr, Mac)> = peers.iter().map(|(hop, node)| (*hop, mac(*node))).collect();
    let held: BTreeSet<(Ipv4Addr, Mac)> = netlink.neighbours(device).await?.into_iter().collect();
    let mut done = Ok(());
    for (hop, mac) in wanted.difference(&held) {
        done = done.and(netlink.set_neighbour(device, *hop, *mac).await);
    }
    for (hop, _) in held.iter().filter(|(hop, _)| prune && !peers.contains_key(hop)) {
        done = done.and(netlink.delete_neighbour(device, *hop).await);
    }
    let wanted: BTreeSet<(Mac, Ipv4Addr)> = peers.values().map(|node| (mac(*node), *node)).collect();
    let held: BTreeSet<(Mac, Ipv4Addr)> = netlink.forwarding(device).await?.into_iter().collect();
    for (mac, node) in wanted.difference(&held) {
        done = done.and(netlink.set_forwarding(device, *mac, *node).await);
    }
    for (mac, node) in held.difference(&wanted).filter(|_| prune) {
        done = done.and(netlink.delete_forwarding(device, *mac, *node).await);
    }
    done
}
