//! connect(2): a socket that connects to a Service is pointed at a backend, once.

use aya_ebpf::{helpers::generated::bpf_set_retval, macros::cgroup_sock_addr, programs::SockAddrContext};
use proxy_ebpf::{TCP, UDP};

use crate::{
    maps::SOCKETS,
    resolve::{Resolved, resolve},
    socket_address::{self, Family, SocketAddress},
};

pub const ALLOW: i32 = 1;
pub const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::V4)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::Mapped)
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, family: Family) -> i32 {
    let protocol = socket_address::protocol(ctx);
    if protocol != TCP && protocol != UDP {
        return ALLOW;
    }
    let Some(to) = socket_address::read(ctx, family) else { return ALLOW };
    match resolve(ctx, to, protocol) {
        Resolved::NoService => {
            if protocol == UDP {
                // SAFETY: the storage belongs to the socket of this call and outlives it.
                if let Some(socket) = unsafe { SOCKETS.get_ptr_mut(ctx).as_mut() } {
                    socket.clear();
                }
            }
            ALLOW
        }
        Resolved::Refused => refuse(),
        Resolved::Backend(translation) => {
            // SAFETY: as above. Without memory for the storage the connection works, and shows its true peer.
            if let Some(socket) = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None).as_mut() } {
                socket.replace(translation);
            }
            let to = SocketAddress { address_be: translation.backend_address_be, port_be: translation.backend_port_be };
            socket_address::write(ctx, family, to);
            ALLOW
        }
    }
}

/// The call fails with ECONNREFUSED, as when a host answers that nothing listens.
#[inline(always)]
pub fn refuse() -> i32 {
    // SAFETY: a plain helper call.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}
