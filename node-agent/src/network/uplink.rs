//! Which links lead to other hosts, and with which address: a pure choice over a dump of links, addresses and routes.

use std::net::Ipv4Addr;

use super::{
    host_links::{HostLinks, LinkAddress},
    netlink::{Netlink, NetlinkError},
};

/// A link that leads to other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Of the link with the default route, or of the node's address.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// The node's address on it.
    pub address: Ipv4Addr,
    /// Bytes; the smallest one of all uplinks bounds the pods' links.
    pub mtu: u32,
}

/// Why no uplink was found. Remedy: name the node's address with `--node-ip`.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// `--node-ip` names an address that this host does not have.
    #[error("no link of this host has the address {0}")]
    NoLinkWithAddress(Ipv4Addr),
    /// No link other than the loopback has an IPv4 address.
    #[error("this host has neither a default route nor any link with an IPv4 address: name its address with --node-ip")]
    NoAddress,
    /// The kernel could not be asked.
    #[error("cannot list links and routes")]
    Netlink(#[from] NetlinkError),
}

/// The uplinks of this host as they are now; the first one is the primary, whose address is the node's unless it was
/// told one.
pub async fn uplinks(node_ip: Option<Ipv4Addr>) -> Result<Vec<Uplink>, UplinkError> {
    choose_uplinks(&HostLinks::read(&Netlink::open()?).await?, node_ip)
}

/// The link with `node_ip`, where one is given, then that of the default route with the lowest metric; on a host
/// without either, the first link that is up and has an address. Links that fairlead itself made are never chosen.
pub fn choose_uplinks(host: &HostLinks, node_ip: Option<Ipv4Addr>) -> Result<Vec<Uplink>, UplinkError> {
    let mut chosen = Vec::new();
    if let Some(node_ip) = node_ip {
        let held =
            host.addresses.iter().find(|a| a.address == node_ip).ok_or(UplinkError::NoLinkWithAddress(node_ip))?;
        chosen.extend(uplink(host, held));
    }
    let default = host.default_routes.iter().min_by_key(|route| (route.metric, route.link));
    let by_route = default.and_then(|route| {
        let on_link = |a: &&LinkAddress| a.link == route.link;
        let preferred = host.addresses.iter().filter(on_link).find(|a| Some(a.address) == route.source);
        preferred.or_else(|| host.addresses.iter().find(on_link))
    });
    chosen.extend(by_route.and_then(|address| uplink(host, address)));
    if chosen.is_empty() {
        chosen.extend(host.addresses.iter().find_map(|address| uplink(host, address)));
    }
    let mut seen = std::collections::BTreeSet::new();
    chosen.retain(|uplink| seen.insert(uplink.index));
    if chosen.is_empty() { Err(UplinkError::NoAddress) } else { Ok(chosen) }
}

/// `None` for loopback, links that are down and our own.
fn uplink(host: &HostLinks, address: &LinkAddress) -> Option<Uplink> {
    let link = host.links.iter().find(|link| link.index == address.link)?;
    (link.up && !link.loopback && !link.is_ours()).then(|| Uplink {
        name: link.name.clone(),
        index: link.index,
        address: address.address,
        mtu: link.mtu,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{host_links::DefaultRoute, netlink::Link},
        *,
    };

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.into(), mtu: 1500, up: true, loopback: name == "lo", peer: None, mac: None }
    }

    fn address(link: u32, cidr: &str) -> LinkAddress {
        let network: ipnetwork::Ipv4Network = cidr.parse().unwrap();
        LinkAddress { link, address: network.ip(), prefix: network.prefix() }
    }

    fn host() -> HostLinks {
        HostLinks {
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "fl0123456789")],
            addresses: vec![
                address(1, "127.0.0.1/8"),
                address(2, "192.168.1.5/24"),
                address(3, "10.0.0.5/24"),
                address(3, "10.0.0.6/24"),
            ],
            default_routes: vec![
                DefaultRoute { link: 2, metric: 100, source: None },
                DefaultRoute { link: 3, metric: 50, source: Some(Ipv4Addr::new(10, 0, 0, 6)) },
            ],
            foreign_routes: vec![],
        }
    }

    fn names(uplinks: &[Uplink]) -> Vec<(&str, Ipv4Addr)> {
        uplinks.iter().map(|u| (u.name.as_str(), u.address)).collect()
    }

    #[test]
    fn the_default_route_with_the_lowest_metric_wins_with_its_source() {
        let chosen = choose_uplinks(&host(), None).unwrap();
        assert_eq!(names(&chosen), [("eth1", Ipv4Addr::new(10, 0, 0, 6))]);
    }

    #[test]
    fn the_link_of_a_given_node_address_comes_first() {
        let node_ip = Ipv4Addr::new(192, 168, 1, 5);
        let chosen = choose_uplinks(&host(), Some(node_ip)).unwrap();
        assert_eq!(names(&chosen), [("eth0", node_ip), ("eth1", Ipv4Addr::new(10, 0, 0, 6))]);
    }

    #[test]
    fn a_host_without_a_default_route_uses_its_first_address() {
        let host = HostLinks { default_routes: vec![], ..host() };
        assert_eq!(names(&choose_uplinks(&host, None).unwrap()), [("eth0", Ipv4Addr::new(192, 168, 1, 5))]);
    }

    #[test]
    fn an_address_that_no_link_has_is_refused_by_name() {
        let error = choose_uplinks(&host(), Some(Ipv4Addr::new(1, 2, 3, 4))).unwrap_err();
        assert_eq!(error.to_string(), "no link of this host has the address 1.2.3.4");
    }

    #[test]
    fn a_host_with_only_loopback_says_what_to_do() {
        let host = HostLinks {
            links: vec![link(1, "lo")],
            addresses: vec![address(1, "127.0.0.1/8")],
            ..HostLinks::default()
        };
        assert!(matches!(choose_uplinks(&host, None), Err(UplinkError::NoAddress)));
    }
}
