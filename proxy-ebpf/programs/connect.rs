//! connect(2): a socket that connects to a Service is pointed at a backend, once.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::generated::{bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use proxy_ebpf::{MemberKey, REFUSING_SET, SETTINGS_KEY, TCP, Translation, UDP};

use crate::{
    maps::{CONNECTED_DATAGRAMS, SETTINGS, SOCKETS},
    resolve::{Resolved, resolve},
    socket_address::{self, Family, SocketAddress},
};

/// Verdict: the system call goes on.
pub const ALLOW: i32 = 1;
/// Verdict: the system call fails.
pub const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// Hook of connect(2) on IPv4 sockets.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::V4)
}

/// Hook of connect(2) on IPv6 sockets, which may use IPv4-mapped addresses.
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
                    CONNECTED_DATAGRAMS.remove(cookie(ctx)).ok();
                }
            }
            ALLOW
        }
        Resolved::Refused if protocol == UDP => connect_to_refusal(ctx, family, to),
        Resolved::Refused => refuse(),
        Resolved::Backend(translation) => {
            // SAFETY: as above. Without memory for the storage the connection works, and shows its true peer.
            if let Some(socket) = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None).as_mut() } {
                socket.replace(translation);
            }
            if protocol == UDP {
                remember_datagrams(ctx, &translation);
            }
            let to = SocketAddress { address_be: translation.backend_address_be, port_be: translation.backend_port_be };
            socket_address::write(ctx, family, to);
            ALLOW
        }
    }
}

/// Connecting a UDP socket sends nothing, and succeeds where nobody serves: so programs find their own source address.
/// What is sent over it is refused, by the address that it is sent to.
#[inline(always)]
fn connect_to_refusal(ctx: &SockAddrContext, family: Family, to: SocketAddress) -> i32 {
    let refusing_be = SETTINGS.get(SETTINGS_KEY).map_or(0, |settings| settings.refusing_address_be);
    if refusing_be == 0 {
        return refuse();
    }
    // By it the socket is closed once somebody serves the address.
    let refused = MemberKey { set: REFUSING_SET, backend: to.address_be };
    CONNECTED_DATAGRAMS.insert(cookie(ctx), refused, BPF_ANY as u64).ok();
    // SAFETY: as above. Without memory for the storage the socket shows its true peer.
    if let Some(socket) = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None).as_mut() } {
        socket.replace(Translation {
            service_address_be: to.address_be,
            backend_address_be: refusing_be,
            service_port_be: to.port_be,
            backend_port_be: to.port_be,
            set: REFUSING_SET,
            generation: 0,
            backend: 0,
        });
    }
    socket_address::write(ctx, family, SocketAddress { address_be: refusing_be, port_be: to.port_be });
    ALLOW
}

#[inline(always)]
fn remember_datagrams(ctx: &SockAddrContext, translation: &Translation) {
    let led_to = MemberKey { set: translation.set, backend: translation.backend };
    // A socket that is not remembered works, and is not closed when its backend leaves.
    CONNECTED_DATAGRAMS.insert(cookie(ctx), led_to, BPF_ANY as u64).ok();
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: a plain helper call on a valid context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The call fails with ECONNREFUSED, as when a host answers that nothing listens.
#[inline(always)]
pub fn refuse() -> i32 {
    // SAFETY: a plain helper call.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}
