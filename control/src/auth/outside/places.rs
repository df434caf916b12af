//! How many questions about tokens are under way at a time: in all, and for strangers of one address. A stranger's
//! token makes the server ask, so that one stranger must not have it ask without end, nor take the turns of all others.
//! Strangers may come from many addresses, and users from behind one: some places are for those alone whose token was
//! good before.
//!
//! A server that reviews tokens passes on those of its own strangers: reviewers share places beside all these.

use std::{net::IpAddr, sync::Arc};

use fairlead_serving::client_network::{ClientCounts, ClientNetwork};
use parking_lot::Mutex;

use crate::{
    flow_control::shares::{Share, Shares},
    status::Status,
};

/// Questions under way about tokens of strangers. This figure and those below are chosen, not measured.
const OF_STRANGERS: usize = 96;
/// Further ones, about tokens that were good before.
const OF_KNOWN: usize = 32;
/// Further ones, because of TokenReviews: one reviewer alone has half of them.
const OF_REVIEWERS: usize = 64;
/// Of those of strangers, about tokens from one address.
const OF_ONE_ADDRESS: usize = 16;

/// Places for questions. Clones share them.
#[derive(Clone)]
pub struct OutsidePlaces {
    limits: OutsideLimits,
    taken: Arc<Mutex<Taken>>,
    /// Divided among those who send TokenReviews.
    of_reviewers: Arc<Shares>,
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
    /// Beside both, for TokenReviews.
    pub of_reviewers: usize,
}

/// Because of whom a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker<'a> {
    /// Somebody who shows a token from this address.
    Stranger(IpAddr),
    /// Somebody whose token was good before, or who comes over no connection.
    Known,
    /// A user of this name, who was shown the token by somebody else.
    Reviewer(&'a str),
}

#[derive(Default)]
struct Taken {
    /// By strangers.
    by_strangers: usize,
    /// By strangers and others.
    all: usize,
    by_client: ClientCounts,
}

/// A place, until it is dropped.
pub enum OutsidePlace {
    /// Of somebody who shows a token of their own.
    Holder(HolderPlace),
    /// Of a reviewer.
    Reviewer(Share),
}

/// A place for the token of who shows it.
pub struct HolderPlace {
    of: OutsidePlaces,
    /// Of a stranger.
    client: Option<ClientNetwork>,
}

/// There is no place for a further question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many questions about users are under way")]
pub struct NoPlace;

impl NoPlace {
    /// The 429.
    pub fn to_status(self) -> Status {
        Status::too_many_requests("Too many requests, please try again later.", 1, "TooManyRequests", &self.to_string())
    }
}

impl Default for OutsidePlaces {
    fn default() -> Self {
        Self::new(OutsideLimits {
            of_strangers: OF_STRANGERS,
            of_one_address: OF_ONE_ADDRESS,
            of_known: OF_KNOWN,
            of_reviewers: OF_REVIEWERS,
        })
    }
}

impl OutsidePlaces {
    /// With these limits.
    pub fn new(limits: OutsideLimits) -> Self {
        Self { limits, taken: Arc::default(), of_reviewers: Shares::new(limits.of_reviewers, usize::MAX) }
    }

    /// A place for a question.
    pub fn take(&self, asker: Asker<'_>) -> Result<OutsidePlace, NoPlace> {
        let OutsideLimits { of_strangers, of_one_address, of_known, .. } = self.limits;
        let mut taken = self.taken.lock();
        let client = match asker {
            Asker::Reviewer(name) => {
                drop(taken);
                return self.of_reviewers.take(name, 1).map(OutsidePlace::Reviewer).ok_or(NoPlace);
            }
            Asker::Known if taken.all >= of_strangers.saturating_add(of_known) => return Err(NoPlace),
            Asker::Known => None,
            Asker::Stranger(address) => {
                // Who is known may have taken more than their own.
                let is_full = taken.by_strangers >= of_strangers || taken.all >= of_strangers.saturating_add(of_known);
                let client = ClientNetwork::of(address);
                if is_full || !taken.by_client.add(client, of_one_address) {
                    return Err(NoPlace);
                }
                taken.by_strangers = taken.by_strangers.saturating_add(1);
                Some(client)
            }
        };
        taken.all = taken.all.saturating_add(1);
        Ok(OutsidePlace::Holder(HolderPlace { of: self.clone(), client }))
    }
}

impl Drop for HolderPlace {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        let Some(client) = self.client else { return };
        taken.by_strangers = taken.by_strangers.saturating_sub(1);
        taken.by_client.remove(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(address: &str) -> Asker<'static> {
        Asker::Stranger(address.parse().unwrap())
    }

    #[test]
    fn one_address_takes_no_more_than_its_share_and_gives_it_back() {
        let limits = OutsideLimits { of_strangers: 3, of_one_address: 2, of_known: 0, of_reviewers: 0 };
        let places = OutsidePlaces::new(limits);
        let [a, b, c] = ["2001:db8::1", "2001:db8::2", "10.0.0.1"].map(stranger);
        let (first, second) = (places.take(a).unwrap(), places.take(b).unwrap());
        assert!(places.take(a).is_err(), "both are of one host");
        let third = places.take(c).unwrap();
        assert!(places.take(Asker::Known).is_err(), "there are no more in all");
        drop((first, third));
        assert!(places.take(a).is_ok() && places.take(Asker::Known).is_ok());
        drop(second);
        let taken = places.taken.lock();
        assert_eq!((taken.by_client.is_empty(), taken.by_strangers, taken.all), (true, 0, 0));
    }

    #[test]
    fn the_subnets_of_one_site_leave_places_to_other_strangers() {
        let places = OutsidePlaces::default();
        let subnets = (0..=255_u16).map(|subnet| Asker::Stranger([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1].into()));
        let taken: Vec<_> = subnets.filter_map(|asker| places.take(asker).ok()).collect();
        assert_eq!(taken.len(), 4 * OF_ONE_ADDRESS);
        assert!(places.take(stranger("2001:db8:2::1")).is_ok() && places.take(stranger("10.0.0.1")).is_ok());
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

    #[test]
    fn reviewers_share_places_of_their_own_and_take_none_of_others() {
        let places = OutsidePlaces::default();
        let take_all = |name: &'static str| -> Vec<_> {
            std::iter::from_fn(|| places.take(Asker::Reviewer(name)).ok()).take(OF_REVIEWERS).collect()
        };
        let busy = take_all("system:serviceaccount:a:gateway");
        assert!((1..=OF_REVIEWERS / 2).contains(&busy.len()), "{}", busy.len());
        assert!(!take_all("joe").is_empty(), "another reviewer finds some");
        let known: Vec<_> = (0..OF_STRANGERS + OF_KNOWN).map(|_| places.take(Asker::Known)).collect();
        assert!(known.iter().all(Result::is_ok), "who shows a token finds as many as before");
        assert!(places.take(Asker::Reviewer("ann")).is_ok());
    }
}
