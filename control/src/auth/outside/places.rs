//! How many questions to the outside are under way at a time: in all, and for one address. A stranger's token makes the
//! server ask, so that one stranger must not have it ask without end, nor take the turns of all others.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::status::Status;

/// Questions under way in all.
const AT_ONCE: usize = 128;
/// Of them, for tokens from one address.
const OF_ONE_ADDRESS: usize = 16;

/// Places for questions. Clones share them.
#[derive(Clone)]
pub struct OutsidePlaces {
    at_once: usize,
    of_one_address: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
pub struct OutsidePlace {
    of: OutsidePlaces,
    from: Option<IpAddr>,
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
        Self::new(AT_ONCE, OF_ONE_ADDRESS)
    }
}

impl OutsidePlaces {
    /// With these limits.
    pub fn new(at_once: usize, of_one_address: usize) -> Self {
        Self { at_once, of_one_address, taken: Arc::default() }
    }

    /// A place for a question because of a request from this address; from `None`, one of somebody who is known.
    pub fn take(&self, from: Option<IpAddr>) -> Result<OutsidePlace, NoPlace> {
        let from = from.map(network);
        let mut taken = self.taken.lock();
        let of_address = from.map_or(0, |from| taken.by_address.get(&from).copied().unwrap_or_default());
        if taken.all >= self.at_once || of_address >= self.of_one_address {
            return Err(NoPlace);
        }
        taken.all = taken.all.saturating_add(1);
        if let Some(from) = from {
            taken.by_address.insert(from, of_address.saturating_add(1));
        }
        Ok(OutsidePlace { of: self.clone(), from })
    }
}

impl Drop for OutsidePlace {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        let Some(from) = self.from else { return };
        match taken.by_address.get_mut(&from) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(taken.by_address.remove(&from)),
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

    #[test]
    fn one_address_takes_no_more_than_its_share_and_gives_it_back() {
        let places = OutsidePlaces::new(3, 2);
        let [a, b]: [Option<IpAddr>; 2] = [Some("2001:db8::1".parse().unwrap()), Some("2001:db8::2".parse().unwrap())];
        let c = Some([10, 0, 0, 1].into());
        let (first, _second) = (places.take(a).unwrap(), places.take(b).unwrap());
        assert!(places.take(a).is_err(), "both are of one host");
        let third = places.take(c).unwrap();
        assert!(places.take(None).is_err(), "there are no more in all");
        drop((first, third));
        assert!(places.take(a).is_ok() && places.take(None).is_ok());
        assert_eq!(places.taken.lock().by_address.len(), 1);
    }
}
