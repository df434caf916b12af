//! Responses of other resolvers by question, bounded in number; those that nobody asks for go first.

use std::sync::Arc;

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

/// Responses of other resolvers, by question; bounded. A question that is asked again stays, whatever else is asked once.
#[derive(Debug)]
pub struct Cache(quick_cache::sync::Cache<Key, Arc<CachedResponse>>);

impl Cache {
    /// For about `capacity` responses.
    pub fn new(capacity: usize) -> Self {
        Self(quick_cache::sync::Cache::new(capacity))
    }

    /// The response, fresh or stale.
    pub fn get(&self, key: &Key) -> Option<Arc<CachedResponse>> {
        self.0.get(key)
    }

    /// Keeps `response` in the place of an earlier one.
    pub fn insert(&self, key: Key, response: Arc<CachedResponse>) {
        self.0.insert(key, response);
    }
}
