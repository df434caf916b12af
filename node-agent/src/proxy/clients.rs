//! Learns which address the clients in a network namespace have, for session affinity.
//!
//! The programs ask for a namespace when a client in it first uses a Service with affinity. Until the answer is there, such a client
//! is known by its namespace alone; its affinity then goes on under its address.

use std::{fs::File, io, net::Ipv4Addr};

use aya::maps::{MapData, RingBuf};
use nix::sched::{CloneFlags, setns};
use proxy_ebpf::UnknownClient;
use tokio::io::unix::AsyncFd;

use super::netns;

/// The programs' questions.
pub struct Clients {
    questions: AsyncFd<RingBuf<MapData>>,
}

impl Clients {
    /// Must be called within a tokio runtime.
    pub fn new(questions: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the descriptor is the ring buffer's own, open until the `AsyncFd` that holds it is dropped.
        Ok(Self { questions: unsafe { AsyncFd::register(questions)? } })
    }

    /// Waits for questions. Cancel safe: an unread question stays in the queue.
    pub async fn asked(&mut self) -> io::Result<Vec<UnknownClient>> {
        loop {
            let mut ready = self.questions.readable_mut().await?;
            let mut asked: Vec<UnknownClient> = Vec::new();
            while let Some(message) = ready.get_inner_mut().next() {
                let question = UnknownClient::parse(&message);
                asked.extend(
                    question.filter(|question| !asked.iter().any(|known| known.netns_cookie == question.netns_cookie)),
                );
            }
            ready.clear_ready();
            if !asked.is_empty() {
                return Ok(asked);
            }
        }
    }
}

/// The address that packets to `towards` have as their source in the namespace of the question.
pub fn address(question: &UnknownClient, towards: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let namespace = File::open(format!("/proc/{}/ns/net", question.process))?;
    let cookie = question.netns_cookie;
    let inside = std::thread::Builder::new().name("fairlead-client".into()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        if netns::own_cookie()? != cookie {
            // The process moved, or its number is another's by now.
            return Err(io::ErrorKind::NotFound.into());
        }
        netns::source_towards(towards)
    })?;
    inside.join().unwrap_or_else(|_| Err(io::Error::other("the thread that asked panicked")))
}
