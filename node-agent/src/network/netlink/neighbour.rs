//! Static neighbour entries, and the VXLAN device with its static forwarding entries: nothing is asked for by
//! broadcast.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkVxlan};

use super::{
    Mac, Netlink, NetlinkError,
    message::{neighbour_address, neighbour_mac},
    unless,
};

/// A VXLAN device to be made: no learning, no default destination.
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a> {
    /// Of the device.
    pub name: &'a str,
    /// The number that tells this overlay from others on the same port, 24 bits.
    pub vni: u32,
    /// UDP, on this node and its peers.
    pub port: u16,
    /// Source address of the outer packets.
    pub local: Ipv4Addr,
    /// Derived from the node's address, so that peers need not ask for it.
    pub mac: Mac,
    /// Bytes of an inner packet: that of the uplink less the headers around it.
    pub mtu: u32,
}
impl Netlink {
    /// Writes a permanent neighbour entry: the MAC of `address` on `link`. No ARP requests are sent for it.
    pub async fn set_neighbour(&self, link: u32, address: Ipv4Addr, mac: Mac) -> Result<(), NetlinkError> {
        let set = |handle: Handle| {
            let request = handle.neighbours().add(link, IpAddr::V4(address)).link_layer_address(&mac);
            request.state(NeighbourState::Permanent).flags(NeighbourFlags::empty()).replace().execute()
        };
        self.answer(format!("set neighbour {address} of link {link}"), set).await
    }

    /// Adds a VXLAN device.
    pub async fn add_vxlan(&self, device: Vxlan<'_>) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkVxlan>::new(device.name)
            .id(device.vni)
            .port(device.port)
            .local(device.local)
            .learning(false)
            .address(device.mac.to_vec())
            .mtu(device.mtu)
            .build();
        self.answer(format!("make tunnel {}", device.name), |handle| handle.link().add(message).execute()).await
    }

    /// Permanent IPv4 neighbours on `link`.
    pub async fn neighbours(&self, link: u32) -> Result<Vec<(Ipv4Addr, Mac)>, NetlinkError> {
        let all = self.neighbour_messages("neighbours", AddressFamily::Inet).await?;
        let permanent = all.iter().filter(|n| n.header.ifindex == link && n.header.state == NeighbourState::Permanent);
        Ok(permanent.filter_map(|n| Some((neighbour_address(n)?, neighbour_mac(n)?))).collect())
    }

    async fn neighbour_messages(&self, what: &str, of: AddressFamily) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = of;
        let read = |answer| if let RouteNetlinkMessage::NewNeighbour(message) = answer { Some(message) } else { None };
        self.list(what, RouteNetlinkMessage::GetNeighbour(message), read).await
    }

    /// Not an error where it is not there.
    pub async fn delete_neighbour(&self, link: u32, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = link;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
        let operation = format!("delete neighbour {address} of link {link}");
        unless(self.answer(operation, |handle| handle.neighbours().del(message).execute()).await, libc::ENOENT)
    }

    /// The forwarding entries of the tunnel `link`: each MAC with the host that it is sent to.
    pub async fn forwarding(&self, link: u32) -> Result<Vec<(Mac, Ipv4Addr)>, NetlinkError> {
        let all = self.neighbour_messages("forwarding entries", AddressFamily::Bridge).await?;
        let of_link = all.iter().filter(|n| n.header.ifindex == link);
        Ok(of_link.filter_map(|n| Some((neighbour_mac(n)?, neighbour_address(n)?))).collect())
    }

    /// Sends frames for `mac` through the tunnel to `host`.
    pub async fn set_forwarding(&self, link: u32, mac: Mac, host: Ipv4Addr) -> Result<(), NetlinkError> {
        let set = |handle: Handle| {
            let request = handle.neighbours().add_bridge(link, &mac).destination(IpAddr::V4(host));
            request.flags(NeighbourFlags::Own).state(NeighbourState::Permanent).replace().execute()
        };
        self.answer(format!("send to {host} through link {link}"), set).await
    }

    /// Not an error where it is not there.
    pub async fn delete_forwarding(&self, link: u32, mac: Mac, host: Ipv4Addr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link;
        message.header.flags = NeighbourFlags::Own;
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(host)));
        let operation = format!("no longer send to {host} through link {link}");
        unless(self.answer(operation, |handle| handle.neighbours().del(message).execute()).await, libc::ENOENT)
    }
}
