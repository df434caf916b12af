//! Reports when another program changed what the pod network depends on: links, addresses, our routes, the firewall's
//! chains.
//!
//! It says *that* something changed, never what to do: the reconciler looks again.

use std::time::Duration;

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER},
};
use tokio::task::AbortHandle;

use super::{
    netlink::{NetlinkError, ROUTE_PROTOCOL},
    pod_link,
};

type Message = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

/// The sockets on which the kernel reports changes.
pub struct KernelEvents {
    routing: UnboundedReceiver<Message>,
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
        Ok(Self { routing, firewall, firewall_changed: false, connection })
    }

    /// Returns after something changed, and what came with it has settled.
    pub async fn next(&mut self) {
        self.one().await;
        let settled = async {
            loop {
                self.one().await;
            }
        };
        // `settled` never ends by itself: the time limit is how this returns.
        tokio::time::timeout(DEBOUNCE, settled).await.unwrap_or_default()
    }

    /// Whether since the last call chains of the firewall came or went, or rules went, maybe our own.
    pub fn firewall_changed(&mut self) -> bool {
        std::mem::take(&mut self.firewall_changed)
    }

    async fn one(&mut self) {
        let mut datagram = Vec::with_capacity(MAX_DATAGRAM);
        loop {
            datagram.clear();
            tokio::select! {
                message = self.routing.next() => match message {
                    Some((message, _)) if matters(&message.payload) => return,
                    Some(_) => (),
                    None => std::future::pending().await,
                },
                received = self.firewall.recv_from(&mut datagram) => match received {
                    Ok(_) if changes_chains(&datagram) => {
                        self.firewall_changed = true;
                        return;
                    }
                    Ok(_) => (),
                    // Too many events at once for the socket's buffer: any may have been ours.
                    Err(error) => {
                        tracing::debug!(%error, "firewall events were lost");
                        self.firewall_changed = true;
                        return;
                    }
                },
            }
        }
    }
}

fn matters(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    let NetlinkPayload::InnerMessage(message) = payload else { return false };
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => !is_pod_link(link),
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

/// Whether one of the datagram's messages says that a chain or a table came or went, that a chain's policy changed, or
/// that a rule went (ours in Docker's chain are such). Each message has a netlink header of 16 bytes, with its length
/// and kind; the kernel sends a transaction's messages together.
fn changes_chains(mut datagram: &[u8]) -> bool {
    while let Some(&[l0, l1, l2, l3, k0, k1]) = datagram.first_chunk() {
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        if length < 16 || length > datagram.len() {
            // Cut off: it may have been in what is missing.
            return true;
        }
        if matches!(
            u16::from_ne_bytes([k0, k1]),
            NFT_MSG_DELTABLE | NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN | NFT_MSG_DELRULE
        ) {
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
