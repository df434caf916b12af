//! What links, addresses and default routes this network namespace has: one dump, as plain values for pure choices.

use std::net::Ipv4Addr;

use super::netlink::{Link, Netlink, NetlinkError};

/// One dump. Order is the kernel's: links by index, addresses by link with primaries first.
#[derive(Clone, Debug, Default)]
pub struct HostLinks {
    pub links: Vec<Link>,
    pub addresses: Vec<LinkAddress>,
    pub default_routes: Vec<DefaultRoute>,
}

/// An IPv4 address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// Interface index.
    pub link: u32,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

/// A route to everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Interface index.
    pub link: u32,
    pub metric: u32,
    pub source: Option<Ipv4Addr>,
}

impl HostLinks {
    /// Asks the kernel.
    pub async fn read(netlink: &Netlink) -> Result<Self, NetlinkError> {
        let default_routes = netlink.routes().await?.into_iter().filter(|route| route.destination.prefix() == 0);
        Ok(Self {
            default_routes: default_routes
                .filter_map(|r| Some(DefaultRoute { link: r.link?, metric: r.metric, source: r.source }))
                .collect(),
            links: netlink.links().await?,
            addresses: netlink.addresses().await?,
        })
    }
}
