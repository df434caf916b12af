//! Kernel messages and our own types: translates in both directions, and does nothing else.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType},
};
use rtnetlink::RouteMessageBuilder;

use super::{
    super::host_links::{ForeignRoute, LinkAddress},
    Link, Mac, ROUTE_PROTOCOL, Route,
};

/// Reads a link.
pub fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        peer: None,
        mac: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(peer) => link.peer = Some(peer),
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
            _ => (),
        }
    }
    link
}

/// The IPv4 address of a neighbour entry; `None` for IPv6.
pub fn neighbour_address(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        // Of a bridge's family the crate leaves the address as bytes.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from)
        }
        _ => None,
    })
}

/// The Ethernet address of a neighbour entry.
pub fn neighbour_mac(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })
}

/// Reads an IPv4 address; `None` for IPv6.
pub fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other side's: `Local` is always this host's.
            AddressAttribute::Local(IpAddr::V4(local)) => found = Some(*local),
            AddressAttribute::Address(IpAddr::V4(address)) if found.is_none() => found = Some(*address),
            _ => (),
        }
    }
    Some(LinkAddress { link: message.header.index, address: found?, prefix: message.header.prefix_len })
}

/// Where an IPv4 route of the main table leads; `None` for others.
fn destination(message: &RouteMessage) -> Option<Ipv4Network> {
    let header = &message.header;
    if header.address_family != AddressFamily::Inet || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let to = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    Ipv4Network::new(to.unwrap_or(Ipv4Addr::UNSPECIFIED), header.destination_prefix_length).ok()
}

/// Reads a route of the main table, of whatever kind, that is not ours; `None` for others.
pub fn foreign_route(message: &RouteMessage) -> Option<ForeignRoute> {
    let destination = destination(message).filter(|_| message.header.protocol != ROUTE_PROTOCOL)?;
    // One through a next hop of IPv6 has another attribute, one through several links that of none.
    let on_link = route(message).is_some_and(|route| route.link.is_some() && route.gateway.is_none())
        && !message.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Via(_)));
    Some(ForeignRoute { destination, on_link })
}

/// Reads an IPv4 unicast route of the main table; `None` for others.
pub fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let destination = destination(message).filter(|_| header.kind == RouteType::Unicast)?;
    let mut route = None::<Ipv4Addr>;
    let (mut link, mut source, mut metric) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => (),
        }
    }
    Some(Route { destination, gateway: route, link, source, metric, ours: header.protocol == ROUTE_PROTOCOL })
}

/// The message that names a route by which nothing gets to `destination`: the kernel says so to who sends there.
pub fn prohibited_message(destination: Ipv4Addr, metric: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination, 32)
        .kind(RouteType::Prohibit)
        .priority(metric)
        .build()
}

/// The message that names `route`.
pub fn route_message(route: &Route) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.destination.network(), route.destination.prefix());
    if route.ours {
        builder = builder.protocol(ROUTE_PROTOCOL);
    }
    if let Some(link) = route.link {
        builder = builder.output_interface(link);
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source);
    }
    if route.metric != 0 {
        builder = builder.priority(route.metric);
    }
    match route.gateway {
        // The next hop is a permanent neighbour or on the link: no other route need lead to it.
        Some(gateway) => builder.gateway(gateway).onlink().build(),
        None => builder.scope(RouteScope::Link).build(),
    }
}
