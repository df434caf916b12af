//! Revisions of a controller's own status writes: whether what the view shows is older than what was written.
//!
//! A decision on the older object would do again what was done: count a pod twice, start a second Job.

use std::collections::HashMap;

use kube::Resource;
use parking_lot::Mutex;

use crate::engine::Key;

/// The last write of each object.
#[derive(Default)]
pub struct OwnWrites {
    last: Mutex<HashMap<Key, (Option<String>, u64)>>,
}

impl OwnWrites {
    /// `object` is what is stored after a write.
    pub fn wrote<K: Resource>(&self, object: &K) {
        if let Some(revision) = revision(object) {
            self.last.lock().insert(Key::of(object), (object.meta().uid.clone(), revision));
        }
    }

    /// Whether `object` is older than the last write. Its watch will show the newer one.
    pub fn is_stale<K: Resource>(&self, object: &K) -> bool {
        let last = self.last.lock();
        last.get(&Key::of(object)).is_some_and(|(uid, written)| {
            *uid == object.meta().uid && revision(object).is_some_and(|revision| revision < *written)
        })
    }

    /// Forgets an object that is written no more.
    pub fn forget(&self, key: &Key) {
        self.last.lock().remove(key);
    }
}

fn revision<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::json;

    use super::*;

    fn job(uid: &str, revision: &str) -> Job {
        serde_json::from_value(json!({"metadata": {"name": "j", "uid": uid, "resourceVersion": revision}}))
            .expect("a valid Job")
    }

    #[test]
    fn an_object_is_stale_until_the_view_shows_what_was_written() {
        let writes = OwnWrites::default();
        assert!(!writes.is_stale(&job("a", "5")));
        writes.wrote(&job("a", "12"));
        assert!(writes.is_stale(&job("a", "9")));
        assert!(!writes.is_stale(&job("a", "12")));
        assert!(!writes.is_stale(&job("b", "3")), "another object of the same name");
    }
}
