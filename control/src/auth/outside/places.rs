//! How many questions about tokens are under way at a time: in all, and for strangers of one address. A stranger's
//! token makes the server ask, so that one stranger must not have it ask without end, nor take the turns of all others.
//! Strangers may come from many addresses, and users from behind one: some places are for those alone who are known, by
//! a token that was good before or by another credential.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::status::Status;

/// Questions under way about tokens of strangers. This figure and those below are chosen, not measured.
const OF_STRANGERS: usize = 96;
/// Further ones, about tokens that were good before, and because of requests of users.
const OF_KNOWN: usize = 32;
/// Of those of strangers, about tokens from one address.
const OF_ONE_ADDRESS: usize = 16;

/// Places for questions. Clones share them.
#[derive(Clone)]
pub struct OutsidePlaces {
    limits: OutsideLimits,
    taken: Arc<Mutex<Taken>>,
}

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideLimits {
    /// That anybody may take.
    pub of_strangers: usize,
    /// Of them, for strangers of one address.
    pub of_one_address: usize,
    /// Beside them, for who is known.
    pub of_known: usize,
}

/// Because of whom a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Somebody who shows a token from this address.
    Stranger(IpAddr),
    /// A user, or somebody whose token was good before.
    Known,
}

#[derive(Default)]
struct Taken {
    /// By strangers.
    by_strangers: usize,
    /// By strangers and others.
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
pub struct OutsidePlace {
    of: OutsidePlaces,
    /// Of a stranger.
    network: Option<IpAddr>,
}

/// There is no place for a further question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many questions to webhooks are under way")]
pub struct NoPlace;

impl NoPlace {
    /// The 429.
    pub fn to_status(self) -> Status {
        Status::too_many_requests("Too many requests, please try again later.", 1, "TooManyRequests", &self.to_string())
    }
}

impl Default for OutsidePlaces {
    fn default() -> Self {
        Self::new(OutsideLimits { of_strangers: OF_STRANGERS, of_one_address: OF_ONE_ADDRESS, of_known: OF_KNOWN })
    }
}

impl OutsidePlaces {
    /// With these limits.
    pub fn new(limits: OutsideLimits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// A place for a question.
    pub fn take(&self, asker: Asker) -> Result<OutsidePlace, NoPlace> {
        let OutsideLimits { of_strangers, of_one_address, of_known } = self.limits;
        let mut taken = self.taken.lock();
        let network = match asker {
            Asker::Known if taken.all >= of_strangers.saturating_add(of_known) => return Err(NoPlace),
            Asker::Known => None,
            Asker::Stranger(address) => {
                let network = network(address);
                let of_address = taken.by_address.get(&network).copied().unwrap_or_default();
                // Who is known may have taken more than their own.
                let is_full = taken.by_strangers >= of_strangers || taken.all >= of_strangers.saturating_add(of_known);
                if is_full || of_address >= of_one_address {
                    return Err(NoPlace);
                }
                taken.by_strangers = taken.by_strangers.saturating_add(1);
                taken.by_address.insert(network, of_address.saturating_add(1));
                Some(network)
            }
        };
        taken.all = taken.all.saturating_add(1);
        Ok(OutsidePlace { of: self.clone(), network })
    }
}

impl Drop for OutsidePlace {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        let Some(network) = self.network else { return };
        taken.by_strangers = taken.by_strangers.saturating_sub(1);
        match taken.by_address.get_mut(&network) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(taken.by_address.remove(&network)),
        }
    }
}

/// The address, or the /64 of an IPv6 address, of which a host has all (RFC 4291, section 2.5.4).
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(address: &str) -> Asker {
        Asker::Stranger(address.parse().unwrap())
    }

    #[test]
    fn one_address_takes_no_more_than_its_share_and_gives_it_back() {
        let places = OutsidePlaces::new(OutsideLimits { of_strangers: 3, of_one_address: 2, of_known: 0 });
        let [a, b, c] = ["2001:db8::1", "2001:db8::2", "10.0.0.1"].map(stranger);
        let (first, _second) = (places.take(a).unwrap(), places.take(b).unwrap());
        assert!(places.take(a).is_err(), "both are of one host");
        let third = places.take(c).unwrap();
        assert!(places.take(Asker::Known).is_err(), "there are no more in all");
        drop((first, third));
        assert!(places.take(a).is_ok() && places.take(Asker::Known).is_ok());
        let taken = places.taken.lock();
        assert_eq!((taken.by_address.len(), taken.by_strangers, taken.all), (1, 1, 1));
    }

    #[test]
    fn strangers_of_many_addresses_leave_places_to_who_is_known() {
        let places = OutsidePlaces::default();
        let addresses = (0..=255_u8).map(|host| Asker::Stranger([10, 0, 0, host].into()));
        let taken: Vec<_> =
            addresses.flat_map(|a| (0..OF_ONE_ADDRESS).map(move |_| a)).map(|a| places.take(a)).collect();
        assert_eq!(taken.iter().filter(|place| place.is_ok()).count(), OF_STRANGERS);
        let known: Vec<_> = (0..=OF_KNOWN).map(|_| places.take(Asker::Known)).collect();
        assert_eq!(known.iter().filter(|place| place.is_ok()).count(), OF_KNOWN);
        drop(taken);
        assert!(places.take(stranger("10.0.0.1")).is_ok());
    }
}
