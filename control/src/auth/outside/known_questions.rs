//! Which questions were answered well before, by their keys: whoever repeats one is no stranger, though its answer is
//! not kept any more. Bounded: the oldest are forgotten.

use std::collections::HashSet;

use super::answers::AnswerKey;

/// Keys of each of two generations: one is forgotten after so many others, and before twice as many. Chosen, not
/// measured.
const MOST: usize = 8192;

/// The keys of questions that were answered well.
#[derive(Debug, Default)]
pub struct KnownQuestions {
    young: HashSet<AnswerKey>,
    old: HashSet<AnswerKey>,
}

impl KnownQuestions {
    /// Whether the question was answered well.
    pub fn contains(&self, key: &AnswerKey) -> bool {
        self.young.contains(key) || self.old.contains(key)
    }

    /// It was, now.
    pub fn add(&mut self, key: AnswerKey) {
        if self.young.len() >= MOST && !self.young.contains(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }

    /// It is answered otherwise now.
    pub fn forget(&mut self, key: &AnswerKey) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_those_in_use_stay() {
        let mut known = KnownQuestions::default();
        let key = |number: usize| -> AnswerKey {
            let mut key = AnswerKey::default();
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        for number in 1..3 * MOST {
            known.add(key(number));
            known.add(key(0));
        }
        assert!(known.contains(&key(0)) && known.contains(&key(3 * MOST - 1)) && !known.contains(&key(1)));
        assert!(known.young.len() <= MOST && known.old.len() <= MOST);
        known.forget(&key(0));
        assert!(!known.contains(&key(0)));
    }
}
