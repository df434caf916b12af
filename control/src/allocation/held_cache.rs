//! What the stored Services hold, as of the last look at each. An audit parses only those that changed since.

use std::{collections::BTreeMap, sync::Arc};

use super::service::{ServiceAllocations, held};
use crate::store::Snapshot;

/// By the key of the Service.
#[derive(Debug, Default)]
pub struct HeldCache {
    services: BTreeMap<Arc<str>, Reading>,
    /// How many Services were parsed since the start.
    pub parsed: u64,
}

/// One Service at one revision.
#[derive(Debug)]
pub struct Reading {
    /// Of the version that was parsed.
    pub revision: u64,
    /// `None` where it is not readable.
    pub held: Option<ServiceAllocations>,
}

impl HeldCache {
    /// Looks at the Services of `snapshot`. Cost: O(Services), and a parse of each that was changed since.
    pub fn update(&mut self, snapshot: &Snapshot) -> &BTreeMap<Arc<str>, Reading> {
        let mut known = std::mem::take(&mut self.services);
        for (key, object) in snapshot.list("services", "", None) {
            let reading = known.remove(key).filter(|reading| reading.revision == object.revision);
            let reading = reading.unwrap_or_else(|| {
                self.parsed = self.parsed.saturating_add(1);
                let held = serde_json::from_slice(&object.json()).ok().map(|service| held(&service));
                Reading { revision: object.revision, held }
            });
            self.services.insert(key.clone(), reading);
        }
        &self.services
    }
}
