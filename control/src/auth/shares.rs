//! Divides a number of permits among users, so that no user takes them all.
//!
//! A user gets more while they hold no more than what is free: one alone takes about half, two a third each, and who
//! holds nothing finds something. Nobody's share has to be configured, and nothing that few users ask for is kept back
//! for others that do not ask. This is the dynamic threshold of shared buffers in switches (Choudhury and Hahne, 1998).

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

/// Permits that users share.
#[derive(Debug)]
pub struct Shares {
    total: usize,
    /// The most that one user holds.
    most_each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only of users who hold something.
    by_user: HashMap<Arc<str>, usize>,
}

/// What a user holds; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Shares>,
    user: Arc<str>,
    amount: usize,
}

impl Shares {
    /// `total` permits, of which one user holds `most_each`.
    pub fn new(total: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self { total, most_each, taken: Mutex::default() })
    }

    /// So many permits for a user, if there are as many for them.
    pub fn take(self: &Arc<Self>, user: &str, amount: usize) -> Option<Share> {
        let mut taken = self.taken.lock();
        self.allows(&taken, user, amount).then(|| self.give(&mut taken, user, amount))
    }

    /// The same, but a user who holds nothing always gets what they ask for: what is larger than all that there is
    /// would never be let through otherwise.
    pub fn take_or_first(self: &Arc<Self>, user: &str, amount: usize) -> Option<Share> {
        let mut taken = self.taken.lock();
        let is_first = !taken.by_user.contains_key(user);
        (is_first || self.allows(&taken, user, amount)).then(|| self.give(&mut taken, user, amount))
    }

    /// So many permits for a user, whatever there is.
    pub fn take_anyway(self: &Arc<Self>, user: &str, amount: usize) -> Share {
        self.give(&mut self.taken.lock(), user, amount)
    }

    /// How many are held.
    pub fn taken(&self) -> usize {
        self.taken.lock().all
    }

    fn allows(&self, taken: &Taken, user: &str, amount: usize) -> bool {
        let held = taken.by_user.get(user).copied().unwrap_or_default();
        let free = self.total.saturating_sub(taken.all);
        amount <= free && held <= free && held.saturating_add(amount) <= self.most_each
    }

    fn give(self: &Arc<Self>, taken: &mut Taken, user: &str, amount: usize) -> Share {
        let user: Arc<str> = taken.by_user.get_key_value(user).map_or_else(|| user.into(), |(user, _)| user.clone());
        let held = taken.by_user.entry(user.clone()).or_default();
        *held = held.saturating_add(amount);
        taken.all = taken.all.saturating_add(amount);
        Share { of: self.clone(), user, amount }
    }
}

impl Share {
    /// Takes so many more, if there are as many for this user.
    pub fn grow(&mut self, by: usize) -> bool {
        let Some(mut more) = self.of.take(&self.user, by) else { return false };
        // Both are one from now on.
        self.amount = self.amount.saturating_add(std::mem::take(&mut more.amount));
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all = taken.all.saturating_sub(self.amount);
        if let Entry::Occupied(mut held) = taken.by_user.entry(self.user.clone()) {
            let left = held.get().saturating_sub(self.amount);
            *held.get_mut() = left;
            if left == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(shares: &Arc<Shares>, user: &str) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(user, 1)).collect()
    }

    #[test]
    fn no_user_takes_all_and_what_is_given_back_is_there_for_all() {
        let shares = Shares::new(100, usize::MAX);
        let first = take_all(&shares, "a");
        assert_eq!(first.len(), 51);
        let second = take_all(&shares, "b");
        assert_eq!(second.len(), 25, "half of what the first left");
        assert!(shares.take("c", 1).is_some() && shares.take("a", 1).is_none());
        drop((first, second));
        assert!(shares.taken.lock().by_user.is_empty());
        assert_eq!(take_all(&shares, "a").len(), 51);
    }

    #[test]
    fn one_user_holds_no_more_than_each_may() {
        let shares = Shares::new(100, 4);
        let held = take_all(&shares, "a");
        assert_eq!(held.len(), 4);
        assert_eq!(take_all(&shares, "b").len(), 4);
    }

    #[test]
    fn a_share_grows_and_is_given_back_whole() {
        let shares = Shares::new(10, usize::MAX);
        let mut share = shares.take("a", 0).unwrap();
        assert!(share.grow(3) && share.grow(3) && !share.grow(5), "only 4 are free");
        drop(share);
        assert_eq!(shares.taken.lock().all, 0);
    }

    #[test]
    fn what_is_larger_than_all_is_let_through_one_at_a_time() {
        let shares = Shares::new(10, usize::MAX);
        let large = shares.take_or_first("a", 50).unwrap();
        assert!(shares.take_or_first("a", 1).is_none());
        assert!(shares.take("b", 1).is_none() && shares.take_or_first("b", 1).is_some());
        drop(large);
        assert!(shares.take_or_first("a", 1).is_some());
        drop(shares.take_anyway("a", usize::MAX));
        assert_eq!(shares.taken.lock().all, 0);
    }
}
