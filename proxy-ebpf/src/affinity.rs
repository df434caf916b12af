//! ClientIP session affinity: how long a client keeps its backend.

use crate::{BackendId, SetId};

/// Key of `AFFINITY`, 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    pub set: SetId,
    /// The client's true address (a pod's own, or that of a host outside), network order.
    pub client_be: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 8);

/// Value of `AFFINITY`, 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// `CLOCK_MONOTONIC` of the last connection.
    pub last_used_ns: u64,
    pub backend: BackendId,
    pub _pad: u32,
}

const _: () = assert!(size_of::<Affinity>() == 16);

impl Affinity {
    /// Whether a connection at `now_ns` still goes to the same backend. A use at exactly the timeout does.
    #[inline(always)]
    pub fn holds(&self, now_ns: u64, timeout_s: u32) -> bool {
        now_ns.wrapping_sub(self.last_used_ns) <= timeout_s as u64 * 1_000_000_000 || now_ns < self.last_used_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_ends_right_after_its_timeout() {
        let affinity = Affinity { last_used_ns: 5_000_000_000, backend: 1, _pad: 0 };
        assert!(affinity.holds(5_000_000_000, 10));
        assert!(affinity.holds(15_000_000_000, 10));
        assert!(!affinity.holds(15_000_000_001, 10));
    }

    #[test]
    fn a_use_recorded_by_another_cpu_in_the_future_holds() {
        assert!(Affinity { last_used_ns: 7, backend: 1, _pad: 0 }.holds(6, 1));
    }
}
