//! What links, addresses and routes this network namespace has: one dump, as plain values for pure choices.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::netlink::{Link, Netlink, NetlinkError};

/// One dump. Order is the kernel's: links by index, addresses by link with primaries first.
#[derive(Clone, Debug, Default)]
pub struct HostLinks {
    /// All of the namespace, those that are down too.
    pub links: Vec<Link>,
    /// IPv4 alone.
    pub addresses: Vec<LinkAddress>,
    /// Of the main table.
    pub default_routes: Vec<DefaultRoute>,
    /// Of the main table: all that fairlead did not mark as its own.
    pub foreign_routes: Vec<ForeignRoute>,
}

/// An IPv4 address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// Interface index.
    pub link: u32,
    /// As the host has it on this link.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix, 0 to 32.
    pub prefix: u8,
}

/// A route to everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Interface index.
    pub link: u32,
    /// The kernel prefers the lowest.
    pub metric: u32,
    /// Address that packets get where the sender chose none.
    pub source: Option<Ipv4Addr>,
}

/// A route that another than this part made: the kernel, the administrator, another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRoute {
    /// 0.0.0.0/0 is everything.
    pub destination: Ipv4Network,
    /// The hosts of `destination` are on a link of this host, as those of its own subnets.
    pub on_link: bool,
}

impl HostLinks {
    /// Asks the kernel.
    pub async fn read(netlink: &Netlink) -> Result<Self, NetlinkError> {
        let (routes, foreign_routes) = netlink.all_routes().await?;
        let default_routes = routes.into_iter().filter(|route| route.destination.prefix() == 0);
        Ok(Self {
            default_routes: default_routes
                .filter_map(|r| Some(DefaultRoute { link: r.link?, metric: r.metric, source: r.source }))
                .collect(),
            foreign_routes,
            links: netlink.links().await?,
            addresses: netlink.addresses().await?,
        })
    }
}
