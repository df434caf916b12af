//! What the controller remembers of each Job: failures in a row, and pods that the view may still show as not counted.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::batch::v1::Job;
use parking_lot::Mutex;

use super::backoff::FailureStreak;
use crate::engine::Key;

/// The records of all Jobs that have not finished.
#[derive(Default)]
pub struct Memory {
    records: Mutex<HashMap<Key, Record>>,
}

#[derive(Default)]
struct Record {
    /// Of the Job; a record of another Job of the same name says nothing.
    uid: String,
    streak: FailureStreak,
    /// Pods whose finalizer was removed, while the view may still show it.
    released: HashSet<String>,
}

impl Memory {
    fn with<T>(&self, key: &Key, job: &Job, read: impl FnOnce(&mut Record) -> T) -> T {
        let mut records = self.records.lock();
        let record = records.entry(key.clone()).or_default();
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        if record.uid != uid {
            *record = Record { uid: uid.to_owned(), ..Default::default() };
        }
        read(record)
    }

    /// Failures in a row.
    pub fn streak(&self, key: &Key, job: &Job) -> FailureStreak {
        self.with(key, job, |record| record.streak)
    }

    /// Replaces the failures in a row, once the pods that they were read in are counted.
    pub fn set_streak(&self, key: &Key, job: &Job, streak: FailureStreak) {
        self.with(key, job, |record| record.streak = streak);
    }

    /// Pods whose finalizer was removed, while the view may still show it.
    pub fn released(&self, key: &Key, job: &Job) -> HashSet<String> {
        self.with(key, job, |record| record.released.clone())
    }

    /// The finalizers of these pods are about to be removed.
    pub fn releasing<'a>(&self, key: &Key, job: &Job, uids: impl IntoIterator<Item = &'a str>) {
        self.with(key, job, |record| record.released.extend(uids.into_iter().map(str::to_owned)));
    }

    /// The view shows the pod without its finalizer or not at all, or the finalizer could not be removed.
    pub fn observed(&self, key: &Key, uid: &str) {
        if let Some(record) = self.records.lock().get_mut(key) {
            record.released.remove(uid);
        }
    }

    /// Forgets a Job that has finished or was deleted.
    pub fn forget(&self, key: &Key) {
        self.records.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(uid: &str) -> Job {
        serde_json::from_value(json!({"metadata": {"uid": uid}})).expect("a valid Job")
    }

    #[test]
    fn a_released_pod_is_remembered_until_the_view_shows_it() {
        let (memory, key, job) = (Memory::default(), Key::new("default", "j"), job("a"));
        memory.releasing(&key, &job, ["p", "q"]);
        memory.observed(&key, "p");
        assert_eq!(memory.released(&key, &job), HashSet::from(["q".to_owned()]));
        assert!(memory.released(&key, &self::job("b")).is_empty(), "another Job of the same name");
        memory.releasing(&key, &job, ["p"]);
        memory.forget(&key);
        assert!(memory.released(&key, &job).is_empty());
    }
}
