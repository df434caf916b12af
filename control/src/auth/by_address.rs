//! Things by the address that they are of, and by age: which address has most of them, and which is its oldest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

/// Things with numbers that grow. An address that has none takes nothing.
#[derive(Debug)]
pub struct ByAddress<T> {
    of: HashMap<IpAddr, BTreeMap<u64, T>>,
    /// How many each address has, and its oldest: the last is the address with the most, and of several the one that
    /// has the oldest.
    ranks: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
    length: usize,
}

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), ranks: BTreeSet::new(), length: 0 }
    }
}

impl<T> ByAddress<T> {
    /// Of all addresses.
    pub fn len(&self) -> usize {
        self.length
    }

    /// How many an address has.
    pub fn count(&self, from: IpAddr) -> usize {
        self.of.get(&from).map_or(0, BTreeMap::len)
    }

    /// The number of the oldest that an address has.
    pub fn oldest(&self, from: IpAddr) -> Option<u64> {
        self.of.get(&from)?.first_key_value().map(|(id, _)| *id)
    }

    /// The address that has the most, and how many.
    pub fn most(&self) -> Option<(IpAddr, usize)> {
        self.ranks.last().map(|(count, _, from)| (*from, *count))
    }

    /// Takes one in.
    pub fn insert(&mut self, from: IpAddr, id: u64, thing: T) {
        self.change(from, |things| things.insert(id, thing));
    }

    /// Gives one back, if it is there.
    pub fn remove(&mut self, from: IpAddr, id: u64) -> Option<T> {
        self.change(from, |things| things.remove(&id))
    }

    /// Gives the oldest of an address back, with its number.
    pub fn remove_oldest(&mut self, from: IpAddr) -> Option<(u64, T)> {
        self.change(from, BTreeMap::pop_first)
    }

    fn change<R>(&mut self, from: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let things = self.of.entry(from).or_default();
        let rank =
            |things: &BTreeMap<u64, T>| things.first_key_value().map(|(id, _)| (things.len(), Reverse(*id), from));
        let (rank_before, length_before) = (rank(things), things.len());
        let changed = change(things);
        let (rank, length) = (rank(things), things.len());
        if rank != rank_before {
            if let Some(before) = rank_before {
                self.ranks.remove(&before);
            }
            self.ranks.extend(rank);
        }
        if length == 0 {
            self.of.remove(&from);
        }
        self.length = self.length.saturating_sub(length_before).saturating_add(length);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn the_address_with_the_most_is_known_and_of_several_the_one_with_the_oldest() {
        let mut things = ByAddress::default();
        assert_eq!(things.most(), None);
        for (id, from) in [1, 2, 2, 3, 3].into_iter().enumerate() {
            things.insert(address(from), id as u64, id);
        }
        assert_eq!((things.len(), things.most()), (5, Some((address(2), 2))));
        assert_eq!(things.remove_oldest(address(2)), Some((1, 1)));
        assert_eq!(things.most(), Some((address(3), 2)));
        assert_eq!((things.remove(address(3), 9), things.remove(address(3), 4)), (None, Some(4)));
        assert_eq!((things.most(), things.oldest(address(3))), (Some((address(1), 1)), Some(3)));
        for (from, id) in [(1, 0), (2, 2), (3, 3)] {
            assert_eq!((things.count(address(from)), things.remove(address(from), id)), (1, Some(id as usize)));
        }
        assert!(things.len() == 0 && things.of.is_empty() && things.ranks.is_empty());
    }
}
