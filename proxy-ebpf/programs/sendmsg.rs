//! sendmsg(2) of an unconnected UDP socket: each datagram to a Service goes to the backend the socket has there.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use proxy_ebpf::UDP;

use crate::{
    connect::{ALLOW, refuse},
    maps::SOCKETS,
    resolve::{Resolved, resolve},
    socket_address::{self, Family, SocketAddress},
};

/// Hook of sendmsg(2) on IPv4 sockets.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, Family::V4)
}

/// Hook of sendmsg(2) on IPv6 sockets.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, Family::Mapped)
}

#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, family: Family) -> i32 {
    if socket_address::protocol(ctx) != UDP {
        return ALLOW;
    }
    let Some(to) = socket_address::read(ctx, family) else { return ALLOW };
    match resolve(ctx, to, UDP) {
        Resolved::NoService => ALLOW,
        Resolved::Refused => refuse(),
        Resolved::Backend(translation) => {
            // SAFETY: the storage belongs to the socket of this call and outlives it. Without memory for it the reply
            // would come from an address the program never sent to: better to fail the call.
            let Some(socket) = (unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None).as_mut() }) else { return refuse() };
            socket.record(translation);
            let to = SocketAddress { address_be: translation.backend_address_be, port_be: translation.backend_port_be };
            socket_address::write(ctx, family, to);
            ALLOW
        }
    }
}
