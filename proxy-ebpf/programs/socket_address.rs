//! Reading and writing the IPv4 address of a socket call, in the `*4` hooks and, v4-mapped, in the `*6` hooks.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};

/// How the hook carries the address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A `*4` hook: `user_ip4`.
    V4,
    /// `::ffff:a.b.c.d`
    Mapped,
}

/// IPv4 address and port, both in network order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SocketAddress {
    /// IPv4, network order.
    pub address_be: u32,
    /// Network order.
    pub port_be: u16,
}

const MAPPED_PREFIX_BE: u32 = 0xffff_u32.to_be();

/// The address of the call; `None` where a `*6` hook carries a true IPv6 address.
#[inline(always)]
pub fn read(ctx: &SockAddrContext, family: Family) -> Option<SocketAddress> {
    let sock_addr: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the kernel hands a valid context for the duration of the program.
    unsafe {
        let address_be = match family {
            Family::V4 => (*sock_addr).user_ip4,
            Family::Mapped => {
                let [a, b, c, d] = [
                    (&raw const (*sock_addr).user_ip6[0]).read_volatile(),
                    (&raw const (*sock_addr).user_ip6[1]).read_volatile(),
                    (&raw const (*sock_addr).user_ip6[2]).read_volatile(),
                    (&raw const (*sock_addr).user_ip6[3]).read_volatile(),
                ];
                if a != 0 || b != 0 || c != MAPPED_PREFIX_BE {
                    return None;
                }
                d
            }
        };
        Some(SocketAddress { address_be, port_be: (&raw const (*sock_addr).user_port).read_volatile() as u16 })
    }
}

/// Replaces the address of the call.
#[inline(always)]
pub fn write(ctx: &SockAddrContext, family: Family, to: SocketAddress) {
    let sock_addr = ctx.sock_addr;
    // SAFETY: as in `read`; the hooks may write these fields.
    unsafe {
        match family {
            Family::V4 => (&raw mut (*sock_addr).user_ip4).write_volatile(to.address_be),
            Family::Mapped => (&raw mut (*sock_addr).user_ip6[3]).write_volatile(to.address_be),
        }
        (&raw mut (*sock_addr).user_port).write_volatile(to.port_be as u32);
    }
}

/// `IPPROTO_*` of the socket.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: as in `read`.
    unsafe { (*ctx.sock_addr).protocol as u8 }
}
