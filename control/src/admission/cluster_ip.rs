//! Which addresses of the service range are free.
//!
//! The lower end is left to addresses that people choose, as long as there are others (KEP 3070).

use std::{collections::HashSet, net::Ipv4Addr};

use ipnetwork::Ipv4Network;
use parking_lot::Mutex;
use rand::RngExt;

/// The addresses of one range. All methods are atomic.
#[derive(Debug)]
pub struct ClusterIps {
    range: Ipv4Network,
    /// As numbers in host order.
    used: Mutex<HashSet<u32>>,
}

/// Why an address was not given. The words are Kubernetes' own, completed by what names the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterIpError {
    #[error(
        "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range} (set by --service-cidr)"
    )]
    OutsideRange { ip: Ipv4Addr, range: Ipv4Network },
    #[error("provided IP is already allocated")]
    Allocated,
    #[error("range is full")]
    Full,
}

impl ClusterIps {
    pub fn new(range: Ipv4Network) -> Self {
        Self { range, used: Mutex::default() }
    }

    pub fn allocate(&self, ip: Ipv4Addr) -> Result<(), ClusterIpError> {
        let (first, last) = self.usable();
        if !(first..=last).contains(&u32::from(ip)) {
            return Err(ClusterIpError::OutsideRange { ip, range: self.range });
        }
        if self.used.lock().insert(u32::from(ip)) { Ok(()) } else { Err(ClusterIpError::Allocated) }
    }

    /// Any free address. Cost O(1) on average while the range is not nearly full.
    pub fn allocate_next(&self) -> Result<Ipv4Addr, ClusterIpError> {
        let (first, last) = self.usable();
        let dynamic = first + self.chosen_by_people();
        let mut used = self.used.lock();
        for (from, to) in [(dynamic, last), (first, dynamic - 1)] {
            if from > to {
                continue;
            }
            let start = rand::rng().random_range(from..=to);
            if let Some(free) = (start..=to).chain(from..start).find(|ip| !used.contains(ip)) {
                used.insert(free);
                return Ok(Ipv4Addr::from(free));
            }
        }
        Err(ClusterIpError::Full)
    }

    pub fn release(&self, ips: &[Ipv4Addr]) {
        let mut used = self.used.lock();
        for ip in ips {
            used.remove(&u32::from(*ip));
        }
    }

    pub fn restore(&self, ips: &[Ipv4Addr]) {
        self.used.lock().extend(ips.iter().filter(|ip| self.range.contains(**ip)).map(|ip| u32::from(*ip)));
    }

    /// Without the network's own address and the broadcast address.
    fn usable(&self) -> (u32, u32) {
        let (first, last) = (u32::from(self.range.network()), u32::from(self.range.broadcast()));
        if last - first < 2 { (first, last) } else { (first + 1, last - 1) }
    }

    /// Between 16 and 256 addresses, a sixteenth of the range; none of a range that small.
    fn chosen_by_people(&self) -> u32 {
        let (first, last) = self.usable();
        let size = last - first + 1;
        if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(range: &str) -> ClusterIps {
        ClusterIps::new(range.parse().unwrap())
    }

    #[test]
    fn every_address_is_given_once_until_none_is_left() {
        let ips = ips("10.96.0.0/28");
        let mut given: Vec<Ipv4Addr> = (0..14).map(|_| ips.allocate_next().unwrap()).collect();
        assert_eq!(ips.allocate_next(), Err(ClusterIpError::Full));
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 14);
        assert!(!given.contains(&"10.96.0.0".parse().unwrap()) && !given.contains(&"10.96.0.15".parse().unwrap()));
        ips.release(&given[..1]);
        assert_eq!(ips.allocate_next(), Ok(given[0]));
    }

    #[test]
    fn the_low_addresses_are_left_to_people() {
        let ips = ips("10.96.0.0/12");
        for _ in 0..500 {
            assert!(ips.allocate_next().unwrap() > Ipv4Addr::new(10, 96, 1, 0));
        }
    }

    #[test]
    fn a_refusal_names_the_range() {
        let ips = ips("10.96.0.0/12");
        let error = ips.allocate("10.0.0.1".parse().unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("(10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12"),
            "{error}"
        );
        ips.allocate("10.96.0.10".parse().unwrap()).unwrap();
        assert_eq!(ips.allocate("10.96.0.10".parse().unwrap()), Err(ClusterIpError::Allocated));
    }
}
