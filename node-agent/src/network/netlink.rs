//! The kernel's links, addresses, routes and neighbours of one network namespace, in this part's own types.
//!
//! A thin shell over rtnetlink: it decides nothing. Every change is idempotent.

mod answer;
mod listing;
mod message;
mod neighbour;

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::{TryStreamExt, channel::mpsc::UnboundedReceiver};
use ipnetwork::Ipv4Network;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkMessage},
    route::{RouteMessage, RouteProtocol},
};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, packet_core::NetlinkMessage,
    proto::Connection, sys::SocketAddr,
};
use tokio_util::sync::CancellationToken;

use self::message::{address, foreign_route, link, route, route_message};
pub use self::neighbour::Vxlan;
use super::{
    host_links::{ForeignRoute, LinkAddress},
    inside::open_inside,
};

/// Marks our routes in the kernel; free in `/etc/iproute2/rt_protos`.
pub const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(0xfa);

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Which query or change the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket: the process may not have one.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel refused; `errno` says why.
    #[error("cannot {operation}")]
    Request { operation: String, source: rtnetlink::Error },
    /// It went away meanwhile, or never was.
    #[error("no link named {name}")]
    NoLink { name: String },
    /// A list that the kernel could not write in one go, however often it was asked: something changes all the time.
    #[error("cannot list {what}: they change faster than they can be listed")]
    Unsteady { what: String },
    /// The kernel did not say whether it did what it was asked for: it may have, or not. The next request goes over
    /// another socket.
    #[error("cannot {operation}: the kernel does not answer")]
    Unanswered { operation: String },
    /// The kernel began a list and did not end it. The next one is asked for on another socket.
    #[error("cannot list {what}: the kernel does not end the list")]
    Endless { what: String },
}

impl NetlinkError {
    /// The kernel's error number, positive.
    pub fn errno(&self) -> Option<i32> {
        let Self::Request { source: rtnetlink::Error::NetlinkError(message), .. } = self else { return None };
        message.code.map(|code| -code.get())
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it in its namespace.
    pub index: u32,
    /// At most 15 bytes.
    pub name: String,
    /// Bytes.
    pub mtu: u32,
    /// Administratively: whether it was switched on, not whether a cable is in it.
    pub up: bool,
    /// `lo`.
    pub loopback: bool,
    /// Index of a veth's other end, in the other end's namespace.
    pub peer: Option<u32>,
    /// `None` for devices that carry no Ethernet frames.
    pub mac: Option<Mac>,
}

impl Link {
    /// Whether fairlead made it, by its name.
    pub fn is_ours(&self) -> bool {
        super::pod_link::is_pod_link(&self.name) || self.name == super::vxlan::DEVICE
    }
}

/// An IPv4 unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// 0.0.0.0/0 is everything.
    pub destination: Ipv4Network,
    /// `None` where the destination is on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// Interface index; none for multipath routes.
    pub link: Option<u32>,
    /// Address that packets get where the sender chose none.
    pub source: Option<Ipv4Addr>,
    /// The kernel prefers the lowest.
    pub metric: u32,
    /// Marked with fairlead's protocol number; others are left alone.
    pub ours: bool,
}

impl Route {
    /// Everything through `gateway`, which need not be on any subnet of the link.
    pub fn default_through(link: u32, gateway: Ipv4Addr) -> Self {
        let everything = Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0).expect("0 is a prefix length");
        Self { destination: everything, gateway: Some(gateway), link: Some(link), source: None, metric: 0, ours: true }
    }

    /// One address behind `link`, spoken to from `source`.
    pub fn to_pod(address: Ipv4Addr, link: u32, source: Ipv4Addr) -> Self {
        let destination = Ipv4Network::from(address);
        Self { destination, gateway: None, link: Some(link), source: Some(source), metric: 0, ours: true }
    }
}

/// A socket into the routing of one network namespace. Cloning shares it; the last clone closes it.
#[derive(Clone, Debug)]
pub struct Netlink {
    socket: Arc<SharedSocket>,
}

#[derive(Debug)]
struct SharedSocket {
    /// Replaced where the kernel does not answer or end a list, on the old socket of which it would refuse every other.
    connection: ArcSwap<LiveConnection>,
    /// Where the socket is; `None` in that of the runtime's threads.
    namespace: Option<File>,
    /// Held while the kernel writes a list into the socket.
    listing: tokio::sync::Mutex<()>,
    /// How long the kernel may say nothing where it is asked.
    silence: Duration,
}

/// A connection that a task runs.
#[derive(Debug)]
struct LiveConnection {
    handle: Handle,
    /// The task has ended.
    ended: CancellationToken,
}

impl Netlink {
    /// For the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self::over(rtnetlink::new_connection().map_err(NetlinkError::Open)?, None))
    }

    /// For the namespace of `netns`.
    pub async fn open_in(netns: File) -> Result<Self, NetlinkError> {
        let entered = netns.try_clone().map_err(NetlinkError::Open)?;
        Ok(Self::over(connect_in(entered).await.map_err(NetlinkError::Open)?, Some(netns)))
    }

    fn over(connection: Connected, namespace: Option<File>) -> Self {
        let (connection, listing) = (ArcSwap::from_pointee(run(connection)), tokio::sync::Mutex::default());
        Self { socket: Arc::new(SharedSocket { connection, namespace, listing, silence: listing::SILENCE }) }
    }

    fn handle(&self) -> Handle {
        self.socket.connection.load().handle.clone()
    }

    /// Opens another socket in the place of this one.
    async fn reopen(&self) -> io::Result<()> {
        let connection = match &self.socket.namespace {
            Some(namespace) => connect_in(namespace.try_clone()?).await?,
            None => rtnetlink::new_connection()?,
        };
        self.socket.connection.store(Arc::new(run(connection)));
        Ok(())
    }

    /// All links of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let read = |answer| if let RouteNetlinkMessage::NewLink(message) = answer { Some(link(message)) } else { None };
        self.list("links", question, read).await
    }

    /// The link of this name; `None` where there is none.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let get = async |handle: Handle| {
            let answer = handle.link().get().match_name(name).execute().try_next().await?;
            // The connection has gone.
            answer.ok_or(rtnetlink::Error::RequestFailed)
        };
        match self.answer(format!("look up link {name}"), get).await {
            Ok(message) => Ok(Some(link(message))),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Index of `lo`.
    pub async fn loopback(&self) -> Result<u32, NetlinkError> {
        let lo = self.link("lo").await?.ok_or_else(|| NetlinkError::NoLink { name: "lo".into() })?;
        Ok(lo.index)
    }

    /// Makes a veth pair, this end here and the other in `netns`, in one step, so that no half of a pair is ever left.
    pub async fn add_veth(&self, here: VethEnd<'_>, there: VethEnd<'_>, netns: &File) -> Result<(), NetlinkError> {
        let peer = LinkUnspec::new_with_name(there.name).address(there.mac.to_vec()).mtu(there.mtu);
        let peer = peer.setns_by_fd(netns.as_raw_fd()).build();
        let message = LinkMessageBuilder::<LinkVeth>::new(here.name, there.name)
            .address(here.mac.to_vec())
            .mtu(here.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.answer(format!("make veth pair {}", here.name), |handle| handle.link().add(message).execute()).await
    }

    /// Brings the link up.
    pub async fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.answer(format!("set link {index} up"), |handle| handle.link().change(message).execute()).await
    }

    /// How large packets may be that leave by the link, in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        self.answer(format!("set MTU of link {index}"), |handle| handle.link().change(message).execute()).await
    }

    /// Keeps a link from giving itself an IPv6 address when it comes up: neither is it used, nor should it ask for
    /// routers. On a kernel without IPv6 there is nothing to keep it from.
    pub async fn disable_ipv6_addresses(&self, index: u32) -> Result<(), NetlinkError> {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message =
            LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode])).build();
        let operation = format!("silence IPv6 on link {index}");
        let set = self.answer(operation, |handle| handle.link().change(message).execute()).await;
        unless(unless(set, libc::EAFNOSUPPORT), libc::EOPNOTSUPP)
    }

    /// Not an error where it is gone.
    pub async fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        let deleted = self.answer(format!("delete link {index}"), |handle| handle.link().del(index).execute()).await;
        unless(deleted, libc::ENODEV)
    }

    /// The IPv4 addresses of all links.
    pub async fn addresses(&self) -> Result<Vec<LinkAddress>, NetlinkError> {
        Ok(self.address_messages().await?.iter().filter_map(address).collect())
    }

    async fn address_messages(&self) -> Result<Vec<AddressMessage>, NetlinkError> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let read = |answer| if let RouteNetlinkMessage::NewAddress(message) = answer { Some(message) } else { None };
        self.list("addresses", question, read).await
    }

    /// Adds `address` alone, without a subnet around it.
    pub async fn ensure_address(&self, link: u32, address: Ipv4Addr) -> Result<(), NetlinkError> {
        self.add_address(link, address, 32).await
    }

    /// Adds `address/prefix` to the link.
    pub async fn add_address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> Result<(), NetlinkError> {
        let add = |handle: Handle| handle.address().add(link, IpAddr::V4(address), prefix).replace().execute();
        self.answer(format!("add address {address} to link {link}"), add).await
    }

    /// Not an error where it is not there.
    pub async fn remove_address(&self, link: u32, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let is_meant = |message: &AddressMessage| {
            message.header.index == link && message::address(message).is_some_and(|found| found.address == address)
        };
        for message in self.address_messages().await?.into_iter().filter(is_meant) {
            let operation = format!("remove address {address} from link {link}");
            let deleted = self.answer(operation, |handle| handle.address().del(message).execute()).await;
            unless(deleted, libc::EADDRNOTAVAIL)?;
        }
        Ok(())
    }

    /// IPv4 unicast routes of the main table.
    pub async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        Ok(self.route_messages().await?.iter().filter_map(route).collect())
    }

    /// The same, and all of the main table that are not ours, also those by which packets are dropped.
    pub async fn all_routes(&self) -> Result<(Vec<Route>, Vec<ForeignRoute>), NetlinkError> {
        let messages = self.route_messages().await?;
        Ok((messages.iter().filter_map(route).collect(), messages.iter().filter_map(foreign_route).collect()))
    }

    async fn route_messages(&self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let question = RouteNetlinkMessage::GetRoute(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let read = |answer| if let RouteNetlinkMessage::NewRoute(message) = answer { Some(message) } else { None };
        self.list("routes", question, read).await
    }

    /// Adds the route, marked as ours if it is. An error where there is one with the same destination and metric.
    pub async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let add = |handle: Handle| handle.route().add(route_message(route)).execute();
        self.answer(format!("add route to {}", route.destination), add).await
    }

    /// Adds the route, marked as ours if it is, in the place of one with the same destination and metric.
    pub async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let set = |handle: Handle| handle.route().add(route_message(route)).replace().execute();
        self.answer(format!("set route to {}", route.destination), set).await
    }

    /// Lets nothing get to `destination` where no route of a lower metric leads to it.
    pub async fn replace_prohibited(&self, destination: Ipv4Addr, metric: u32) -> Result<(), NetlinkError> {
        let message = message::prohibited_message(destination, metric);
        self.answer(format!("prohibit {destination}"), |handle| handle.route().add(message).replace().execute()).await
    }

    /// Not an error where it is not there.
    pub async fn delete_prohibited(&self, destination: Ipv4Addr, metric: u32) -> Result<(), NetlinkError> {
        let message = message::prohibited_message(destination, metric);
        let operation = format!("delete prohibiting route to {destination}");
        unless(self.answer(operation, |handle| handle.route().del(message).execute()).await, libc::ESRCH)
    }

    /// Not an error where it is not there.
    pub async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let operation = format!("delete route to {}", route.destination);
        unless(self.answer(operation, |handle| handle.route().del(route_message(route)).execute()).await, libc::ESRCH)
    }
}

type Connected = (Connection<RouteNetlinkMessage>, Handle, Unsolicited);
type Unsolicited = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

async fn connect_in(namespace: File) -> io::Result<Connected> {
    let runtime = tokio::runtime::Handle::current();
    let open = move || {
        let _runtime = runtime.enter();
        rtnetlink::new_connection()
    };
    open_inside(namespace, open).await
}

/// Runs the connection until the last clone of the handle is dropped.
fn run((mut connection, handle, _messages): Connected) -> LiveConnection {
    // [`Netlink::list`] looks whether a list was whole.
    connection.set_forward_done(true);
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    tokio::spawn(async move {
        let mut connection = connection;
        // Dropped before the connection is, with which the answers end.
        let _guard = guard;
        (&mut connection).await;
    });
    LiveConnection { handle, ended }
}

/// One end of a veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// Chosen by the agent, so that the other end need not ask for it.
    pub mac: Mac,
    /// Bytes.
    pub mtu: u32,
}

fn failed(operation: impl Into<String>, source: rtnetlink::Error) -> NetlinkError {
    NetlinkError::Request { operation: operation.into(), source }
}

/// Success where the kernel says `errno`: what should go was not there.
fn unless(result: Result<(), NetlinkError>, errno: i32) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => other,
    }
}
