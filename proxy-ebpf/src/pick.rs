//! Picks one of n backends without a division, whose divisor the verifier would have to prove non-zero.

/// Slot in `0..count` for a uniformly distributed `hash`; `None` without backends.
///
/// Source: Lemire, "Fast random integer generation in an interval" (2019), without the rejection step: the bias is
/// below `count / 2^32`.
#[inline(always)]
pub fn slot_for(hash: u32, count: u32) -> Option<u32> {
    if count == 0 { None } else { Some(((hash as u64 * count as u64) >> 32) as u32) }
}

/// Spreads `value` over 32 bits (the finaliser of MurmurHash3, 64 bits): equal input gives an equal hash on every node.
#[inline(always)]
pub fn hash(value: u64) -> u32 {
    let mut mixed = value;
    mixed ^= mixed >> 33;
    mixed = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^= mixed >> 33;
    mixed = mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slot_is_always_within_the_set(hash: u32, count in 1u32..100_000) {
            prop_assert!(slot_for(hash, count).is_some_and(|slot| slot < count));
        }
    }

    #[test]
    fn an_empty_set_has_no_slot() {
        assert_eq!(slot_for(7, 0), None);
    }

    #[test]
    fn consecutive_socket_cookies_spread_evenly() {
        let mut seen = [0u32; 10];
        for cookie in 0..10_000u64 {
            seen[slot_for(hash(cookie), 10).unwrap() as usize] += 1;
        }
        assert!(seen.iter().all(|&picks| (850..1150).contains(&picks)), "{seen:?}");
    }
}
