//! Bytes that many share, and of which no user has more than a part.
//!
//! Whoever waits does so in the order in which they ask. A user who has a part's worth waits for their own requests
//! alone, and takes nothing from others while doing so. The ServiceAccounts of a namespace have together what one other
//! user may, and each of them half of it: whoever may make accounts has no more for that.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::flow_control::shares;

/// The bytes.
#[derive(Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: u32,
    /// The most that one user has.
    most_each: u32,
    users: SharesByName,
    /// Of all ServiceAccounts of a namespace.
    namespaces: SharesByName,
}

/// What each of many may have. It is there as long as they have some of it, or wait for it.
#[derive(Debug, Default)]
struct SharesByName(Mutex<HashMap<Box<str>, Weak<Semaphore>>>);

/// Bytes that were taken.
#[derive(Debug)]
pub struct Taken {
    /// Of what the user may have; `None` where that is not limited.
    pub share: Option<UserShare>,
    /// Of all; `None` where there were none.
    pub bytes: Option<OwnedSemaphorePermit>,
}

/// What was taken of what a user may have.
#[derive(Debug)]
pub struct UserShare {
    own: OwnedSemaphorePermit,
    /// Of a ServiceAccount's namespace.
    of_namespace: Option<OwnedSemaphorePermit>,
}

/// How many users are remembered before those are looked for who have nothing.
const REMEMBERED: usize = 256;
/// One ServiceAccount has at most this part of what its namespace may have.
const PART_OF_NAMESPACE: u32 = 2;

impl Budget {
    /// So many bytes, for anybody.
    pub fn new(total: u32) -> Self {
        Self::shared(total, 1)
    }

    /// So many bytes, of which one user has one in `parts` at most.
    pub fn shared(total: u32, parts: u32) -> Self {
        let most_each = (total / parts.max(1)).max(1);
        let (users, namespaces) = Default::default();
        Self { free: Arc::new(Semaphore::new(total as usize)), total, most_each, users, namespaces }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// So many bytes for a user, or all that one may have; waits for them. `None` never happens while the budget is
    /// there.
    pub async fn take(&self, user: &str, bytes: usize) -> Option<Taken> {
        let bytes = capped(bytes, self.limit_of(user).min(self.total));
        let (own, namespace) = self.shares_of(user);
        let own = own.acquire_many_owned(bytes).await.ok()?;
        let of_namespace = match namespace {
            Some(namespace) => Some(namespace.acquire_many_owned(bytes).await.ok()?),
            None => None,
        };
        let bytes = self.free.clone().acquire_many_owned(bytes).await.ok()?;
        Some(Taken { share: Some(UserShare { own, of_namespace }), bytes: Some(bytes) })
    }

    /// So many bytes, or all that there are, if they are free now.
    pub fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(capped(bytes, self.total)).ok()
    }

    /// The most that a user has.
    pub fn most_of(&self, user: &str) -> usize {
        self.limit_of(user) as usize
    }

    /// So many bytes of what a user may have, or all of it, if they are free now.
    pub fn try_take_share(&self, user: &str, bytes: usize) -> Option<UserShare> {
        let bytes = capped(bytes, self.limit_of(user));
        let (own, namespace) = self.shares_of(user);
        let own = own.try_acquire_many_owned(bytes).ok()?;
        let of_namespace = match namespace {
            Some(namespace) => Some(namespace.try_acquire_many_owned(bytes).ok()?),
            None => None,
        };
        Some(UserShare { own, of_namespace })
    }

    /// So many bytes, or those that are free now.
    pub fn take_what_is_free(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.try_take(bytes.min(self.free.available_permits()))
    }

    /// How many are free.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    fn limit_of(&self, user: &str) -> u32 {
        match shares::namespace_of(user) {
            Some(_) => (self.most_each / PART_OF_NAMESPACE).max(1),
            None => self.most_each,
        }
    }

    /// What a user may have, and what its namespace may.
    fn shares_of(&self, user: &str) -> (Arc<Semaphore>, Option<Arc<Semaphore>>) {
        let namespace = shares::namespace_of(user).map(|namespace| self.namespaces.of(namespace, self.most_each));
        (self.users.of(user, self.limit_of(user)), namespace)
    }
}

impl SharesByName {
    fn of(&self, name: &str, most: u32) -> Arc<Semaphore> {
        let mut known = self.0.lock();
        if let Some(share) = known.get(name).and_then(Weak::upgrade) {
            return share;
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(most as usize));
        known.insert(name.into(), Arc::downgrade(&share));
        share
    }
}

impl UserShare {
    /// How many bytes these are.
    pub fn bytes(&self) -> usize {
        self.own.num_permits()
    }

    /// Both are one from now on. Of the same user.
    pub fn merge(&mut self, more: Self) {
        self.own.merge(more.own);
        match (&mut self.of_namespace, more.of_namespace) {
            (Some(held), Some(more)) => held.merge(more),
            (held @ None, more) => *held = more,
            (Some(_), None) => {}
        }
    }
}

fn capped(bytes: usize, most: u32) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_who_have_nothing_are_forgotten() {
        let budget = Budget::shared(1 << 20, 4);
        let kept = budget.take("joe", 1).await.unwrap();
        for number in 0..10 * REMEMBERED {
            budget.take(&number.to_string(), 100).await.unwrap();
        }
        assert!(budget.users.0.lock().len() <= REMEMBERED);
        assert_eq!(budget.shares_of("joe").0.available_permits(), (1 << 18) - 1);
        drop(kept);
        assert_eq!(budget.shares_of("joe").0.available_permits(), 1 << 18);
    }

    #[tokio::test]
    async fn the_service_accounts_of_a_namespace_have_together_what_one_user_may() {
        let budget = Budget::shared(800, 8);
        let account = |number: usize| format!("system:serviceaccount:busy:account-{number}");
        let mut held = Vec::new();
        for number in 0..2 {
            held.push(budget.take(&account(number), 1000).await.unwrap());
        }
        assert_eq!(budget.free(), 800 - 100, "each has half of its namespace's part");
        for number in 2..20 {
            let account = account(number);
            let mut waiting = std::pin::pin!(budget.take(&account, 1));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            assert!(budget.try_take_share(&account, 1).is_none());
        }
        assert!(budget.try_take_share("system:serviceaccount:other:default", 50).is_some());
        assert!(budget.try_take_share("joe", 100).is_some());
        held.pop();
        assert!(budget.try_take_share(&account(2), 50).is_some(), "what is given back is for the others");
    }
}
