//! sock_diag: lists the sockets of this thread's network namespace with their socket storage, and closes some.
//!
//! Source: `include/uapi/linux/{inet_diag,sock_diag}.h`. All structures are parsed from bytes; what is malformed is
//! skipped.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use proxy_ebpf::{TCP, Translation, Translations, UDP};

use super::{RedirectedSockets, RemovedBackends};

/// Closes the connected sockets that `lost` strands, and returns how many.
pub fn close_stranded(lost: &RemovedBackends, led: &RedirectedSockets) -> io::Result<usize> {
    let mut closed = 0;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let diag = Diag::open()?;
        if !lost.streams.is_empty() {
            let is_stranded =
                |socket: &Socket| socket.translation.is_some_and(|translation| lost.strands_stream(&translation));
            closed += diag.close(family, TCP, Some(&led.streams), is_stranded)?;
        }
        if lost.concerns_datagrams() {
            let redirected_to = |socket: &Socket| led.datagrams.get(&socket.cookie(), 0).ok();
            let is_stranded = |socket: &Socket| {
                redirected_to(socket)
                    .is_some_and(|redirected_to| lost.strands_datagrams(&redirected_to, socket.peer_port_be()))
            };
            closed += diag.close(family, UDP, None, is_stranded)?;
        }
    }
    Ok(closed)
}

/// `struct inet_diag_sockid`, as the kernel gave it.
type Identity = [u8; IDENTITY];

struct Socket {
    identity: Identity,
    /// Where the datapath led it; only of streams.
    translation: Option<Translation>,
}

impl Socket {
    /// Of the peer, in network order.
    fn peer_port_be(&self) -> u16 {
        let [_, _, a, b, ..] = self.identity;
        u16::from_ne_bytes([a, b])
    }

    /// What `bpf_get_socket_cookie` gives.
    fn cookie(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.identity;
        let (low, high) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        u64::from(high) << 32 | u64::from(low)
    }
}

struct Diag {
    socket: OwnedFd,
}

const IDENTITY: usize = 48;
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// `struct inet_diag_msg`
const MESSAGE: usize = 72;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// `TCP_LISTEN`, `TCP_TIME_WAIT` and `TCP_CLOSE` (an unconnected datagram socket) have no peer to lose.
const CONNECTED_STATES: u32 = 0xfff & !(1 << 10 | 1 << 6 | 1 << 7);

impl Diag {
    fn open() -> io::Result<Self> {
        // SAFETY: a new descriptor, owned from here on.
        let socket = unsafe {
            let raw = libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        Ok(Self { socket })
    }

    fn close(
        &self,
        family: u8,
        protocol: u8,
        storage: Option<&OwnedFd>,
        is_stranded: impl Fn(&Socket) -> bool,
    ) -> io::Result<usize> {
        let mut closed = 0;
        for socket in self.list(family, protocol, storage)?.iter().filter(|socket| is_stranded(socket)) {
            closed += usize::from(self.destroy(family, protocol, &socket.identity)?);
        }
        Ok(closed)
    }

    /// Sockets that have a peer.
    fn list(&self, family: u8, protocol: u8, storage: Option<&OwnedFd>) -> io::Result<Vec<Socket>> {
        let mut body = request(family, protocol, CONNECTED_STATES, &[0; IDENTITY]);
        if let Some(storage) = storage {
            let map = attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &storage.as_raw_fd().to_ne_bytes());
            body.extend(attribute(INET_DIAG_REQ_SK_BPF_STORAGES | NLA_F_NESTED, &map));
        }
        self.send(SOCK_DIAG_BY_FAMILY, (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16, &body)?;
        let mut sockets = Vec::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let length = self.receive(&mut buffer)?;
            for (kind, payload) in messages(&buffer[..length]) {
                match kind as i32 {
                    libc::NLMSG_DONE => return Ok(sockets),
                    libc::NLMSG_ERROR => return Err(error_of(payload)),
                    _ => sockets.extend(parse(payload)),
                }
            }
        }
    }

    /// Whether a socket was closed; one that ended meanwhile was not.
    fn destroy(&self, family: u8, protocol: u8, identity: &Identity) -> io::Result<bool> {
        let body = request(family, protocol, u32::MAX, identity);
        self.send(SOCK_DESTROY, (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16, &body)?;
        let mut buffer = vec![0; 1 << 12];
        let length = self.receive(&mut buffer)?;
        for (kind, payload) in messages(&buffer[..length]) {
            if kind as i32 == libc::NLMSG_ERROR {
                let error = error_of(payload);
                return match error.raw_os_error() {
                    Some(0) => Ok(true),
                    Some(libc::ENOENT) => Ok(false),
                    _ => Err(error),
                };
            }
        }
        Ok(false)
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence number and port: one request at a time on a socket of its own needs neither.
        message.extend([0; 8]);
        message.extend(body);
        // SAFETY: the buffer is valid for its length.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent == message.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is valid for its length.
        let length = unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if length < 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) }
    }
}

/// `struct inet_diag_req_v2`
fn request(family: u8, protocol: u8, states: u32, identity: &Identity) -> Vec<u8> {
    let mut body = vec![family, protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(identity);
    body
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ATTRIBUTE + value.len());
    bytes.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Kind and payload of each netlink message.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// Kind and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NLA_TYPE_MASK, value))
    })
}

fn parse(message: &[u8]) -> Option<Socket> {
    let identity: Identity = message.get(4..4 + IDENTITY)?.try_into().ok()?;
    Some(Socket { identity, translation: translation(message.get(MESSAGE..)?) })
}

fn translation(socket_attributes: &[u8]) -> Option<Translation> {
    let find = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let storages = find(socket_attributes, INET_DIAG_SK_BPF_STORAGES)?;
    let value = find(find(storages, SK_DIAG_BPF_STORAGE)?, SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    if value.len() != size_of::<Translations>() {
        return None;
    }
    // SAFETY: the length is that of the type, which is made of integers alone.
    let translations: Translations = unsafe { std::ptr::read_unaligned(value.as_ptr().cast()) };
    // A connected socket has its only translation first.
    translations.entries.first().filter(|first| first.set != 0).copied()
}

fn error_of(payload: &[u8]) -> io::Error {
    let number = payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    io::Error::from_raw_os_error(-number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written_and_cut_short_bytes_end_them() {
        let mut bytes = attribute(3, b"abcde");
        bytes.extend(attribute(4 | NLA_F_NESTED, b"x"));
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(3, &b"abcde"[..]), (4, &b"x"[..])]);
        assert_eq!(attributes(&bytes[..6]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
