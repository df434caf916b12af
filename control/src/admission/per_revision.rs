//! What is made of the stored objects of one resource, each once for each of its revisions: compiled webhooks and
//! policies.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use serde_json::Value;

use crate::store::{Object, Snapshot};

/// Values made of all objects of a resource. A request sees those of its own snapshot; what is deleted is dropped, and
/// what is terminating still counts, as in Kubernetes.
#[derive(Debug)]
pub struct PerRevision<T> {
    resource: &'static str,
    kept: ArcSwap<Vec<RevisionValue<T>>>,
    /// The revision of the newest state that was seen.
    latest: AtomicU64,
}

/// What was made of one object.
#[derive(Debug)]
pub struct RevisionValue<T> {
    /// Its key.
    pub name: Arc<str>,
    revision: u64,
    /// `None` where the stored text cannot be read.
    pub value: Option<Arc<T>>,
}

impl<T> Clone for RevisionValue<T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), revision: self.revision, value: self.value.clone() }
    }
}

impl<T> PerRevision<T> {
    /// Of the objects of `resource`.
    pub fn new(resource: &'static str) -> Self {
        Self { resource, kept: ArcSwap::default(), latest: AtomicU64::new(0) }
    }

    /// Whether there are no objects to be asked for.
    pub fn is_empty(&self, snapshot: &Snapshot) -> bool {
        snapshot.count(self.resource) == 0
    }

    /// What is made of the objects of `snapshot`, in the order of their names. Objects that have not changed since the
    /// last call are not looked at.
    pub fn of(&self, snapshot: &Snapshot, make: impl Fn(&Value) -> T) -> Arc<Vec<RevisionValue<T>>> {
        let kept = self.kept.load_full();
        let objects = || snapshot.list(self.resource, "", None);
        let same = |made: &RevisionValue<T>, name: &Arc<str>, object: &Object| {
            made.name == *name && made.revision == object.revision
        };
        if kept.len() == objects().count()
            && kept.iter().zip(objects()).all(|(made, (name, object))| same(made, name, object))
        {
            return kept;
        }
        let known: HashMap<&str, &RevisionValue<T>> = kept.iter().map(|made| (&*made.name, made)).collect();
        let all = objects().map(|(name, object)| match known.get(&**name) {
            Some(made) if made.revision == object.revision => (*made).clone(),
            _ => {
                let value = serde_json::from_slice(&object.json()).ok().map(|value| Arc::new(make(&value)));
                RevisionValue { name: name.clone(), revision: object.revision, value }
            }
        });
        let all = Arc::new(all.collect::<Vec<_>>());
        // A request that began before a change does not bring back what was compiled before it.
        if snapshot.revision >= self.latest.fetch_max(snapshot.revision, Ordering::Relaxed) {
            self.kept.store(all.clone());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::{
        encode,
        store::{EventType, Key},
    };

    #[test]
    fn each_revision_is_made_once_and_what_is_deleted_is_dropped() {
        let snapshot = |objects: &[(&str, u64)]| {
            let mut snapshot = Snapshot::default();
            for (name, revision) in objects {
                let object = Object::new(encode::unserved(&json!({"at": revision})), *revision, EventType::Added);
                snapshot.load(Key { resource: "hooks".into(), name: (*name).into() }, Arc::new(object));
            }
            snapshot
        };
        let (kept, made) = (PerRevision::new("hooks"), AtomicUsize::new(0));
        let names = |snapshot: &Snapshot| -> Vec<String> {
            let all = kept.of(snapshot, |value| {
                made.fetch_add(1, Ordering::Relaxed);
                value["at"].clone()
            });
            all.iter().map(|one| format!("{} {}", one.name, one.value.as_ref().unwrap())).collect()
        };
        let first = snapshot(&[("a", 1), ("b", 2)]);
        assert!(!kept.is_empty(&first) && kept.is_empty(&Snapshot::default()));
        assert_eq!(names(&first), ["a 1", "b 2"]);
        assert_eq!(names(&first), ["a 1", "b 2"]);
        assert_eq!(made.load(Ordering::Relaxed), 2);
        assert_eq!(names(&snapshot(&[("b", 3), ("c", 4)])), ["b 3", "c 4"]);
        assert_eq!(made.load(Ordering::Relaxed), 4);
        let last = kept.of(&Snapshot::default(), Clone::clone);
        assert!(last.is_empty(), "nothing is kept of what is gone");
        assert!(!kept.is_empty(&first));
    }
}
