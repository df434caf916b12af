//! Divides a number of permits among users, so that no user takes them all and who comes late finds some.
//!
//! A user gets more while what they would hold is within the square of the free part, twice: one alone takes half,
//! and the scarcer permits are, the fewer those get who hold some. Where nobody gives any back, the nth of many greedy
//! users still finds one in 2 n² of all, and with what is given back, all who want more come to hold the same, since
//! those who hold most get nothing of it. The last quarter is thereby left to holders of less than an eighth. Nobody's
//! share has to be configured, and little that few users ask for is kept back for others that do not ask. It is the
//! dynamic threshold of shared buffers in switches (Choudhury and Hahne, 1998), which would halve what is left with
//! each user, made to fall faster than what is free.
//!
//! ServiceAccounts are counted by namespace as well: a thousand of one namespace hold together what one user may, and
//! each of them as much as its namespace has left. Kubernetes' priority and fairness tells flows apart by user or by
//! namespace, too, and lets them wait for their turn ([`super::fair_queuing`]); but nothing there keeps who waits from
//! holding all seats one after the other.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::identity::SERVICE_ACCOUNT;

/// A user who holds no more than one in so many permits gets more as long as there are any.
const LITTLE: usize = 256;

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
    /// Only of namespaces whose ServiceAccounts hold something.
    by_namespace: HashMap<Arc<str>, usize>,
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

    /// The same as [`Shares::take`], but a user who holds nothing always gets what they ask for: what is larger than
    /// all that there is would never be let through otherwise.
    pub fn take_or_first(self: &Arc<Self>, user: &str, amount: usize) -> Option<Share> {
        let mut taken = self.taken.lock();
        let is_first = !taken.by_user.contains_key(user);
        (is_first || self.allows(&taken, user, amount)).then(|| self.give(&mut taken, user, amount))
    }

    /// The same for what may be large: a user who holds nothing, of a namespace that holds nothing where they are a
    /// ServiceAccount, gets what is free without a share's bounds, and more than that only while nobody holds anything.
    /// Else as many users as like could each take all that there is.
    pub fn take_or_first_of_free(self: &Arc<Self>, user: &str, amount: usize) -> Option<Share> {
        let mut taken = self.taken.lock();
        let is_first = !taken.by_user.contains_key(user)
            && namespace_of(user).is_none_or(|namespace| !taken.by_namespace.contains_key(namespace));
        let fits = taken.all == 0 || amount <= self.total.saturating_sub(taken.all);
        (is_first && fits || self.allows(&taken, user, amount)).then(|| self.give(&mut taken, user, amount))
    }

    /// So many permits for a user, whatever there is.
    pub fn take_anyway(self: &Arc<Self>, user: &str, amount: usize) -> Share {
        self.give(&mut self.taken.lock(), user, amount)
    }

    /// Whether a user, or the namespace of a ServiceAccount, holds no more than it may always hold: where there is
    /// nothing for them, others hold it.
    pub fn holds_little(&self, user: &str) -> bool {
        let taken = self.taken.lock();
        let of_namespace = namespace_of(user).and_then(|namespace| taken.by_namespace.get(namespace));
        let of_user = taken.by_user.get(user);
        [of_user, of_namespace].into_iter().flatten().all(|held| *held <= self.little())
    }

    /// How many nobody holds.
    pub fn free(&self) -> usize {
        self.total.saturating_sub(self.taken())
    }

    /// How many are held.
    pub fn taken(&self) -> usize {
        self.taken.lock().all
    }

    fn allows(&self, taken: &Taken, user: &str, amount: usize) -> bool {
        let free = self.total.saturating_sub(taken.all);
        let held = taken.by_user.get(user).copied().unwrap_or_default().saturating_add(amount);
        let limit = self.limit(free);
        let of_all = match namespace_of(user) {
            None => held <= limit,
            Some(namespace) => {
                let together = taken.by_namespace.get(namespace).copied().unwrap_or_default();
                let left = limit.saturating_sub(together);
                let little = self.little().min(limit);
                together.saturating_add(amount) <= limit && held <= left.max(little)
            }
        };
        amount <= free && of_all && held <= self.most_each
    }

    /// The most that one user holds while so much is free.
    fn limit(&self, free: usize) -> usize {
        share_of(self.total, free)
    }

    fn little(&self) -> usize {
        little_of(self.total)
    }

    fn give(self: &Arc<Self>, taken: &mut Taken, user: &str, amount: usize) -> Share {
        let user = add(&mut taken.by_user, user, amount);
        if let Some(namespace) = namespace_of(&user) {
            add(&mut taken.by_namespace, namespace, amount);
        }
        taken.all = taken.all.saturating_add(amount);
        Share { of: self.clone(), user, amount }
    }
}

/// The most that one user holds of `total` permits while so many are free.
pub fn share_of(total: usize, free: usize) -> usize {
    // As wide as needed: the square of a number of bytes.
    let (free, all) = (free as u128, total.max(1) as u128);
    let share = free.saturating_mul(free).saturating_mul(2).checked_div(all).unwrap_or_default();
    usize::try_from(share).unwrap_or(usize::MAX).max(little_of(total))
}

/// What a user may always hold of `total` permits, as long as there are any.
pub fn little_of(total: usize) -> usize {
    (total / LITTLE).max(1)
}

/// The namespace of a ServiceAccount.
pub fn namespace_of(user: &str) -> Option<&str> {
    user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':').map(|(namespace, _)| namespace)
}

/// Adds to what `holder` holds; returns the one copy of its name.
fn add(held: &mut HashMap<Arc<str>, usize>, holder: &str, amount: usize) -> Arc<str> {
    let holder: Arc<str> = held.get_key_value(holder).map_or_else(|| holder.into(), |(holder, _)| holder.clone());
    let holds = held.entry(holder.clone()).or_default();
    *holds = holds.saturating_add(amount);
    holder
}

/// Takes from what `holder` holds, and forgets who holds nothing.
fn subtract(held: &mut HashMap<Arc<str>, usize>, holder: Arc<str>, amount: usize) {
    if let Entry::Occupied(mut holds) = held.entry(holder) {
        let left = holds.get().saturating_sub(amount);
        *holds.get_mut() = left;
        if left == 0 {
            holds.remove();
        }
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

    /// Gives back what is more than this.
    pub fn shrink_to(&mut self, amount: usize) {
        let more = self.amount.saturating_sub(amount);
        self.amount = self.amount.saturating_sub(more);
        drop(Share { of: self.of.clone(), user: self.user.clone(), amount: more });
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all = taken.all.saturating_sub(self.amount);
        if let Some(namespace) = namespace_of(&self.user) {
            subtract(&mut taken.by_namespace, namespace.into(), self.amount);
        }
        subtract(&mut taken.by_user, self.user.clone(), self.amount);
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
        assert_eq!(first.len(), 50);
        let second = take_all(&shares, "b");
        assert_eq!(second.len(), 19);
        assert!(shares.take("c", 1).is_some() && shares.take("a", 1).is_none());
        assert!(shares.holds_little("c") && !shares.holds_little("a"));
        drop((first, second));
        assert!(shares.taken.lock().by_user.is_empty());
        assert_eq!(take_all(&shares, "a").len(), 50);
    }

    #[test]
    fn who_comes_late_finds_a_share_though_nobody_gives_any_back() {
        let shares = Shares::new(1 << 20, usize::MAX);
        let mut held = Vec::new();
        for number in 1..=20 {
            let user = format!("user-{number}");
            let mine: Vec<Share> = std::iter::from_fn(|| shares.take(&user, 64)).collect();
            // To halve what is left would leave the tenth a thousandth, and the twentieth nothing.
            let least = (1 << 20) / (2 * number * number).max(LITTLE);
            assert!(mine.len() * 64 >= least * 3 / 4, "{user} has {} of {least}", mine.len() * 64);
            held.push(mine);
        }
        let taken = held.iter().map(Vec::len).sum::<usize>() * 64;
        assert!(taken < 1 << 20, "there is something for the next");
    }

    #[test]
    fn the_last_quarter_is_for_those_who_hold_little() {
        let shares = Shares::new(400, usize::MAX);
        let others: Vec<Share> = (0..300).map(|number| shares.take_anyway(&format!("user-{number}"), 1)).collect();
        let greedy = take_all(&shares, "greedy");
        assert_eq!(greedy.len(), 27, "of the 100 that are left");
        assert!(take_all(&shares, "late").len() > 10);
        drop((others, greedy));
    }

    #[test]
    fn users_who_all_want_more_come_to_hold_the_same() {
        let shares = Shares::new(400, usize::MAX);
        let users = ["a", "b", "c", "d", "e"];
        let mut held: Vec<Vec<Share>> = users.iter().map(|user| take_all(&shares, user)).collect();
        assert!(held[0].len() > 3 * held[4].len(), "the first holds most at first");
        for _ in 0..1000 {
            for (user, mine) in users.iter().zip(&mut held) {
                mine.pop();
                mine.extend(take_all(&shares, user));
            }
        }
        let counts: Vec<usize> = held.iter().map(Vec::len).collect();
        let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
        assert!(most - least <= 5 && counts.iter().sum::<usize>() > 280, "{counts:?}");
    }

    #[test]
    fn the_service_accounts_of_a_namespace_hold_together_what_one_user_may() {
        let shares = Shares::new(400, usize::MAX);
        let account = |number: usize| format!("system:serviceaccount:busy:account-{number}");
        let alone = take_all(&shares, &account(0));
        assert!((140..200).contains(&alone.len()), "{}", alone.len());
        let held: Vec<Vec<Share>> = (1..1000).map(|number| take_all(&shares, &account(number))).collect();
        assert!(!held[0].is_empty(), "the second finds some");
        let together = alone.len() + held.iter().map(Vec::len).sum::<usize>();
        assert!(together <= 200, "{together}");
        assert!(take_all(&shares, "system:serviceaccount:other:default").len() > 30);
        assert!(take_all(&shares, "joe").len() > 20);
        drop((alone, held));
        assert!(shares.taken.lock().by_namespace.is_empty());
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
        assert!(share.grow(2) && share.grow(3) && !share.grow(1), "it holds half");
        drop(share);
        assert_eq!(shares.taken.lock().all, 0);
    }

    #[test]
    fn a_share_that_shrinks_gives_the_rest_back() {
        let shares = Shares::new(10, usize::MAX);
        let mut share = shares.take_anyway("system:serviceaccount:a:b", 8);
        share.shrink_to(3);
        assert_eq!(shares.taken(), 3);
        share.shrink_to(5);
        assert_eq!(shares.taken(), 3);
        drop(share);
        assert!(shares.taken.lock().by_namespace.is_empty() && shares.taken() == 0);
    }

    #[test]
    fn the_accounts_of_a_namespace_do_not_each_get_a_first_of_any_size() {
        let shares = Shares::new(1000, usize::MAX);
        let account = |number: usize| format!("system:serviceaccount:busy:account-{number}");
        let first = shares.take_or_first_of_free(&account(0), 900).expect("it is free");
        assert!((1..200).all(|number| shares.take_or_first_of_free(&account(number), 90).is_none()));
        assert!(shares.take_or_first_of_free("joe", 101).is_none(), "there is not so much");
        let joe = shares.take_or_first_of_free("joe", 100).expect("a first that is free");
        drop(first);
        assert!(shares.take_or_first_of_free("ann", 5000).is_none());
        drop(joe);
        assert!(shares.take_or_first_of_free("ann", 5000).is_some(), "alone anything is let through");
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
