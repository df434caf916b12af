//! Which addresses of the service range are free, and which one a Service gets.
//!
//! Automatic allocation leaves the lower end of the range to addresses that users choose, as long as others are free
//! (KEP 3070).

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use rand::RngExt;

/// The range that ClusterIPs are taken from. The caller looks up in the store which ones are taken.
#[derive(Clone, Copy, Debug)]
pub struct ClusterIps {
    range: Ipv4Network,
}

/// Why an address was not given. The words are Kubernetes' own, completed by what names the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterIpError {
    /// Ask for another address, or for none.
    #[error(
        "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range} (set by --service-cidr)"
    )]
    OutsideRange { ip: Ipv4Addr, range: Ipv4Network },
    /// Another Service has it.
    #[error("provided IP is already allocated")]
    Allocated,
    /// No address is free: the range cannot be changed while Services have addresses.
    #[error("range is full")]
    Full,
}

impl ClusterIps {
    /// The addresses of `range`.
    pub fn new(range: Ipv4Network) -> Self {
        Self { range }
    }

    /// Whether a Service may have this address.
    pub fn check(&self, ip: Ipv4Addr, is_taken: impl Fn(Ipv4Addr) -> bool) -> Result<(), ClusterIpError> {
        if !self.contains(ip) {
            return Err(ClusterIpError::OutsideRange { ip, range: self.range });
        }
        if is_taken(ip) { Err(ClusterIpError::Allocated) } else { Ok(()) }
    }

    /// Any free address. Looks at O(1) addresses on average while the range is not nearly full.
    pub fn any_free(&self, is_taken: impl Fn(Ipv4Addr) -> bool) -> Result<Ipv4Addr, ClusterIpError> {
        let (first, last) = self.usable();
        let dynamic = first + self.static_band();
        for (from, to) in [(dynamic, last), (first, dynamic.saturating_sub(1))] {
            if from > to {
                continue;
            }
            let start = rand::rng().random_range(from..=to);
            if let Some(free) = (start..=to).chain(from..start).map(Ipv4Addr::from).find(|ip| !is_taken(*ip)) {
                return Ok(free);
            }
        }
        Err(ClusterIpError::Full)
    }

    /// Whether the range has this address for a Service.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        let (first, last) = self.usable();
        (first..=last).contains(&u32::from(ip))
    }

    /// Without the network's own address and the broadcast address.
    fn usable(&self) -> (u32, u32) {
        let (first, last) = (u32::from(self.range.network()), u32::from(self.range.broadcast()));
        if last - first < 2 { (first, last) } else { (first + 1, last - 1) }
    }

    /// Size of the band that is kept for addresses users choose (KEP 3070): a sixteenth of the range, between 16 and
    /// 256; 0 for a range of at most 16 addresses.
    fn static_band(&self) -> u32 {
        let (first, last) = self.usable();
        let size = last - first + 1;
        if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ips(range: &str) -> ClusterIps {
        ClusterIps::new(range.parse().unwrap())
    }

    #[test]
    fn every_address_is_given_once_until_none_is_left() {
        let ips = ips("10.96.0.0/28");
        let mut taken = HashSet::new();
        for _ in 0..14 {
            let free = ips.any_free(|ip| taken.contains(&ip)).unwrap();
            assert!(taken.insert(free));
        }
        assert_eq!(ips.any_free(|ip| taken.contains(&ip)), Err(ClusterIpError::Full));
        assert!(!taken.contains(&Ipv4Addr::new(10, 96, 0, 0)) && !taken.contains(&Ipv4Addr::new(10, 96, 0, 15)));
    }

    #[test]
    fn the_low_addresses_are_left_to_people() {
        let ips = ips("10.96.0.0/12");
        for _ in 0..500 {
            assert!(ips.any_free(|_| false).unwrap() > Ipv4Addr::new(10, 96, 1, 0));
        }
    }

    #[test]
    fn the_smallest_ranges_have_addresses_too() {
        for (range, count) in [("10.0.0.0/32", 1), ("10.0.0.0/31", 2), ("10.0.0.0/30", 2), ("255.255.255.255/32", 1)] {
            let ips = ips(range);
            let mut taken = HashSet::new();
            while let Ok(free) = ips.any_free(|ip| taken.contains(&ip)) {
                taken.insert(free);
            }
            assert_eq!(taken.len(), count, "{range}");
        }
    }

    #[test]
    fn a_refusal_names_the_range() {
        let ips = ips("10.96.0.0/12");
        let error = ips.check("10.0.0.1".parse().unwrap(), |_| false).unwrap_err().to_string();
        assert!(
            error.contains("(10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12"),
            "{error}"
        );
        assert_eq!(ips.check("10.96.0.10".parse().unwrap(), |_| false), Ok(()));
        assert_eq!(ips.check("10.96.0.10".parse().unwrap(), |_| true), Err(ClusterIpError::Allocated));
    }
}
