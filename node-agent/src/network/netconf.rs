//! What the kernel says of the settings of links: whether one was taken away that pods' links need.
//!
//! `net.ipv4.ip_forward=0` takes forwarding from every link at once, and a program that writes the host's settings anew
//! (`sysctl --system`) may weaken the reverse-path check of each.

use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

/// A socket on which the kernel tells changes of settings, in the namespace of the calling thread.
pub fn open() -> std::io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(MulticastGroup::Ipv4Netconf as u32)?;
    Ok(socket)
}

/// Whether a message says that forwarding was switched off, or that the check of reverse paths is not the strict one
/// any more. That of a new link, which lists all settings, says neither: who makes a link sets them.
pub fn takes_setting_away(kind: u16, body: &[u8]) -> bool {
    if kind != RTM_NEWNETCONF {
        return false;
    }
    let settings: Vec<(u16, i32)> = settings(body).filter(|(setting, _)| *setting != NETCONFA_IFINDEX).collect();
    matches!(settings[..], [(NETCONFA_FORWARDING, 0)] | [(NETCONFA_RP_FILTER, 0 | 2)])
}

/// The attributes after `struct netconfmsg`, which is one byte and its padding. Each has a length, a kind and a number.
fn settings(body: &[u8]) -> impl Iterator<Item = (u16, i32)> {
    let attributes = body.get(4..).unwrap_or_default().chunks_exact(8);
    attributes.map(|attribute| {
        let [_, _, k0, k1, value @ ..] = *attribute.first_chunk::<8>().expect("chunks of 8 bytes");
        (u16::from_ne_bytes([k0, k1]), i32::from_ne_bytes(value))
    })
}

const RTM_NEWNETCONF: u16 = 80;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn body(settings: &[(u16, i32)]) -> Vec<u8> {
        let attribute = |(kind, value): &(u16, i32)| {
            let header = [8u16.to_ne_bytes(), kind.to_ne_bytes()].concat();
            [header, value.to_ne_bytes().to_vec()].concat()
        };
        [vec![libc::AF_INET as u8, 0, 0, 0], settings.iter().flat_map(attribute).collect()].concat()
    }

    #[test]
    fn a_setting_that_is_taken_away_matters_and_a_new_link_does_not() {
        let takes = |settings: &[(u16, i32)]| takes_setting_away(RTM_NEWNETCONF, &body(settings));
        assert!(takes(&[(NETCONFA_IFINDEX, 7), (NETCONFA_FORWARDING, 0)]));
        assert!(takes(&[(NETCONFA_IFINDEX, 7), (NETCONFA_RP_FILTER, 0)]));
        assert!(takes(&[(NETCONFA_IFINDEX, 7), (NETCONFA_RP_FILTER, 2)]));
        assert!(!takes(&[(NETCONFA_IFINDEX, 7), (NETCONFA_FORWARDING, 1)]), "our own doing");
        assert!(!takes(&[(NETCONFA_IFINDEX, 7), (NETCONFA_RP_FILTER, 1)]), "our own doing");
        assert!(!takes(&[(NETCONFA_IFINDEX, 7), (NETCONFA_FORWARDING, 0), (NETCONFA_RP_FILTER, 0)]), "a new link");
        assert!(!takes_setting_away(RTM_NEWNETCONF + 1, &body(&[(NETCONFA_IFINDEX, 7)])), "a link went");
        assert!(!takes_setting_away(RTM_NEWNETCONF, &[]) && !takes_setting_away(RTM_NEWNETCONF, &[2, 0, 0, 0, 8]));
    }
}
