//! By what clients that nobody knows are counted: by IPv4 address; in IPv6 by /64, since a host has all addresses of
//! its subnet, and beside that by /48, since one customer may have all subnets of a site (RFC 6177).
//!
//! A site may hold as much as some networks ([`NETWORKS_OF_A_SITE`]), however many it has: more than one, since hosts
//! of many owners may be in it, and not so much that it takes the places of all others.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

/// An IPv4 address, or the /64 of an IPv6 address (RFC 4291, section 2.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientNetwork(IpAddr);

/// An IPv4 address, or the /48 of an IPv6 address: the networks that may be one owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientSite(IpAddr);

/// What has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One network.
    Network(ClientNetwork),
    /// All networks of a site, where it may have several.
    Site(ClientSite),
}

/// A site may hold so many times what one of its networks may.
pub const NETWORKS_OF_A_SITE: usize = 4;

impl ClientNetwork {
    /// Where a client with this address is.
    pub fn of(address: IpAddr) -> Self {
        Self(prefix(address.to_canonical(), 64))
    }

    /// In which site it is.
    pub fn site(self) -> ClientSite {
        ClientSite(prefix(self.0, 48))
    }

    /// What limits a client here, and how many times the limit of one network each may hold.
    pub fn scopes(self) -> impl Iterator<Item = (Scope, usize)> {
        let site = self.0.is_ipv6().then(|| (Scope::Site(self.site()), NETWORKS_OF_A_SITE));
        std::iter::once((Scope::Network(self), 1)).chain(site)
    }
}

/// The first `bits` of an IPv6 address; an IPv4 address as it is.
fn prefix(address: IpAddr, bits: u32) -> IpAddr {
    let mask = u128::MAX.checked_shr(bits).map_or(u128::MAX, |host| !host);
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & mask).into(),
        address => address,
    }
}

/// How many of something each client has.
#[derive(Debug, Default)]
pub struct ClientCounts(HashMap<Scope, usize>);

impl ClientCounts {
    /// Counts one more. `false`, and nothing is counted, where the client has `most`, or its site as many times that as
    /// it may.
    pub fn add(&mut self, client: ClientNetwork, most: usize) -> bool {
        let count = |scope| self.0.get(&scope).copied().unwrap_or_default();
        if client.scopes().any(|(scope, times)| count(scope) >= most.saturating_mul(times)) {
            return false;
        }
        for (scope, _) in client.scopes() {
            let count = self.0.entry(scope).or_default();
            *count = count.saturating_add(1);
        }
        true
    }

    /// Counts one less. Who has none is forgotten.
    pub fn remove(&mut self, client: ClientNetwork) {
        for (scope, _) in client.scopes() {
            match self.0.get_mut(&scope) {
                Some(count) if *count > 1 => *count = count.saturating_sub(1),
                _ => drop(self.0.remove(&scope)),
            }
        }
    }

    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> ClientNetwork {
        ClientNetwork::of(text.parse().unwrap())
    }

    #[test]
    fn the_addresses_of_an_ipv6_subnet_are_one_client_and_its_subnets_one_site() {
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("2001:db8:0:1::1").site(), of("2001:db8:0:ffff::1").site());
        assert_ne!(of("2001:db8:0:1::1").site(), of("2001:db8:1:1::1").site());
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_ne!(of("10.0.0.1").site(), of("10.0.0.2").site());
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_eq!((of("10.0.0.1").scopes().count(), of("2001:db8::1").scopes().count()), (1, 2));
        let first = of("2001:db8::");
        assert!(first.scopes().all(|(scope, _)| scope == Scope::Network(first) || scope == Scope::Site(first.site())));
    }

    #[test]
    fn a_site_of_many_subnets_holds_no_more_than_some_of_them() {
        let mut counts = ClientCounts::default();
        let subnets: Vec<ClientNetwork> = (0..0xffff).map(|subnet| of(&format!("2001:db8:0:{subnet:x}::1"))).collect();
        assert!(counts.add(subnets[0], 2) && counts.add(subnets[0], 2) && !counts.add(subnets[0], 2));
        let held: Vec<_> = subnets[1..].iter().filter(|subnet| counts.add(**subnet, 2)).collect();
        assert_eq!(held.len(), 2 * NETWORKS_OF_A_SITE - 2);
        for other in ["2001:db8:1::1", "10.0.0.1", "10.0.0.2"] {
            assert!(counts.add(of(other), 2), "{other}");
            counts.remove(of(other));
        }
        held.into_iter().chain([&subnets[0]; 2]).for_each(|held| counts.remove(*held));
        assert!(counts.is_empty());
    }
}
