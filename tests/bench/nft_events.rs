//! When nftables rules came into the kernel: its own notifications, read by a child in the namespace of the firewall.
//!
//! The child listens to NFNLGRP_NFTABLES and prints one line for each rule that names an address of
//! [`Watcher::NETWORK`], with the time of CLOCK_MONOTONIC, which all namespaces share.

use std::{
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use crate::kit::{Result, host::Host};

/// The listening child, and what it has said.
pub struct Watcher {
    child: Child,
    rules: Receiver<(Ipv4Addr, u64)>,
}

impl Watcher {
    /// The first two bytes of the addresses that are looked for.
    pub const NETWORK: [u8; 2] = [10, 246];

    /// Returns once it listens.
    pub fn start(host: &Host) -> Result<Self> {
        let mut command = host.command(std::env::current_exe()?);
        let mut child = command.arg("--nft-events").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let first = lines.next().ok_or("the listener for nftables ended")??;
        if first != LISTENING {
            return Err(format!("the listener for nftables said {first:?}").into());
        }
        let (send, rules) = channel();
        // Ends with the child's output.
        std::thread::spawn(move || {
            for rule in lines.map_while(std::result::Result::ok).filter_map(|line| parse(&line)) {
                if send.send(rule).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, rules })
    }

    /// Nanoseconds of CLOCK_MONOTONIC at which the kernel told of the first rule with `address` since the last call.
    pub fn wait_for(&self, address: Ipv4Addr, patience: Duration) -> Result<u64> {
        let start = Instant::now();
        loop {
            match self.rules.recv_timeout(patience.saturating_sub(start.elapsed())) {
                Ok((seen, at)) if seen == address => return Ok(at),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(format!("no rule for {address} in {patience:?}").into()),
                Err(RecvTimeoutError::Disconnected) => return Err("the listener for nftables ended".into()),
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("cannot end the listener for nftables: {error}");
        }
    }
}

const LISTENING: &str = "listening";

fn parse(line: &str) -> Option<(Ipv4Addr, u64)> {
    let (address, at) = line.split_once(' ')?;
    Some((address.parse().ok()?, at.parse().ok()?))
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec into the one given.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The child: prints what comes until it is killed.
pub fn listen() -> Result {
    let socket = open()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{LISTENING}")?;
    out.flush()?;
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        // SAFETY: the buffer is writable for its whole length.
        let length = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let now = monotonic_ns();
        let Ok(length) = usize::try_from(length) else {
            let error = std::io::Error::last_os_error();
            // More than fits at once, as while thousands of Services load: what is waited for comes alone.
            if error.raw_os_error() == Some(libc::ENOBUFS) {
                continue;
            }
            return Err(error.into());
        };
        for address in rules(&buffer[..length]).flat_map(addresses) {
            writeln!(out, "{address} {now}")?;
        }
        out.flush()?;
    }
}

fn open() -> Result<OwnedFd> {
    const NFNLGRP_NFTABLES: u32 = 7;
    let receive_bytes: libc::c_int = 64 << 20;
    // SAFETY: plain system calls; the descriptor that comes back is owned from here on.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let size = size_of_val(&receive_bytes) as libc::socklen_t;
        if libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const receive_bytes).cast(), size) < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let mut address: libc::sockaddr_nl = std::mem::zeroed();
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = 1 << (NFNLGRP_NFTABLES - 1);
        if libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_nl>() as libc::socklen_t) < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(socket)
    }
}

/// The bodies of the NFT_MSG_NEWRULE messages in a netlink datagram (linux/netlink.h, linux/netfilter/nf_tables.h).
fn rules(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    const NEW_RULE: u16 = 10 << 8 | 6;
    const HEADER: usize = 16;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
        let message = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, message))
    })
    .filter(|(kind, _)| *kind == NEW_RULE)
    .map(|(_, message)| message)
}

/// Addresses of the network that is looked for, as a rule's data holds them.
fn addresses(rule: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    let [a, b] = Watcher::NETWORK;
    rule.windows(4)
        .filter(move |bytes| bytes[..2] == [a, b])
        .map(|bytes| Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
}
