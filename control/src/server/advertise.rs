//! Which address of this machine the API advertises where none is configured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The address to advertise: the first configured one, the one bound to, or the one that the default route leaves by.
///
/// `None` on a machine that has nothing but loopback.
pub fn address(configured: &[IpAddr], bind: SocketAddr) -> Option<Ipv4Addr> {
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
        _ => None,
    };
    configured.iter().copied().find_map(v4).or_else(|| v4(bind.ip())).or_else(outgoing).filter(|ip| !ip.is_loopback())
}

/// The source address the kernel would use; connecting a UDP socket sends nothing. The target is TEST-NET-1 (RFC 5737).
fn outgoing() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_goes_before_what_is_bound() {
        let bind: SocketAddr = "192.0.2.2:6443".parse().unwrap();
        assert_eq!(address(&["192.0.2.1".parse().unwrap()], bind), Some([192, 0, 2, 1].into()));
        assert_eq!(address(&["::1".parse().unwrap()], bind), Some([192, 0, 2, 2].into()));
        assert_eq!(address(&[], "127.0.0.1:0".parse().unwrap()), None);
    }
}
