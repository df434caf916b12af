//! Where a name stands in a list: a small hash table. Each decoded, compared and written field of each object is looked
//! up by its name; a binary search takes three times as long, since a processor cannot foresee its branches.

/// Places by the hash of their names.
#[derive(Debug)]
pub struct NameIndex {
    /// Open addressing, at most half full, a power of two.
    slots: Box<[u32]>,
}

const EMPTY: u32 = u32::MAX;

/// So many names may share a hash. Those of Kubernetes hardly do; who defines a kind can choose names that all do.
const MOST_ALIKE: usize = 16;

impl NameIndex {
    /// Of the names of a list, in its order. Nothing where too many of them have the same hash.
    pub fn new<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Option<Self> {
        let count = names.len().saturating_mul(2).max(2).next_power_of_two();
        let mut slots = vec![EMPTY; count].into_boxed_slice();
        for (at, name) in (0..EMPTY).zip(names) {
            let free = probe(count, name).take(MOST_ALIKE).find(|slot| slots[*slot] == EMPTY)?;
            slots[free] = at;
        }
        Some(Self { slots })
    }

    /// The places of the names that may be this one: who asks compares them.
    pub fn candidates(&self, name: &str) -> impl Iterator<Item = usize> {
        let slots = probe(self.slots.len(), name).take(MOST_ALIKE).map(|slot| self.slots[slot]);
        slots.take_while(|at| *at != EMPTY).map(|at| at as usize)
    }
}

/// The slots of `count` in which a name may stand, the first one by its hash.
fn probe(count: usize, name: &str) -> impl Iterator<Item = usize> {
    let first = hash(name.as_bytes());
    (0..count).map(move |step| first.wrapping_add(step) & (count - 1))
}

/// Of the length and both ends: names of fields differ there as a rule.
fn hash(name: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let (start, end) = match (name.first_chunk::<WORD>(), name.last_chunk::<WORD>()) {
        (Some(start), Some(end)) => (u64::from_le_bytes(*start), u64::from_le_bytes(*end)),
        _ => (name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
    };
    // Both halves of the product: the last bytes of a name show in the upper one alone.
    let mixed = (start ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ end;
    let product = u128::from(mixed).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (product ^ (product >> u64::BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_at_its_place_and_no_other() {
        for count in [0, 1, 2, 3, 7, 8, 9, 100, 1000] {
            let names: Vec<String> = (0..count).map(|n| "a".repeat(n % 10) + &n.to_string()).collect();
            let index = NameIndex::new(names.iter().map(String::as_str)).expect("they differ");
            let find = |name: &str| index.candidates(name).find(|at| names[*at] == name);
            assert!(names.iter().enumerate().all(|(at, name)| find(name) == Some(at)), "{count}");
            assert_eq!((find("1000"), find(""), find("another name")), (None, None, None));
        }
    }

    #[test]
    fn names_that_were_chosen_to_share_a_hash_are_left_to_a_binary_search() {
        let names: Vec<String> = (0..100_000).map(|n| format!("of equal ends {n:06}, and as long")).collect();
        assert!(NameIndex::new(names.iter().map(String::as_str)).is_none());
    }

    #[test]
    fn few_names_of_real_types_share_a_slot() {
        let types = crate::schema::Types::builtin();
        let (mut looked_at, mut names) = (0, 0);
        for object in types.definitions().filter_map(|(id, _)| types.object(id)) {
            let index = NameIndex::new(object.fields().iter().map(|field| &*field.name)).expect("they differ");
            for (at, field) in object.fields().iter().enumerate() {
                looked_at += index.candidates(&field.name).position(|found| found == at).expect("it is there") + 1;
                names += 1;
            }
        }
        assert!(names > 2000 && looked_at < names * 3 / 2, "{looked_at} looks for {names} names");
    }
}
