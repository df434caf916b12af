//! Responses of other resolvers by question, bounded in number; the oldest go first.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    cached_response::CachedResponse,
    query::{FLAG_CHECKING_DISABLED, Query},
};

/// What makes two questions the same: name in lower case, type, class, and what the client wants of DNSSEC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    name: Box<[u8]>,
    kind: u16,
    class: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl Key {
    /// The key under which the response to `query` is kept.
    pub fn of(query: &Query<'_>) -> Self {
        Self {
            name: query.name().into(),
            kind: query.qtype,
            class: query.qclass,
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: query.flags & FLAG_CHECKING_DISABLED != 0,
        }
    }
}

/// Responses of other resolvers, by question; bounded.
#[derive(Debug)]
pub struct Cache {
    capacity: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, Arc<CachedResponse>>,
    /// Keys in the order they were first stored.
    order: VecDeque<Key>,
}

impl Cache {
    /// For at most `capacity` responses.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::default() }
    }

    /// The response, fresh or stale.
    pub fn get(&self, key: &Key) -> Option<Arc<CachedResponse>> {
        self.entries.lock().by_key.get(key).cloned()
    }

    /// Keeps `response` in the place of an earlier one.
    pub fn insert(&self, key: Key, response: Arc<CachedResponse>) {
        let mut entries = self.entries.lock();
        if entries.by_key.insert(key.clone(), response).is_none() {
            entries.order.push_back(key);
        }
        while entries.by_key.len() > self.capacity {
            let Some(oldest) = entries.order.pop_front() else { return };
            entries.by_key.remove(&oldest);
        }
    }
}
