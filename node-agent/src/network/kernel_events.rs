//! Reports when another program changed what the pod network depends on: links, addresses, our routes, settings of
//! links, the firewall's chains.
//!
//! It says *that* something changed, never what to do: the reconciler looks again.

use std::{io, time::Duration};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER},
};
use tokio::task::AbortHandle;

use super::{
    netconf,
    netlink::{NetlinkError, ROUTE_PROTOCOL},
    pod_link,
};

/// Why no more events come: they have to be opened anew, and the kernel looked at.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The connection to the kernel has gone.
    #[error("the kernel's events of links and routes have ended")]
    Ended,
    /// A socket cannot be read any more.
    #[error("cannot read the kernel's events")]
    Receive(#[source] io::Error),
}

type Message = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

/// The sockets on which the kernel reports changes.
pub struct KernelEvents {
    routing: UnboundedReceiver<Message>,
    settings: TokioSocket,
    firewall: TokioSocket,
    firewall_changed: bool,
    connection: AbortHandle,
}

impl Drop for KernelEvents {
    /// Ends the connection, which would otherwise keep receiving messages that are never read.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl KernelEvents {
    /// For the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
        let (connection, _handle, routing) =
            rtnetlink::new_multicast_connection(&groups).map_err(NetlinkError::Open)?;
        let connection = tokio::spawn(connection).abort_handle();
        let mut firewall = TokioSocket::new(NETLINK_NETFILTER).map_err(NetlinkError::Open)?;
        firewall.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        firewall.socket_mut().add_membership(NFNLGRP_NFTABLES).map_err(NetlinkError::Open)?;
        let settings = netconf::open().map_err(NetlinkError::Open)?;
        Ok(Self { routing, settings, firewall, firewall_changed: false, connection })
    }

    /// After others ended: what happened meanwhile is not known.
    pub fn open_again() -> Result<Self, NetlinkError> {
        let mut events = Self::open()?;
        events.firewall_changed = true;
        Ok(events)
    }

    /// Returns after something changed, and what came with it has settled.
    pub async fn next(&mut self) -> Result<(), EventsError> {
        self.one().await?;
        let settled = async {
            loop {
                self.one().await?;
            }
        };
        // `settled` ends by itself only with an error: the time limit is how this returns.
        tokio::time::timeout(DEBOUNCE, settled).await.unwrap_or(Ok(()))
    }

    /// Whether since the last call chains of the firewall came or went, or rules went, maybe our own.
    pub fn firewall_changed(&mut self) -> bool {
        std::mem::take(&mut self.firewall_changed)
    }

    async fn one(&mut self) -> Result<(), EventsError> {
        let (mut of_settings, mut of_firewall) = (Vec::with_capacity(MAX_DATAGRAM), Vec::with_capacity(MAX_DATAGRAM));
        loop {
            of_settings.clear();
            of_firewall.clear();
            tokio::select! {
                message = self.routing.next() => match message {
                    Some((message, _)) if matters(&message.payload) => return Ok(()),
                    Some(_) => (),
                    None => return Err(EventsError::Ended),
                },
                received = self.settings.recv_from(&mut of_settings) => {
                    if were_lost(received)? || any_message(&of_settings, netconf::takes_setting_away) {
                        return Ok(());
                    }
                }
                received = self.firewall.recv_from(&mut of_firewall) => {
                    if were_lost(received)? || any_message(&of_firewall, |kind, _| changes_chains(kind)) {
                        self.firewall_changed = true;
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Whether too many events came at once for the socket's buffer: any may have been ours.
fn were_lost<T>(received: io::Result<T>) -> Result<bool, EventsError> {
    match received {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
            tracing::debug!("events of the kernel were lost");
            Ok(true)
        }
        Err(error) => Err(EventsError::Receive(error)),
    }
}

fn matters(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        // Events were lost: any may have been ours.
        NetlinkPayload::Overrun(_) => return true,
        _ => return false,
    };
    match message {
        RouteNetlinkMessage::NewLink(link) if is_pod_link(link) => was_set_down(link),
        RouteNetlinkMessage::DelLink(link) if is_pod_link(link) => false,
        RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => true,
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => true,
        RouteNetlinkMessage::DelRoute(route) => route.header.protocol == ROUTE_PROTOCOL,
        _ => false,
    }
}

fn is_pod_link(link: &LinkMessage) -> bool {
    link.attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::IfName(name) if pod_link::is_pod_link(name)))
}

/// Whether somebody set a link down: its routes went with that, without a word. Of a link that comes, all flags change
/// at once, and one that goes ceases to run, too: pods that come and go wake nobody.
fn was_set_down(link: &LinkMessage) -> bool {
    !link.header.flags.contains(LinkFlags::Up) && link.header.change_mask == LinkFlags::Up
}

/// Whether a message says that a chain or a table came or went, that a chain's policy changed, or that a rule went
/// (ours in Docker's chain are such).
fn changes_chains(kind: u16) -> bool {
    matches!(kind, NFT_MSG_DELTABLE | NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN | NFT_MSG_DELRULE)
}

/// Whether one of the datagram's messages `matters`, by its kind and what follows its header. Each has a netlink header
/// of 16 bytes, with its length and kind; the kernel sends a transaction's messages together.
fn any_message(mut datagram: &[u8], matters: impl Fn(u16, &[u8]) -> bool) -> bool {
    while let Some(&[l0, l1, l2, l3, k0, k1]) = datagram.first_chunk() {
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        if length < 16 || length > datagram.len() {
            // Cut off: it may have been in what is missing.
            return true;
        }
        if matters(u16::from_ne_bytes([k0, k1]), &datagram[16..length]) {
            return true;
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// `NFNL_SUBSYS_NFTABLES << 8` and the kind.
const NFT_MSG_DELTABLE: u16 = (10 << 8) | 2;
const NFT_MSG_NEWCHAIN: u16 = (10 << 8) | 3;
const NFT_MSG_DELCHAIN: u16 = (10 << 8) | 5;
const NFT_MSG_DELRULE: u16 = (10 << 8) | 8;
const NFNLGRP_NFTABLES: u32 = 7;
const MAX_DATAGRAM: usize = 32 * 1024;

/// Changes come in bursts: a link that comes up brings addresses and routes.
const DEBOUNCE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::namespaces::{TestMachine, can_make_namespaces};

    fn of_link(name: &str, flags: u32, changed: u32) -> NetlinkPayload<RouteNetlinkMessage> {
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::from_bits_retain(flags);
        link.header.change_mask = LinkFlags::from_bits_retain(changed);
        link.attributes.push(LinkAttribute::IfName(name.into()));
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))
    }

    #[test]
    fn of_pods_links_only_those_matter_that_somebody_set_down() {
        let pod = pod_link::host_end("a");
        assert!(matters(&of_link("eth0", 0x1002, 0x1)));
        // As the kernel was seen to say it.
        assert!(matters(&of_link(&pod, 0x1002, 0x1)), "set down");
        assert!(!matters(&of_link(&pod, 0x1002, u32::MAX)), "made");
        assert!(!matters(&of_link(&pod, 0x1003, 0x1)), "set up");
        assert!(!matters(&of_link(&pod, 0x11043, 0)), "the other side came up");
        assert!(!matters(&of_link(&pod, 0x1002, 0x41)), "removed");
    }

    #[test]
    fn lost_events_matter() {
        assert!(matters(&NetlinkPayload::Overrun(Vec::new())));
        assert!(were_lost::<()>(Err(io::Error::from_raw_os_error(libc::ENOBUFS))).unwrap());
        assert!(were_lost::<()>(Err(io::Error::from_raw_os_error(libc::EBADF))).is_err());
    }

    #[test]
    fn events_that_end_are_an_error() {
        if !can_make_namespaces() {
            return;
        }
        TestMachine::new().wait(async {
            let mut events = KernelEvents::open().unwrap();
            events.connection.abort();
            assert!(matches!(events.next().await, Err(EventsError::Ended)));
        });
    }
}
