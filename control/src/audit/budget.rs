//! Bytes that many share, and of which no user has more than a part.
//!
//! Whoever waits does so in the order in which they ask. A user who has a part's worth waits for their own requests
//! alone, and takes nothing from others while doing so.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes.
#[derive(Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: u32,
    /// The most that one user has.
    most_each: u32,
    /// Of users who have some.
    users: Mutex<HashMap<Box<str>, Weak<Semaphore>>>,
}

/// Bytes that were taken.
#[derive(Debug)]
pub struct Taken {
    /// Of what the user may have; `None` where that is not limited.
    pub share: Option<OwnedSemaphorePermit>,
    /// Of all; `None` where there were none.
    pub bytes: Option<OwnedSemaphorePermit>,
}

/// How many users are remembered before those are looked for who have nothing.
const REMEMBERED: usize = 256;

impl Budget {
    /// So many bytes, for anybody.
    pub fn new(total: u32) -> Self {
        Self::shared(total, 1)
    }

    /// So many bytes, of which one user has one in `parts` at most.
    pub fn shared(total: u32, parts: u32) -> Self {
        let most_each = (total / parts.max(1)).max(1);
        Self { free: Arc::new(Semaphore::new(total as usize)), total, most_each, users: Mutex::default() }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// So many bytes for a user, or all that one may have; waits for them. `None` never happens while the budget is
    /// there.
    pub async fn take(&self, user: &str, bytes: usize) -> Option<Taken> {
        let bytes = capped(bytes, self.most_each.min(self.total));
        let share = self.share_of(user).acquire_many_owned(bytes).await.ok()?;
        let bytes = self.free.clone().acquire_many_owned(bytes).await.ok()?;
        Some(Taken { share: Some(share), bytes: Some(bytes) })
    }

    /// So many bytes, or all that there are, if they are free now.
    pub fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(capped(bytes, self.total)).ok()
    }

    /// The most that one user has.
    pub fn most_each(&self) -> usize {
        self.most_each as usize
    }

    /// So many bytes of what a user may have, or all of it, if they are free now.
    pub fn try_take_share(&self, user: &str, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.share_of(user).try_acquire_many_owned(capped(bytes, self.most_each)).ok()
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

    /// What a user may have. It is there as long as they have some of it, or wait for it.
    fn share_of(&self, user: &str) -> Arc<Semaphore> {
        let mut users = self.users.lock();
        if let Some(share) = users.get(user).and_then(Weak::upgrade) {
            return share;
        }
        if users.len() >= REMEMBERED {
            users.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.most_each as usize));
        users.insert(user.into(), Arc::downgrade(&share));
        share
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
        assert!(budget.users.lock().len() <= REMEMBERED);
        assert_eq!(budget.share_of("joe").available_permits(), (1 << 18) - 1);
        drop(kept);
        assert_eq!(budget.share_of("joe").available_permits(), 1 << 18);
    }
}
