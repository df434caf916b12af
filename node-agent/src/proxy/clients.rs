//! Learns which address the clients in a network namespace have, for session affinity.
//!
//! The programs report a namespace when a client in it first uses a Service with affinity. Until its address is stored,
//! affinity is kept by namespace; later entries are kept by address.

use std::{fs::File, io, net::Ipv4Addr};

use aya::maps::{MapData, RingBuf};
use proxy_ebpf::UnknownClient;
use tokio::io::unix::AsyncFd;

use super::netns;
use crate::network::inside::run_inside;

/// The queue of clients whose address the programs do not know.
pub struct UnknownClients {
    queue: AsyncFd<RingBuf<MapData>>,
}

impl UnknownClients {
    /// Must be called within a tokio runtime.
    pub fn new(queue: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the descriptor is the ring buffer's own, open until the `AsyncFd` that holds it is dropped.
        Ok(Self { queue: unsafe { AsyncFd::register(queue)? } })
    }

    /// Waits for unknown clients, one per network namespace. Cancel safe: what is unread stays in the queue.
    pub async fn next(&mut self) -> io::Result<Vec<UnknownClient>> {
        loop {
            let mut ready = self.queue.readable_mut().await?;
            let mut unknown: Vec<UnknownClient> = Vec::new();
            while let Some(message) = ready.get_inner_mut().next() {
                let client = UnknownClient::parse(&message);
                unknown.extend(
                    client.filter(|client| !unknown.iter().any(|known| known.netns_cookie == client.netns_cookie)),
                );
            }
            ready.clear_ready();
            if !unknown.is_empty() {
                return Ok(unknown);
            }
        }
    }
}

/// The source address of packets to `towards` in the client's network namespace.
pub fn address(client: &UnknownClient, towards: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let namespace = File::open(format!("/proc/{}/ns/net", client.process))?;
    let cookie = client.netns_cookie;
    run_inside(namespace, move || {
        if netns::own_cookie()? != cookie {
            // The process moved, or its number is another's by now.
            return Err(io::ErrorKind::NotFound.into());
        }
        netns::source_towards(towards)
    })
}
