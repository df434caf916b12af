//! Which ports of the NodePort range are free. One port number belongs to one Service, whatever the protocol.

use std::{collections::HashSet, ops::RangeInclusive};

use parking_lot::Mutex;
use rand::RngExt;

/// The ports of one range. All methods are atomic.
#[derive(Debug)]
pub struct NodePorts {
    range: RangeInclusive<u16>,
    used: Mutex<HashSet<u16>>,
}

/// Why a port was not given. The words are Kubernetes' own, completed by what names the setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodePortError {
    #[error(
        "provided port is not in the valid range. The range of valid ports is {}-{} (widen it with \
         --service-node-port-range)", range.start(), range.end()
    )]
    OutsideRange { range: RangeInclusive<u16> },
    #[error("provided port is already allocated")]
    Allocated,
    #[error("range is full")]
    Full,
}

impl NodePorts {
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, used: Mutex::default() }
    }

    pub fn allocate(&self, port: i64) -> Result<u16, NodePortError> {
        let in_range = u16::try_from(port).ok().filter(|port| self.range.contains(port));
        let Some(port) = in_range else { return Err(NodePortError::OutsideRange { range: self.range.clone() }) };
        if self.used.lock().insert(port) { Ok(port) } else { Err(NodePortError::Allocated) }
    }

    /// Any free port; those at the lower end only when no other is left (KEP 3668).
    pub fn allocate_next(&self) -> Result<u16, NodePortError> {
        let (first, last) = (*self.range.start(), *self.range.end());
        if self.range.is_empty() {
            return Err(NodePortError::Full);
        }
        let dynamic = first + self.chosen_by_people();
        let mut used = self.used.lock();
        for (from, to) in [(dynamic, last), (first, dynamic.max(1) - 1)] {
            if from > to {
                continue;
            }
            let start = rand::rng().random_range(from..=to);
            if let Some(free) = (start..=to).chain(from..start).find(|port| !used.contains(port)) {
                used.insert(free);
                return Ok(free);
            }
        }
        Err(NodePortError::Full)
    }

    pub fn release(&self, ports: &[u16]) {
        let mut used = self.used.lock();
        for port in ports {
            used.remove(port);
        }
    }

    pub fn restore(&self, ports: &[u16]) {
        self.used.lock().extend(ports.iter().filter(|port| self.range.contains(port)));
    }

    /// Between 16 and 128 ports, a thirty-second of the range; none of a range that small.
    fn chosen_by_people(&self) -> u16 {
        let size = self.range.len();
        if size <= 16 { 0 } else { (size / 32).clamp(16, 128) as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_range_and_the_flag_that_widens_it() {
        let ports = NodePorts::new(30000..=32767);
        assert_eq!(
            ports.allocate(36000).unwrap_err().to_string(),
            "provided port is not in the valid range. The range of valid ports is 30000-32767 (widen it with \
             --service-node-port-range)"
        );
        assert!(ports.allocate(-1).is_err() && ports.allocate(95536).is_err());
        assert!(NodePorts::new(30000..=40000).allocate(36000).is_ok());
    }

    #[test]
    fn every_port_is_given_once_until_none_is_left() {
        let ports = NodePorts::new(30000..=30031);
        let mut given: Vec<u16> = (0..32).map(|_| ports.allocate_next().unwrap()).collect();
        assert!(given[..16].iter().all(|p| *p >= 30016), "the lower half is left to people: {given:?}");
        assert_eq!(ports.allocate_next(), Err(NodePortError::Full));
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 32);
    }
}
