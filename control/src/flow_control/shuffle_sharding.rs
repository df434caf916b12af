//! Shuffle sharding: which few queues of many a flow may use.
//!
//! Two flows seldom have the same hand, so that a flow that fills all queues of its own hand leaves others a queue of
//! theirs. Source: the package `shufflesharding` of `k8s.io/apiserver`, and KEP 1040.

/// The most cards in a hand: more would need more than the 60 bits of a hash that validation allows.
pub const MAX_HAND: usize = 16;

/// The first so many places of the array hold distinct numbers below `deck`, which follow from `hash` alone.
///
/// `hand` is at most `deck` and [`MAX_HAND`].
pub fn deal(mut hash: u64, deck: usize, hand: usize) -> [usize; MAX_HAND] {
    let mut cards = [0; MAX_HAND];
    for dealt in 0..hand.min(deck).min(MAX_HAND) {
        let left = deck.saturating_sub(dealt).max(1) as u64;
        let mut card = usize::try_from(hash % left).unwrap_or_default();
        hash /= left;
        // It is the so manieth of those that are left: each lower one that was dealt moves it up.
        let mut lower = cards;
        let lower = &mut lower[..dealt];
        lower.sort_unstable();
        for taken in lower.iter() {
            card += usize::from(card >= *taken);
        }
        cards[dealt] = card;
    }
    cards
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_hand_has_distinct_queues_of_the_deck_and_every_hand_is_dealt() {
        for (deck, hand) in [(1, 1), (8, 3), (16, 15), (64, 6), (128, 6)] {
            for hash in (0..1000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let cards = deal(hash, deck, hand);
                let distinct: BTreeSet<usize> = cards[..hand].iter().copied().collect();
                assert_eq!(distinct.len(), hand);
                assert!(distinct.iter().all(|card| *card < deck));
            }
        }
        let hands: BTreeSet<[usize; 2]> =
            (0..20).map(|hash| deal(hash, 5, 2)).map(|cards| [cards[0], cards[1]]).collect();
        assert_eq!(hands.len(), 20, "each of the 5 × 4 hands once");
    }

    #[test]
    fn few_flows_have_all_their_queues_in_common() {
        let hand = |number: u64| {
            let cards = deal(number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31), 128, 6);
            cards[..6].iter().copied().collect::<BTreeSet<usize>>()
        };
        let elephant = hand(0);
        assert!((1..10_000).all(|mouse| hand(mouse) != elephant));
    }
}
