//! Which ports of the NodePort range are free, and which one a Service gets. One port number belongs to one Service,
//! whatever the protocol.

use std::ops::RangeInclusive;

use rand::RngExt;

/// The range that NodePorts are taken from. The caller looks up in the store which ones are taken.
#[derive(Clone, Debug)]
pub struct NodePorts {
    range: RangeInclusive<u16>,
}

/// Who has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortHolder {
    /// A Service.
    Service,
    /// The agents of one or more nodes.
    Agents,
}

/// Why a port was not given. The words are Kubernetes' own, completed by what names the setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodePortError {
    /// Ask for another port, or for none.
    #[error(
        "provided port is not in the valid range. The range of valid ports is {}-{} (widen it with \
         --service-node-port-range)", range.start(), range.end()
    )]
    OutsideRange { range: RangeInclusive<u16> },
    /// Another Service has it.
    #[error("provided port is already allocated")]
    Allocated,
    /// Agents of nodes listen on it: ask for another port, or move those with `--port`.
    #[error("provided port is the port on which the agent of a node listens")]
    Agents,
    /// No port is free: widen the range with `--service-node-port-range`.
    #[error("range is full")]
    Full,
}

impl NodePorts {
    /// The ports of `range`.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { range }
    }

    /// The port of this number, if a Service may have it.
    pub fn check(&self, port: i64, holder: impl Fn(u16) -> Option<PortHolder>) -> Result<u16, NodePortError> {
        let in_range = u16::try_from(port).ok().filter(|port| self.range.contains(port));
        let Some(port) = in_range else { return Err(NodePortError::OutsideRange { range: self.range.clone() }) };
        match holder(port) {
            None => Ok(port),
            Some(PortHolder::Service) => Err(NodePortError::Allocated),
            Some(PortHolder::Agents) => Err(NodePortError::Agents),
        }
    }

    /// Any free port; those at the lower end only when no other is left (KEP 3668).
    pub fn any_free(&self, is_taken: impl Fn(u16) -> bool) -> Result<u16, NodePortError> {
        let (first, last) = (*self.range.start(), *self.range.end());
        if self.range.is_empty() {
            return Err(NodePortError::Full);
        }
        let dynamic = first + self.static_band();
        for (from, to) in [(dynamic, last), (first, dynamic.max(1) - 1)] {
            if from > to {
                continue;
            }
            let start = rand::rng().random_range(from..=to);
            if let Some(free) = (start..=to).chain(from..start).find(|port| !is_taken(*port)) {
                return Ok(free);
            }
        }
        Err(NodePortError::Full)
    }

    /// Whether the range has this port.
    pub fn contains(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    /// Size of the band that is kept for ports users choose (KEP 3668): a thirty-second of the range, between 16 and
    /// 128; 0 for a range of at most 16 ports.
    fn static_band(&self) -> u16 {
        let size = self.range.len();
        if size <= 16 { 0 } else { (size / 32).clamp(16, 128) as u16 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_refusal_names_the_range_and_the_flag_that_widens_it() {
        let ports = NodePorts::new(30000..=32767);
        assert_eq!(
            ports.check(36000, |_| None).unwrap_err().to_string(),
            "provided port is not in the valid range. The range of valid ports is 30000-32767 (widen it with \
             --service-node-port-range)"
        );
        assert!(ports.check(-1, |_| None).is_err() && ports.check(95536, |_| None).is_err());
        assert!(NodePorts::new(30000..=40000).check(36000, |_| None).is_ok());
        assert_eq!(ports.check(30000, |_| Some(PortHolder::Service)), Err(NodePortError::Allocated));
        assert_eq!(ports.check(30000, |_| Some(PortHolder::Agents)), Err(NodePortError::Agents));
    }

    #[test]
    fn every_port_is_given_once_until_none_is_left() {
        let ports = NodePorts::new(30000..=30031);
        let mut given: Vec<u16> = Vec::new();
        let mut taken = HashSet::new();
        while let Ok(free) = ports.any_free(|port| taken.contains(&port)) {
            assert!(taken.insert(free));
            given.push(free);
        }
        assert_eq!(given.len(), 32);
        assert!(given[..16].iter().all(|p| *p >= 30016), "the lower half is left to people: {given:?}");
    }
}
