//! Who holds how many seats of a priority level, and whether they may have more: the rule of [`super::shares`], for a
//! number of seats that changes, and for users that are known by a hash of their names, so that a request allocates
//! nothing here.
//!
//! Kubernetes has no such bound: there a user whose requests last long, since nobody takes their answers for one, can
//! come to hold all seats of its level.

use std::collections::{HashMap, hash_map::Entry};

use super::shares::{little_of, share_of};

/// A user, by hashes with a secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeatHolder {
    /// Of the user's name.
    pub user: u64,
    /// Of its namespace, where the user is a ServiceAccount.
    pub namespace: Option<u64>,
}

/// The seats of each user who holds any.
#[derive(Debug, Default)]
pub struct SeatHolders {
    users: HashMap<u64, usize>,
    /// Of all ServiceAccounts of a namespace.
    namespaces: HashMap<u64, usize>,
}

impl SeatHolders {
    /// Whether `holder` may have `width` more of `total` seats, of which `in_use` are held. Who holds none may have
    /// any number: what is wide would never get seats otherwise.
    pub fn allows(&self, (total, in_use): (usize, usize), holder: SeatHolder, width: usize) -> bool {
        let held = self.users.get(&holder.user).copied().unwrap_or_default();
        let share = || share_of(total, total.saturating_sub(in_use));
        let Some(namespace) = holder.namespace else {
            return held == 0 || held.saturating_add(width) <= share();
        };
        let together = self.namespaces.get(&namespace).copied().unwrap_or_default();
        if together == 0 {
            return true;
        }
        let share = share();
        let left = share.saturating_sub(together).max(little_of(total).min(share));
        together.saturating_add(width) <= share && held.saturating_add(width) <= left
    }

    /// Whether any ServiceAccount of a namespace may have a seat, were it one that holds none.
    pub fn allows_namespace(&self, (total, in_use): (usize, usize), namespace: u64) -> bool {
        let together = self.namespaces.get(&namespace).copied().unwrap_or_default();
        together == 0 || together < share_of(total, total.saturating_sub(in_use))
    }

    /// `holder` has so many more.
    pub fn add(&mut self, holder: SeatHolder, width: usize) {
        let add = |held: &mut HashMap<u64, usize>, key| {
            let seats = held.entry(key).or_default();
            *seats = seats.saturating_add(width);
        };
        add(&mut self.users, holder.user);
        if let Some(namespace) = holder.namespace {
            add(&mut self.namespaces, namespace);
        }
    }

    /// `holder` has so many less. Who holds none is forgotten.
    pub fn remove(&mut self, holder: SeatHolder, width: usize) {
        subtract(&mut self.users, holder.user, width);
        if let Some(namespace) = holder.namespace {
            subtract(&mut self.namespaces, namespace, width);
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.namespaces.is_empty()
    }
}

/// Asks which of many users may have seats, at one moment. The ServiceAccounts of a namespace that holds its share may
/// be thousands: they are asked about once.
pub struct ShareScan<'a> {
    holders: &'a SeatHolders,
    in_use: usize,
    /// No ServiceAccount of this namespace may have a seat.
    full: Option<u64>,
}

impl<'a> ShareScan<'a> {
    /// With so many seats in use.
    pub fn of(holders: &'a SeatHolders, in_use: usize) -> Self {
        Self { holders, in_use, full: None }
    }

    /// Whether `holder` may have `width` more of `seats`.
    pub fn allows(&mut self, seats: usize, holder: SeatHolder, width: usize) -> bool {
        let namespace = holder.namespace;
        if namespace.is_some() && namespace == self.full {
            return false;
        }
        let of = (seats, self.in_use);
        let is_allowed = self.holders.allows(of, holder, width);
        if !is_allowed && namespace.is_some_and(|namespace| !self.holders.allows_namespace(of, namespace)) {
            self.full = namespace;
        }
        is_allowed
    }
}

fn subtract(held: &mut HashMap<u64, usize>, key: u64, width: usize) {
    if let Entry::Occupied(mut seats) = held.entry(key) {
        *seats.get_mut() = seats.get().saturating_sub(width);
        if *seats.get() == 0 {
            seats.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(holders: &mut SeatHolders, in_use: &mut usize, holder: SeatHolder) -> usize {
        let before = *in_use;
        while *in_use < 98 && holders.allows((98, *in_use), holder, 1) {
            holders.add(holder, 1);
            *in_use += 1;
        }
        *in_use - before
    }

    #[test]
    fn no_user_takes_all_seats_and_who_comes_late_finds_some() {
        let (mut holders, mut in_use) = (SeatHolders::default(), 0);
        let user = |user| SeatHolder { user, namespace: None };
        assert_eq!(take_all(&mut holders, &mut in_use, user(1)), 49);
        let taken: Vec<usize> = (2..10).map(|number| take_all(&mut holders, &mut in_use, user(number))).collect();
        assert!(taken.iter().all(|taken| *taken > 0), "{taken:?}");
        holders.remove(user(1), 49);
        assert!(!holders.users.contains_key(&1));
    }

    #[test]
    fn the_service_accounts_of_a_namespace_hold_together_what_one_user_may() {
        let (mut holders, mut in_use) = (SeatHolders::default(), 0);
        let account = |user| SeatHolder { user, namespace: Some(7) };
        let taken: usize = (1..50).map(|number| take_all(&mut holders, &mut in_use, account(number))).sum();
        assert!((25..=49).contains(&taken), "{taken}");
        assert!(take_all(&mut holders, &mut in_use, SeatHolder { user: 1, namespace: None }) > 0);
    }

    #[test]
    fn a_wide_request_of_who_holds_nothing_is_no_larger_than_a_share() {
        let mut holders = SeatHolders::default();
        let user = SeatHolder { user: 1, namespace: None };
        assert!(holders.allows((10, 9), user, 5));
        holders.add(user, 5);
        assert!(!holders.allows((10, 5), user, 5));
    }

    #[test]
    fn a_namespace_that_holds_its_share_is_asked_about_once() {
        let (mut holders, account) = (SeatHolders::default(), |user| SeatHolder { user, namespace: Some(7) });
        for user in 0..40 {
            holders.add(account(user), 1);
        }
        let mut scan = ShareScan::of(&holders, 60);
        assert!(!scan.allows(98, account(1000), 1) && scan.full == Some(7));
        assert!(
            (0..1000).all(|user| !scan.allows(98, account(user), 1) && !holders.allows((98, 60), account(user), 1))
        );
        assert!(scan.allows(98, SeatHolder { user: 1000, namespace: Some(8) }, 1));
        assert!(scan.allows(98, SeatHolder { user: 1, namespace: None }, 1), "another user with that hash of a name");
    }
}
