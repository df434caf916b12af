//! What was read from stored objects, kept until they change: a write that asks about an object parses it only if
//! nobody has since its last change.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::RwLock;
use serde_json::Value;

use crate::store::{Object, Snapshot};

/// More readings than this are forgotten all at once, so that objects that are gone do not fill the memory.
const MOST: usize = 1 << 17;

/// By the key in the resource, each with the revision that was read.
type ByKey<T> = HashMap<Arc<str>, (u64, Arc<T>)>;

/// Readings of one resource's objects.
pub struct Readings<T> {
    resource: &'static str,
    read: fn(&Value) -> T,
    known: RwLock<ByKey<T>>,
}

impl<T> Readings<T> {
    /// Of objects of `resource`, by `read`.
    pub fn new(resource: &'static str, read: fn(&Value) -> T) -> Self {
        Self { resource, read, known: RwLock::default() }
    }

    /// The reading of the object with this key; `None` if there is none.
    pub fn get(&self, snapshot: &Snapshot, key: &str) -> Option<Arc<T>> {
        let (key, object) = snapshot.entry(self.resource, key)?;
        Some(self.of(key, object))
    }

    /// The names and readings of all objects whose key starts with `prefix`, in order.
    pub fn list(&self, snapshot: &Snapshot, prefix: &str) -> Vec<(Arc<str>, Arc<T>)> {
        let rows = snapshot.list(self.resource, prefix, None);
        rows.map(|(key, object)| (key.clone(), self.of(key, object))).collect()
    }

    /// The reading of a stored object.
    pub fn of(&self, key: &Arc<str>, object: &Object) -> Arc<T> {
        if let Some((revision, reading)) = self.known.read().get(key)
            && *revision == object.revision
        {
            return reading.clone();
        }
        let value = serde_json::from_slice(&object.json_without_managers()).unwrap_or_else(|error| {
            tracing::error!(%error, resource = self.resource, key = &**key, "a stored object is damaged");
            Value::Null
        });
        let reading = Arc::new((self.read)(&value));
        let mut known = self.known.write();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key.clone(), (object.revision, reading.clone()));
        reading
    }
}

impl<T> fmt::Debug for Readings<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").field("resource", &self.resource).finish_non_exhaustive()
    }
}
