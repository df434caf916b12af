//! Follows objects of the store: first all that there is, then every change after it, and all of it once more where
//! changes were missed. Whatever in this process waits for changes of stored objects follows them by this; what is only
//! looked up keeps readings by revision (`admission::readings`).
//!
//! ```text
//!   snapshot at revision N ──▶ Listed ──▶ Changed: N+1 … ──▶ Changed … ──(history cut)──▶ Listed …
//! ```
//!
//! The name is that of client-go, whose reflectors list and watch over the API.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::select_all};

use crate::store::{Event, Expired, Snapshot, Store, Subscription};

/// Until the next list, where the history was cut between a list and the watch after it.
const RETRY: Duration = Duration::from_millis(100);

/// Follows the objects of some resources.
pub struct Reflector {
    store: Arc<dyn Store>,
    /// The resources that are followed from each list on.
    resources: Vec<&'static str>,
    /// Follows only objects with this value under this index, if set.
    term: Option<(&'static str, String)>,
    /// By resource.
    subscriptions: BTreeMap<String, Subscription>,
    /// Whether changes are told: all those since the last list are known.
    is_following: bool,
    /// When the last list was made after which no watch began.
    failed_at: Option<Instant>,
}

/// What a reflector tells.
pub enum StoreUpdate {
    /// All that is stored now. What was told before counts no more.
    Listed(Snapshot),
    /// Changes since, at least one. Those of one resource are in order.
    Changed(Vec<Arc<Event>>),
}

impl Reflector {
    /// Of all objects of these resources.
    pub fn new(store: Arc<dyn Store>, resources: impl Into<Vec<&'static str>>) -> Self {
        let (resources, subscriptions) = (resources.into(), BTreeMap::new());
        Self { store, resources, term: None, subscriptions, is_following: false, failed_at: None }
    }

    /// Of the objects of a resource that have a value under an index: `term` names both.
    pub fn of_term(store: Arc<dyn Store>, resource: &'static str, (index, value): (&'static str, &str)) -> Self {
        Self { term: Some((index, value.to_owned())), ..Self::new(store, [resource]) }
    }

    /// What there is to be told already; nothing where nothing has changed.
    pub fn ready(&mut self) -> Option<StoreUpdate> {
        if !self.is_following {
            return Some(self.list());
        }
        match self.taken() {
            Ok(events) if events.is_empty() => None,
            Ok(events) => Some(StoreUpdate::Changed(events)),
            Err(Expired { .. }) => Some(self.list()),
        }
    }

    /// What is to be told next. Cancel safe: what is not returned is returned by the next call.
    pub async fn next(&mut self) -> StoreUpdate {
        if let Some(failed_at) = self.failed_at {
            tokio::time::sleep(RETRY.saturating_sub(failed_at.elapsed())).await;
        }
        if !self.is_following {
            return self.list();
        }
        let (changes, ..) = select_all(self.subscriptions.values_mut().map(|one| one.next().boxed())).await;
        changes.map_or_else(|Expired { .. }| self.list(), StoreUpdate::Changed)
    }

    /// Follows another resource as well, after the state in `snapshot` and until the next list.
    pub fn follow_after(&mut self, resource: &str, snapshot: &Snapshot) {
        if !self.is_following || self.subscriptions.contains_key(resource) {
            return;
        }
        match self.store.watch(resource, snapshot.revision) {
            Ok(subscription) => drop(self.subscriptions.insert(resource.to_owned(), subscription)),
            Err(Expired { .. }) => self.begin_anew(),
        }
    }

    /// Follows only those of the added resources that `keeps` answers for.
    pub fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.subscriptions.retain(|resource, _| self.resources.contains(&resource.as_str()) || keeps(resource));
    }

    /// Has everything told once more.
    pub fn begin_anew(&mut self) {
        self.is_following = false;
    }

    /// All changes that are there, in the order of their revisions.
    fn taken(&mut self) -> Result<Vec<Arc<Event>>, Expired> {
        let mut all = Vec::new();
        for subscription in self.subscriptions.values_mut() {
            loop {
                let events = subscription.ready()?;
                if events.is_empty() {
                    break;
                }
                all.extend(events);
            }
        }
        all.sort_by_key(|event| event.object.revision);
        Ok(all)
    }

    fn list(&mut self) -> StoreUpdate {
        let snapshot = self.store.snapshot();
        let watch = |resource: &&'static str| {
            let subscription = match &self.term {
                None => self.store.watch(resource, snapshot.revision),
                Some((index, value)) => self.store.watch_by(resource, (index, value), snapshot.revision),
            };
            subscription.map(|subscription| ((*resource).to_owned(), subscription))
        };
        let subscriptions: Result<_, Expired> = self.resources.iter().map(watch).collect();
        self.is_following = subscriptions.is_ok();
        self.failed_at = subscriptions.is_err().then(Instant::now);
        self.subscriptions = subscriptions.unwrap_or_default();
        StoreUpdate::Listed(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api, encode,
        kinds::Registry,
        store::{Change, Expect, KEY_INDEX, Key, Write},
    };

    fn store() -> (tempfile::TempDir, Arc<dyn Store>) {
        let dir = tempfile::tempdir().unwrap();
        let store = api::open_store(&dir.path().join("store"), &Registry::default()).unwrap();
        (dir, Arc::new(store))
    }

    async fn create(store: &dyn Store, resource: &str, name: &str) -> u64 {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let key = Key { resource: resource.into(), name: name.into() };
        let write = Write { key, expect: Expect::Absent, change: Change::Put(encode::unserved(&object)) };
        store.write_one(write).await.unwrap().revision
    }

    /// The names of what changed; nothing for a list.
    fn names(update: StoreUpdate) -> Option<Vec<String>> {
        match update {
            StoreUpdate::Listed(_) => None,
            StoreUpdate::Changed(events) => Some(events.iter().map(|event| event.key.name.to_string()).collect()),
        }
    }

    #[tokio::test]
    async fn a_list_comes_first_and_then_every_change_after_it() {
        let (_dir, store) = store();
        create(&*store, "configmaps", "a").await;
        let mut reflector = Reflector::new(store.clone(), ["configmaps", "secrets"]);
        let StoreUpdate::Listed(snapshot) = reflector.next().await else { panic!("the list comes first") };
        assert_eq!(snapshot.count("configmaps"), 1);
        assert!(reflector.ready().is_none());
        create(&*store, "secrets", "b").await;
        create(&*store, "configmaps", "c").await;
        let update = reflector.ready().unwrap();
        assert_eq!(names(update).unwrap(), ["b", "c"], "in the order of their revisions");
        create(&*store, "secrets", "d").await;
        assert_eq!(names(reflector.next().await).unwrap(), ["d"]);
    }

    #[tokio::test]
    async fn all_is_listed_again_where_changes_were_missed() {
        let (_dir, store) = store();
        let mut reflector = Reflector::new(store.clone(), ["configmaps"]);
        reflector.next().await;
        let revision = create(&*store, "configmaps", "a").await;
        store.compact(revision);
        let StoreUpdate::Listed(snapshot) = reflector.next().await else { panic!("a change was missed") };
        assert_eq!(snapshot.count("configmaps"), 1);
        create(&*store, "configmaps", "b").await;
        assert_eq!(names(reflector.next().await).unwrap(), ["b"]);
    }

    #[tokio::test]
    async fn resources_are_added_and_left_out_while_it_follows() {
        let (_dir, store) = store();
        let mut reflector = Reflector::new(store.clone(), ["configmaps"]);
        reflector.next().await;
        let snapshot = store.snapshot();
        create(&*store, "secrets", "a").await;
        assert!(reflector.ready().is_none());
        reflector.follow_after("secrets", &snapshot);
        assert_eq!(names(reflector.ready().unwrap()).unwrap(), ["a"]);
        reflector.retain(|_| false);
        create(&*store, "secrets", "b").await;
        assert!(reflector.ready().is_none());
        create(&*store, "configmaps", "c").await;
        assert_eq!(names(reflector.ready().unwrap()).unwrap(), ["c"]);
    }

    #[tokio::test]
    async fn all_is_listed_again_where_a_resource_is_added_too_late() {
        let (_dir, store) = store();
        let mut reflector = Reflector::new(store.clone(), ["configmaps"]);
        reflector.next().await;
        let snapshot = store.snapshot();
        store.compact(create(&*store, "secrets", "a").await);
        reflector.follow_after("secrets", &snapshot);
        reflector.follow_after("configmaps", &store.snapshot());
        assert!(matches!(reflector.next().await, StoreUpdate::Listed(_)));
    }

    #[tokio::test]
    async fn a_term_leaves_out_all_other_objects() {
        let (_dir, store) = store();
        let mut reflector = Reflector::of_term(store.clone(), "configmaps", (KEY_INDEX, "b"));
        reflector.next().await;
        create(&*store, "configmaps", "a").await;
        create(&*store, "configmaps", "b").await;
        assert_eq!(names(reflector.next().await).unwrap(), ["b"]);
    }
}
