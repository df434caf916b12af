//! A network namespace in which every Service address is local, and every port without a listener refused by the
//! kernel. It has no name: the namespace, its link and its routes through it disappear when the agent ends.
//!
//! The userspace datapath listens in it. The eBPF datapath sends there what is to be refused: see [`REFUSING_ADDRESS`].

use std::{collections::BTreeSet, fs::File, io, net::Ipv4Addr};

use ipnetwork::Ipv4Network;
use nix::sched::{CloneFlags, unshare};

use crate::{
    network::{
        forwarding,
        inside::run_inside,
        netlink::{Netlink, Route, VethEnd},
        service_link,
    },
    proxy::ProxyError,
};

const INNER_LINK: &str = "eth0";
/// Link-local, seen by nobody but the two ends.
const HOST_END: Ipv4Addr = Ipv4Addr::new(169, 254, 96, 1);
const INNER_END: Ipv4Addr = Ipv4Addr::new(169, 254, 96, 2);
/// An address at which nothing ever listens: datagrams to it are answered with an ICMP error, on any port.
pub const REFUSING_ADDRESS: Ipv4Addr = INNER_END;
const MTU: u32 = 1500;

/// Metric of the route that holds where no agent runs: each other route to the same address is preferred.
const WITHOUT_AGENT: u32 = 0x7fff_0000;

/// Takes away what [`ServiceNetns::keep_refusing`] left.
pub async fn stop_refusing() -> Result<(), ProxyError> {
    Ok(Netlink::open()?.delete_prohibited(REFUSING_ADDRESS, WITHOUT_AGENT).await?)
}

/// The namespace and the link that leads into it.
pub struct ServiceNetns {
    namespace: File,
    host: Netlink,
    inner: Netlink,
    range: Option<Ipv4Network>,
    /// Source of what the host itself sends to Services.
    node_ip: Option<Ipv4Addr>,
    link: u32,
    loopback: u32,
    routed: BTreeSet<Ipv4Addr>,
}

impl ServiceNetns {
    /// Makes the namespace, its link and the route to `range`; a link that an earlier agent left is removed.
    pub async fn make(range: Option<Ipv4Network>, node_ip: Option<Ipv4Addr>) -> Result<Self, ProxyError> {
        let namespace = new_namespace().map_err(io_error("make a network namespace for the Service range"))?;
        let for_netlink = namespace.try_clone().map_err(io_error("duplicate the network namespace"))?;
        let (host, inner) = (Netlink::open()?, Netlink::open_in(for_netlink).await?);
        if let Some(stale) = host.link(service_link::NAME).await? {
            host.delete_link(stale.index).await?;
        }
        let mac = |last| [0xf2, 0x70, 0, 0, 0, last];
        host.add_veth(
            VethEnd { name: service_link::NAME, mac: mac(1), mtu: MTU },
            VethEnd { name: INNER_LINK, mac: mac(2), mtu: MTU },
            &namespace,
        )
        .await?;
        let index = |link: Option<crate::network::netlink::Link>| link.map_or(0, |link| link.index);
        let (link, inner_link) = (index(host.link(service_link::NAME).await?), index(inner.link(INNER_LINK).await?));
        let loopback = inner.loopback().await?;
        for (netlink, link, address) in [(&host, link, HOST_END), (&inner, inner_link, INNER_END)] {
            netlink.disable_ipv6_addresses(link).await?;
            netlink.ensure_address(link, address).await?;
            netlink.set_up(link).await?;
        }
        // Answers come in by this link and go on to a pod's: without forwarding here the kernel drops them.
        forwarding::enable(service_link::NAME).await.map_err(io_error("let the namespace's answers be forwarded"))?;
        inner.set_up(loopback).await?;
        inner.replace_route(&Route::default_through(inner_link, HOST_END)).await?;
        host.replace_route(&Route {
            destination: Ipv4Network::from(REFUSING_ADDRESS),
            gateway: None,
            link: Some(link),
            source: node_ip,
            metric: 0,
            ours: false,
        })
        .await?;
        let mut netns = Self { namespace, host, inner, range, node_ip, link, loopback, routed: BTreeSet::new() };
        if let Some(range) = range {
            netns.take(range).await?;
        }
        Ok(netns)
    }

    /// Keeps [`REFUSING_ADDRESS`] from the default route once the agent has ended and the programs go on: what is sent
    /// there is then answered with an error, by a route that no link takes along. `prohibit` and not `unreachable`: UDP
    /// sockets are told of the one (ICMP code 13) and not of the other (code 1, a passing error to the kernel).
    pub async fn keep_refusing(&self) -> Result<(), ProxyError> {
        Ok(self.host.replace_prohibited(REFUSING_ADDRESS, WITHOUT_AGENT).await?)
    }

    /// Whether the Service range holds `address`.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.range.is_some_and(|range| range.contains(address))
    }

    /// Takes exactly these addresses beside the range.
    pub async fn route(&mut self, addresses: &BTreeSet<Ipv4Addr>) -> Result<(), ProxyError> {
        for new in addresses.difference(&self.routed.clone()) {
            self.take(Ipv4Network::from(*new)).await?;
            self.routed.insert(*new);
        }
        for old in self.routed.clone().difference(addresses) {
            self.inner.remove_address(self.loopback, *old).await?;
            self.host.delete_route(&self.shown(Ipv4Network::from(*old))).await?;
            self.routed.remove(old);
        }
        Ok(())
    }

    /// Makes a socket in the namespace, or on the host.
    pub fn bind<T: Send + 'static>(
        &self,
        on_host: bool,
        bind: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if on_host {
            return bind();
        }
        run_inside(self.namespace.try_clone()?, bind)
    }

    /// Takes the link away, and with it the routes.
    pub async fn remove(self) -> Result<(), ProxyError> {
        Ok(self.host.delete_link(self.link).await?)
    }

    /// An address of the loopback makes all of its prefix local.
    async fn take(&mut self, range: Ipv4Network) -> Result<(), ProxyError> {
        self.inner.add_address(self.loopback, range.network(), range.prefix()).await?;
        Ok(self.host.replace_route(&self.shown(range)).await?)
    }

    /// The host's route to what the namespace has. Not marked as the pod network's, which takes away what it does not
    /// know.
    fn shown(&self, range: Ipv4Network) -> Route {
        Route {
            destination: range,
            gateway: Some(INNER_END),
            link: Some(self.link),
            source: self.node_ip,
            metric: 0,
            ours: false,
        }
    }
}

fn new_namespace() -> io::Result<File> {
    let made = std::thread::Builder::new().name("fairlead-netns".into()).spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // The kernel must report every refused datagram, and not only one a second.
        std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0")?;
        File::open("/proc/thread-self/ns/net")
    })?;
    made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes it panicked")))
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> ProxyError {
    move |source| ProxyError::Io { operation, source }
}
