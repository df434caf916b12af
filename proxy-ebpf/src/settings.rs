//! What the programs know of the node they run on.

/// The only index of `SETTINGS`.
pub const SETTINGS_KEY: u32 = 0;

/// Value of `SETTINGS`, 24 bytes. All zero until the agent has written it: then no address is a NodePort of the
/// loopback.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Cookie of the host's network namespace: only there 127.0.0.1 means the node.
    pub host_netns_cookie: u64,
    /// First address of the Service range, network order.
    pub service_range_be: u32,
    /// Its mask, network order; 0 is no range. Inside the range, what is no frontend is refused.
    pub service_mask_be: u32,
    /// The node's address, network order: the source of packets sent on to another node's backend.
    pub node_address_be: u32,
    /// An address at which every datagram is refused, network order; 0 is none.
    pub refusing_address_be: u32,
}

const _: () = assert!(size_of::<Settings>() == 24);

impl Settings {
    /// Whether `address_be` (network order) is in the Service range.
    #[inline(always)]
    pub fn in_service_range(&self, address_be: u32) -> bool {
        self.service_mask_be != 0 && address_be & self.service_mask_be == self.service_range_be
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn be(address: [u8; 4]) -> u32 {
        u32::from_ne_bytes(address)
    }

    #[test]
    fn only_addresses_of_the_range_are_in_it() {
        let settings = Settings {
            service_range_be: be([10, 96, 0, 0]),
            service_mask_be: be([255, 240, 0, 0]),
            ..Default::default()
        };
        assert!(settings.in_service_range(be([10, 96, 0, 1])));
        assert!(settings.in_service_range(be([10, 111, 255, 255])));
        assert!(!settings.in_service_range(be([10, 112, 0, 0])));
        assert!(!Settings::default().in_service_range(be([10, 96, 0, 1])));
    }
}
