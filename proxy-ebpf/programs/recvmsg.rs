//! recvmsg(2) of a UDP socket: a datagram from a backend is shown as coming from the Service it was asked through.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    connect::ALLOW,
    maps::SOCKETS,
    socket_address::{self, Family, SocketAddress},
};

/// Hook of recvmsg(2) on IPv4 sockets.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    show_service(&ctx, Family::V4)
}

/// Hook of recvmsg(2) on IPv6 sockets.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    show_service(&ctx, Family::Mapped)
}

/// Replaces a backend's address with that of the Service, where this socket has such a translation.
#[inline(always)]
pub fn show_service(ctx: &SockAddrContext, family: Family) -> i32 {
    let Some(from) = socket_address::read(ctx, family) else { return ALLOW };
    // SAFETY: the storage belongs to the socket of this call and outlives it.
    if let Some(socket) = unsafe { SOCKETS.get_ptr_mut(ctx).as_ref() }
        && let Some(translation) = socket.of_backend(from.address_be, from.port_be)
    {
        let service =
            SocketAddress { address_be: translation.service_address_be, port_be: translation.service_port_be };
        socket_address::write(ctx, family, service);
    }
    ALLOW
}
