//! Tells when somebody else changed what the pod network rests on: links, addresses, our routes, our nftables table.
//!
//! It says *that* something changed, never what to do: the follower looks again.

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

use super::{
    netlink::{NetlinkError, ROUTE_PROTOCOL},
    pod_link,
};

type Message = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

pub struct KernelEvents {
    routing: UnboundedReceiver<Message>,
    firewall: TokioSocket,
    table_may_be_gone: bool,
}

impl KernelEvents {
    /// For the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
        let (connection, _handle, routing) =
            rtnetlink::new_multicast_connection(&groups).map_err(NetlinkError::Open)?;
        tokio::spawn(connection);
        let mut firewall = TokioSocket::new(NETLINK_NETFILTER).map_err(NetlinkError::Open)?;
        firewall.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        firewall.socket_mut().add_membership(NFNLGRP_NFTABLES).map_err(NetlinkError::Open)?;
        Ok(Self { routing, firewall, table_may_be_gone: false })
    }

    /// Returns after something changed, and what came with it has settled.
    pub async fn next(&mut self) {
        self.one().await;
        let settled = async {
            loop {
                self.one().await;
            }
        };
        // The end of waiting is what is waited for.
        tokio::time::timeout(SETTLE, settled).await.unwrap_or_default()
    }

    /// Whether since the last call a table of ours was deleted, maybe by ourselves to write it anew.
    pub fn table_may_be_gone(&mut self) -> bool {
        std::mem::take(&mut self.table_may_be_gone)
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
                    Ok(_) if deletes_our_table(&datagram) => {
                        self.table_may_be_gone = true;
                        return;
                    }
                    Ok(_) => (),
                    // Too many events at once for the socket's buffer: any may have been ours.
                    Err(error) => {
                        tracing::debug!(%error, "firewall events were lost");
                        self.table_may_be_gone = true;
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

/// Whether one of the datagram's messages is an `NFT_MSG_DELTABLE` of a table with our name. Each has a netlink header of 16 bytes,
/// a `nfgenmsg` of 4, and then the attribute `NFTA_TABLE_NAME`; the kernel sends a transaction's messages together.
fn deletes_our_table(mut datagram: &[u8]) -> bool {
    while let Some(&[l0, l1, l2, l3, k0, k1]) = datagram.first_chunk() {
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(message) = datagram.get(..length).filter(|message| message.len() >= 16) else {
            // Cut off: it may have been in what is missing.
            return true;
        };
        let ours = || message.windows(TABLE_NAME.len()).any(|window| window == TABLE_NAME);
        if u16::from_ne_bytes([k0, k1]) == NFT_MSG_DELTABLE && ours() {
            return true;
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE`
const NFT_MSG_DELTABLE: u16 = (10 << 8) | 2;
const NFNLGRP_NFTABLES: u32 = 7;
const TABLE_NAME: &[u8] = b"fairlead\0";
const MAX_DATAGRAM: usize = 32 * 1024;

/// Changes come in bursts: a link that comes up brings addresses and routes.
const SETTLE: Duration = Duration::from_millis(20);
