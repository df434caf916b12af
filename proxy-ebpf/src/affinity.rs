//! ClientIP session affinity: how long a client keeps its backend.

use crate::{BackendId, SetId};

/// Key of `AFFINITY`, 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// Who connects; made by [`AffinityKey::of_address`] and [`AffinityKey::of_namespace`], whose values never
    /// collide.
    pub client: u64,
    /// The backend set: all frontends that lead to it share the affinity.
    pub set: SetId,
    /// Zero. Keys are compared byte by byte.
    pub _pad: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 16);

impl AffinityKey {
    /// By the client's true address (a pod's own, or that of a host outside), network order.
    #[inline(always)]
    pub fn of_address(set: SetId, client_be: u32) -> Self {
        Self { client: client_be as u64, set, _pad: 0 }
    }

    /// By the cookie of the client's network namespace, until its address is known.
    #[inline(always)]
    pub fn of_namespace(set: SetId, netns_cookie: u64) -> Self {
        Self { client: netns_cookie | 1 << 63, set, _pad: 0 }
    }
}

/// Value of `AFFINITY`, 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// `CLOCK_MONOTONIC` of the last connection.
    pub last_used_ns: u64,
    /// Where the client's connections go.
    pub backend: BackendId,
    /// Zero.
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
