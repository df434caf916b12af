//! Network namespaces, identified by the kernel's cookie.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

/// The cookie of the network namespace this thread is in: what `bpf_get_netns_cookie` gives for its sockets.
pub fn own_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer is as long as `length` says.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &mut length)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// The source address of packets to `destination`, by this namespace's routes. Nothing is sent.
pub fn source_towards(destination: Ipv4Addr) -> io::Result<Ipv4Addr> {
    const DISCARD: u16 = 9;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((destination, DISCARD))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// `include/uapi/asm-generic/socket.h`
const SO_NETNS_COOKIE: libc::c_int = 71;
