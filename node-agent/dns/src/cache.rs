//! Responses of other resolvers by question, bounded in number and in bytes; the oldest go first.

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
    most_bytes: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, Arc<CachedResponse>>,
    /// Keys in the order they were first stored.
    order: VecDeque<Key>,
    /// Of all responses.
    bytes: usize,
}

impl Cache {
    /// For at most `capacity` responses, of `most_bytes` together.
    pub fn new(capacity: usize, most_bytes: usize) -> Self {
        Self { capacity, most_bytes, entries: Mutex::default() }
    }

    /// The response, fresh or stale.
    pub fn get(&self, key: &Key) -> Option<Arc<CachedResponse>> {
        self.entries.lock().by_key.get(key).cloned()
    }

    /// Keeps `response` in the place of an earlier one.
    pub fn insert(&self, key: Key, response: Arc<CachedResponse>) {
        let mut entries = self.entries.lock();
        let entries = &mut *entries;
        entries.bytes += response.size();
        match entries.by_key.insert(key.clone(), response) {
            Some(earlier) => entries.bytes -= earlier.size(),
            None => entries.order.push_back(key),
        }
        while entries.by_key.len() > self.capacity || entries.bytes > self.most_bytes {
            let Some(oldest) = entries.order.pop_front() else { return };
            if let Some(gone) = entries.by_key.remove(&oldest) {
                entries.bytes -= gone.size();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn key(name: u8) -> Key {
        Key { name: [name].into(), kind: 16, class: 1, dnssec_ok: false, checking_disabled: false }
    }

    /// A response with one TXT record of so many bytes, as it came.
    fn response(len: u16) -> Arc<CachedResponse> {
        // Header with one answer; no question; root, TXT, IN, TTL 60.
        let mut bytes = vec![0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 1, 0, 0, 0, 60];
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(len), 0);
        Arc::new(CachedResponse::read(&bytes, 0, Instant::now()).expect("it is well formed"))
    }

    #[test]
    fn long_responses_push_the_oldest_out() {
        let cache = Cache::new(100, 100_000);
        for name in 0..5 {
            cache.insert(key(name), response(30_000));
        }
        let kept: Vec<u8> = (0..5).filter(|name| cache.get(&key(*name)).is_some()).collect();
        assert_eq!(kept, [2, 3, 4]);
        // One in the place of another counts once.
        for _ in 0..10 {
            cache.insert(key(4), response(20_000));
        }
        assert!(cache.get(&key(2)).is_some());
        cache.insert(key(5), response(10));
        assert!(cache.entries.lock().bytes < 100_000);
        assert!((2..=5).all(|name| cache.get(&key(name)).is_some()));
    }
}
