//! getpeername(2): a connected socket's peer is the Service it connected to.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{recvmsg::show_service, socket_address::Family};

/// Hook of getpeername(2) on IPv4 sockets.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    show_service(&ctx, Family::V4)
}

/// Hook of getpeername(2) on IPv6 sockets.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    show_service(&ctx, Family::Mapped)
}
