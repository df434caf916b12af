//! How many streams each user may hold, 1,024 to agents and pods and 1,024 to extension API servers: they last for
//! hours, and each takes a connection of those that the listener has. The ServiceAccounts of a namespace are counted as
//! one user.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{flow_control::shares, identity::SERVICE_ACCOUNT, status::Status};

/// Streams of one user at a time: what a tool that runs commands in a thousand pods at once needs.
const MOST_OF_ONE_USER: usize = 1024;

/// Counts the streams of each user. Clones share the counts.
#[derive(Clone, Debug)]
pub struct StreamLimit {
    most: usize,
    held: Arc<Mutex<HashMap<String, usize>>>,
}

/// A stream that is counted until this is dropped.
#[derive(Debug)]
pub struct CountedStream {
    holder: String,
    held: Arc<Mutex<HashMap<String, usize>>>,
}

impl Default for StreamLimit {
    fn default() -> Self {
        Self::new(MOST_OF_ONE_USER)
    }
}

impl StreamLimit {
    /// At most so many of each user.
    pub fn new(most: usize) -> Self {
        Self { most, held: Arc::default() }
    }

    /// Counts one more stream of a user; 429 where there are too many.
    pub fn admit(&self, user: &str) -> Result<CountedStream, Status> {
        let mut held = self.held.lock();
        let holder = shares::namespace_of(user)
            .map_or_else(|| user.to_owned(), |namespace| format!("{}{namespace}:", SERVICE_ACCOUNT));
        let count = held.get(&holder).copied().unwrap_or_default();
        if count >= self.most {
            let message = format!("user {holder:?} has {count} streams already");
            return Err(Status::too_many_requests(&message, 1, "TooManyStreams", "too many streams of one user"));
        }
        held.insert(holder.clone(), count.saturating_add(1));
        Ok(CountedStream { holder, held: self.held.clone() })
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.held.lock().entry(std::mem::take(&mut self.holder)) {
            match held.get().saturating_sub(1) {
                0 => drop(held.remove()),
                left => *held.get_mut() = left,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_limit_of_their_own_and_what_ended_counts_no_more() {
        let limit = StreamLimit::new(2);
        let held = [limit.admit("joe").unwrap(), limit.admit("joe").unwrap()];
        let refused = limit.admit("joe").unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (429, "user \"joe\" has 2 streams already"));
        let other = limit.admit("ann").unwrap();
        drop(held);
        let again = limit.admit("joe").unwrap();
        drop((other, again));
        assert!(limit.held.lock().is_empty());
    }

    #[test]
    fn the_service_accounts_of_a_namespace_are_counted_as_one_user() {
        let limit = StreamLimit::new(2);
        let admit = |name: &str| limit.admit(&format!("system:serviceaccount:{name}"));
        let held = [admit("a:one").unwrap(), admit("a:two").unwrap()];
        assert_eq!(admit("a:three").unwrap_err().code, 429);
        assert!(admit("b:one").is_ok());
        drop(held);
        assert!(admit("a:three").is_ok() && limit.held.lock().is_empty());
    }
}
