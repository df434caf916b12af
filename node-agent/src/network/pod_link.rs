//! Names and MAC addresses of a pod's veth pair: derived, never stored.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use super::netlink::Mac;

/// Name of the link inside the pod, where everybody expects it.
pub const POD_END: &str = "eth0";

/// Name of the host's end: `fl` and ten hex digits of the UID's hash, within the kernel's 15 characters.
pub fn host_end(pod_uid: &str) -> String {
    format!("fl{}", hex::encode(&Sha256::digest(pod_uid.as_bytes())[..5]))
}

/// Whether `name` has the form of [`host_end`].
pub fn is_pod_link(name: &str) -> bool {
    name.strip_prefix("fl").is_some_and(|hash| hash.len() == 10 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// MAC of the pod's end. Locally administered, and unique because the address is.
pub fn pod_mac(address: Ipv4Addr) -> Mac {
    mac(0x70, address)
}

/// MAC of the host's end of the same pair.
pub fn host_mac(address: Ipv4Addr) -> Mac {
    mac(0x68, address)
}

fn mac(side: u8, address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0xf2, side, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_fit_the_kernel_and_differ() {
        let (a, b) = (host_end("uid-a"), host_end("uid-b"));
        assert!(a != b && a.len() < 16 && is_pod_link(&a));
        assert!(!is_pod_link("flannel.1") && !is_pod_link("eth0"));
    }

    #[test]
    fn mac_addresses_are_unicast_and_locally_administered() {
        let mac = pod_mac(Ipv4Addr::new(10, 244, 1, 2));
        assert_eq!(mac[0] & 0b11, 0b10);
        assert_ne!(mac, host_mac(Ipv4Addr::new(10, 244, 1, 2)));
    }
}
