//! What stored objects of one resource hold, as of the last look at each. An audit reads only those that changed since.

use std::{collections::BTreeMap, sync::Arc};

use crate::store::Snapshot;

/// By the key of the object.
#[derive(Debug)]
pub struct HeldCache<T> {
    objects: BTreeMap<Arc<str>, Reading<T>>,
    /// How many objects were read since the start.
    pub parsed: u64,
}

/// One object at one revision.
#[derive(Debug)]
pub struct Reading<T> {
    /// Of the version that was read.
    pub revision: u64,
    /// `None` where it is not readable, or holds nothing.
    pub held: Option<T>,
}

impl<T> Default for HeldCache<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), parsed: 0 }
    }
}

impl<T> HeldCache<T> {
    /// Looks at all of `resource` in `snapshot`. Cost: O(objects), and a `read` of each that was changed since.
    pub fn update(
        &mut self,
        snapshot: &Snapshot,
        resource: &str,
        read: fn(&[u8]) -> Option<T>,
    ) -> &BTreeMap<Arc<str>, Reading<T>> {
        let mut known = std::mem::take(&mut self.objects);
        for (key, object) in snapshot.list(resource, "", None) {
            let reading = known.remove(key).filter(|reading| reading.revision == object.revision);
            let reading = reading.unwrap_or_else(|| {
                self.parsed = self.parsed.saturating_add(1);
                Reading { revision: object.revision, held: read(&object.json()) }
            });
            self.objects.insert(key.clone(), reading);
        }
        &self.objects
    }
}
