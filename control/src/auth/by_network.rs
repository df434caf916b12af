//! Things by the network and the site that they are of, and by age: which site has most of them, which of its networks,
//! and which is the oldest there.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use fairlead_serving::client_network::{ClientNetwork, ClientSite};

/// Things with numbers that grow. Who has none takes nothing.
#[derive(Debug)]
pub struct ByNetwork<T> {
    of: HashMap<ClientNetwork, BTreeMap<u64, T>>,
    sites: HashMap<ClientSite, OfSite>,
    /// As in a site, of all sites: with the oldest of the network that has the most there.
    ranks: BTreeSet<(usize, Reverse<u64>, ClientSite)>,
    length: usize,
}

#[derive(Debug, Default)]
struct OfSite {
    /// How many each network has, and its oldest: the last is the network with the most, and of several the one that
    /// has the oldest.
    ranks: BTreeSet<(usize, Reverse<u64>, ClientNetwork)>,
    length: usize,
}

impl OfSite {
    fn rank(&self, site: ClientSite) -> Option<(usize, Reverse<u64>, ClientSite)> {
        self.ranks.last().map(|(_, oldest, _)| (self.length, *oldest, site))
    }
}

impl<T> Default for ByNetwork<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), sites: HashMap::new(), ranks: BTreeSet::new(), length: 0 }
    }
}

impl<T> ByNetwork<T> {
    /// Of all sites.
    pub fn len(&self) -> usize {
        self.length
    }

    /// How many a network has.
    pub fn count(&self, of: ClientNetwork) -> usize {
        self.of.get(&of).map_or(0, BTreeMap::len)
    }

    /// How many the networks of a site have.
    pub fn count_of_site(&self, of: ClientSite) -> usize {
        self.sites.get(&of).map_or(0, |site| site.length)
    }

    /// The number of the oldest that a network has.
    pub fn oldest(&self, of: ClientNetwork) -> Option<u64> {
        self.of.get(&of)?.first_key_value().map(|(id, _)| *id)
    }

    /// The site that has the most, and how many.
    pub fn most(&self) -> Option<(ClientSite, usize)> {
        self.ranks.last().map(|(count, _, site)| (*site, *count))
    }

    /// The network that has the most of a site, and how many.
    pub fn most_of_site(&self, of: ClientSite) -> Option<(ClientNetwork, usize)> {
        self.sites.get(&of)?.ranks.last().map(|(count, _, network)| (*network, *count))
    }

    /// Takes one in.
    pub fn insert(&mut self, of: ClientNetwork, id: u64, thing: T) {
        self.change(of, |things| things.insert(id, thing));
    }

    /// Gives one back, if it is there.
    pub fn remove(&mut self, of: ClientNetwork, id: u64) -> Option<T> {
        self.change(of, |things| things.remove(&id))
    }

    /// Gives the oldest of a network back, with its number.
    pub fn remove_oldest(&mut self, of: ClientNetwork) -> Option<(u64, T)> {
        self.change(of, BTreeMap::pop_first)
    }

    fn change<R>(&mut self, of: ClientNetwork, change: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let things = self.of.entry(of).or_default();
        let rank = |things: &BTreeMap<u64, T>| things.first_key_value().map(|(id, _)| (things.len(), Reverse(*id), of));
        let (rank_before, length_before) = (rank(things), things.len());
        let changed = change(things);
        let (rank, length) = (rank(things), things.len());
        if length == 0 {
            self.of.remove(&of);
        }
        if rank != rank_before {
            let site = self.sites.entry(of.site()).or_default();
            if let Some(before) = site.rank(of.site()) {
                self.ranks.remove(&before);
            }
            if let Some(before) = rank_before {
                site.ranks.remove(&before);
            }
            site.ranks.extend(rank);
            let now = |all: usize| all.saturating_sub(length_before).saturating_add(length);
            (site.length, self.length) = (now(site.length), now(self.length));
            self.ranks.extend(site.rank(of.site()));
            if site.length == 0 {
                self.sites.remove(&of.site());
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> ClientNetwork {
        ClientNetwork::of([10, 0, 0, last].into())
    }

    fn subnet(site: u16, subnet: u16) -> ClientNetwork {
        ClientNetwork::of([0x2001, 0xdb8, site, subnet, 0, 0, 0, 1].into())
    }

    #[test]
    fn the_address_with_the_most_is_known_and_of_several_the_one_with_the_oldest() {
        let mut things = ByNetwork::default();
        assert_eq!(things.most(), None);
        for (id, from) in [1, 2, 2, 3, 3].into_iter().enumerate() {
            things.insert(address(from), id as u64, id);
        }
        assert_eq!((things.len(), things.most()), (5, Some((address(2).site(), 2))));
        assert_eq!(things.most_of_site(address(2).site()), Some((address(2), 2)));
        assert_eq!(things.remove_oldest(address(2)), Some((1, 1)));
        assert_eq!(things.most(), Some((address(3).site(), 2)));
        assert_eq!((things.remove(address(3), 9), things.remove(address(3), 4)), (None, Some(4)));
        assert_eq!((things.most(), things.oldest(address(3))), (Some((address(1).site(), 1)), Some(3)));
        for (from, id) in [(1, 0), (2, 2), (3, 3)] {
            assert_eq!((things.count(address(from)), things.remove(address(from), id)), (1, Some(id as usize)));
        }
        assert!(things.len() == 0 && things.of.is_empty() && things.sites.is_empty() && things.ranks.is_empty());
    }

    #[test]
    fn many_subnets_of_one_site_count_together_and_the_one_with_the_most_is_known() {
        let mut things = ByNetwork::default();
        let owners = [subnet(1, 1), subnet(1, 2), subnet(1, 2), subnet(1, 3), address(1), address(1), address(1)];
        for (id, from) in owners.into_iter().enumerate() {
            things.insert(from, id as u64, ());
        }
        let site = subnet(1, 9).site();
        assert_eq!((things.most(), things.count_of_site(site), things.count(subnet(1, 2))), (Some((site, 4)), 4, 2));
        assert_eq!(things.most_of_site(site), Some((subnet(1, 2), 2)));
        assert_eq!(things.remove_oldest(subnet(1, 2)), Some((1, ())));
        assert_eq!(things.most_of_site(site), Some((subnet(1, 1), 1)), "the one with the oldest");
        things.remove_oldest(subnet(1, 1));
        assert_eq!(things.most(), Some((address(1).site(), 3)));
        for (id, from) in owners.into_iter().enumerate() {
            things.remove(from, id as u64);
        }
        assert!(things.len() == 0 && things.of.is_empty() && things.sites.is_empty() && things.ranks.is_empty());
    }
}
