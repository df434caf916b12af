//! The objects of one kind as the API last sent them, kept by one watch and shared by all readers.
//!
//! The watch task is the only writer. Handlers run in that task, after the store changed, and must only enqueue.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, runtime::watcher};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Key,
    watch::{View, follow},
};

/// One difference between two moments of an object. An object that was replaced by another of the same name (another
/// uid) comes as a deletion and a creation.
pub struct ObjectChange<K> {
    /// Namespace and name.
    pub key: Key,
    /// The object before; `None` for a creation.
    pub old: Option<Arc<K>>,
    /// The object after; `None` for a deletion.
    pub new: Option<Arc<K>>,
}

impl<K> ObjectChange<K> {
    /// The object as it is now, or as it was before its deletion.
    pub fn latest(&self) -> &Arc<K> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has a before or an after")
    }
}

type EventHandler<K> = Box<dyn Fn(&ObjectChange<K>) + Send + Sync>;
/// Names under which an object is found beside its key, such as `owner:UID`.
type IndexBy<K> = fn(&K) -> Vec<String>;

/// Holds the objects of one kind.
pub struct Informer<K> {
    state: RwLock<State<K>>,
    /// Held for reading while a change is applied and its handlers are called, so that a handler that registers
    /// meanwhile is shown each object exactly once.
    handlers: RwLock<Vec<EventHandler<K>>>,
    index_by: Option<IndexBy<K>>,
    synced: watch::Sender<bool>,
    handler_panics: AtomicU64,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    index: HashMap<String, BTreeSet<Key>>,
}

/// Whether an informer's first listing is complete.
#[derive(Clone)]
pub struct Synced(watch::Receiver<bool>);

impl Synced {
    /// Whether it is complete now.
    pub fn is_synced(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the first listing is complete.
    pub async fn wait(mut self) {
        // An error means that the informer was dropped: it will never sync.
        if self.0.wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl<K: Resource + Send + Sync + 'static> Informer<K> {
    /// An empty informer, whose objects are also found under the names that `index_by` gives them.
    pub fn new(index_by: Option<IndexBy<K>>) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State { objects: BTreeMap::new(), index: HashMap::new() }),
            handlers: RwLock::new(Vec::new()),
            index_by,
            synced: watch::Sender::new(false),
            handler_panics: AtomicU64::new(0),
        })
    }

    /// Calls `handler` for every object that is there, as if it had just been created, and for every later change.
    pub fn on_change(&self, handler: impl Fn(&ObjectChange<K>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.write();
        let known: Vec<_> = self.state.read().objects.iter().map(|(key, new)| (key.clone(), new.clone())).collect();
        for (key, new) in known {
            handler(&ObjectChange { key, old: None, new: Some(new) });
        }
        handlers.push(Box::new(handler));
    }

    /// The object called `key`.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// Whether nobody has replaced `object`, begun to delete it, or changed its spec: what was decided on it holds.
    pub fn is_current(&self, object: &K) -> bool {
        let of = |meta: &ObjectMeta| (meta.uid.clone(), meta.deletion_timestamp.clone(), meta.generation);
        self.get(&Key::of(object)).is_some_and(|now| of(now.meta()) == of(object.meta()))
    }

    /// All objects, ordered by key.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let from = state.objects.range(Key::new(namespace, "")..);
        from.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    /// Objects that the index function named `value`, ordered by key.
    pub fn indexed(&self, value: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let Some(keys) = state.index.get(value) else { return Vec::new() };
        keys.iter().filter_map(|k| state.objects.get(k).cloned()).collect()
    }

    /// How many objects the index function named `value`.
    pub fn count(&self, value: &str) -> usize {
        self.state.read().index.get(value).map_or(0, BTreeSet::len)
    }

    /// To wait for the first listing by.
    pub fn synced(&self) -> Synced {
        Synced(self.synced.subscribe())
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a handler panicked.
    pub fn handler_panics(&self) -> u64 {
        self.handler_panics.load(Relaxed)
    }

    /// Follows `events` until `stop`, or until the stream ends.
    pub async fn run<S>(self: Arc<Self>, events: S, stop: CancellationToken)
    where
        S: Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    {
        follow(&*self, events, &stop).await;
    }

    fn remove(&self, key: &Key) {
        let handlers = self.handlers.read();
        let old = {
            let mut state = self.state.write();
            let old = state.objects.remove(key);
            self.reindex(&mut state, key, old.as_deref(), None);
            old
        };
        if old.is_some() {
            self.notify(&handlers, ObjectChange { key: key.clone(), old, new: None });
        }
    }

    fn reindex(&self, state: &mut State<K>, key: &Key, old: Option<&K>, new: Option<&K>) {
        let Some(index_by) = self.index_by else { return };
        let before = old.map(index_by).unwrap_or_default();
        let after = new.map(index_by).unwrap_or_default();
        if before == after {
            return;
        }
        for value in before {
            if let Some(keys) = state.index.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    state.index.remove(&value);
                }
            }
        }
        for value in after {
            state.index.entry(value).or_default().insert(key.clone());
        }
    }

    /// A handler that panics must not end the watch, nor keep the change from the others.
    fn notify(&self, handlers: &[EventHandler<K>], change: ObjectChange<K>) {
        for handler in handlers {
            if catch_unwind(AssertUnwindSafe(|| handler(&change))).is_err() {
                self.handler_panics.fetch_add(1, Relaxed);
                tracing::error!(object = %change.key, "the handler of a change panicked");
            }
        }
    }
}

impl<K: Resource + Send + Sync + 'static> View<K> for Informer<K> {
    fn apply(&self, object: K) {
        let handlers = self.handlers.read();
        let key = Key::of(&object);
        let new = Arc::new(object);
        let old = {
            let mut state = self.state.write();
            let old = state.objects.insert(key.clone(), new.clone());
            self.reindex(&mut state, &key, old.as_deref(), Some(&new));
            old
        };
        match old {
            Some(old) if old.meta().uid != new.meta().uid => {
                self.notify(&handlers, ObjectChange { key: key.clone(), old: Some(old), new: None });
                self.notify(&handlers, ObjectChange { key, old: None, new: Some(new) });
            }
            // A resumed watch or a second listing repeats what is known.
            Some(old) if old.meta().resource_version == new.meta().resource_version => {}
            old => self.notify(&handlers, ObjectChange { key, old, new: Some(new) }),
        }
    }

    fn delete(&self, object: &K) {
        self.remove(&Key::of(object));
    }

    fn listed(&self, uids: &HashSet<String>) {
        let is_gone = |object: &K| object.meta().uid.as_ref().is_none_or(|uid| !uids.contains(uid));
        let gone: Vec<Key> =
            self.state.read().objects.iter().filter(|(_, o)| is_gone(o)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.remove(key));
        self.synced.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::Time};
    use parking_lot::Mutex;

    use super::*;

    fn map(name: &str, uid: &str, revision: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("default".into()),
            uid: Some(uid.into()),
            resource_version: Some(revision.into()),
            ..Default::default()
        };
        ConfigMap { metadata, ..Default::default() }
    }

    async fn follow(events: Vec<watcher::Event<ConfigMap>>) -> (Arc<Informer<ConfigMap>>, Vec<(String, bool, bool)>) {
        let informer =
            Informer::new(Some(|m: &ConfigMap| vec![format!("uid:{}", m.metadata.uid.as_deref().unwrap_or(""))]));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        informer.on_change(move |c| record.lock().push((c.key.name.clone(), c.old.is_some(), c.new.is_some())));
        informer.clone().run(stream::iter(events.into_iter().map(Ok)), CancellationToken::new()).await;
        let seen = seen.lock().clone();
        (informer, seen)
    }

    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    #[tokio::test]
    async fn an_object_is_current_until_its_spec_changes_or_it_is_deleted_or_replaced() {
        let of = |uid: &str, generation: i64, revision: &str| {
            let mut map = map("a", uid, revision);
            map.metadata.generation = Some(generation);
            map
        };
        let decided_on = of("1", 1, "1");
        let mut going = of("1", 1, "4");
        going.metadata.deletion_timestamp = Some(Time("2026-01-01T00:00:00Z".parse().expect("a valid time")));
        for (now, is_current) in
            [(of("1", 1, "2"), true), (of("1", 2, "3"), false), (going, false), (of("2", 1, "5"), false)]
        {
            let (informer, _) = follow(vec![Init, InitApply(decided_on.clone()), InitDone, Apply(now.clone())]).await;
            assert_eq!(informer.is_current(&decided_on), is_current, "{now:?}");
        }
        let (informer, _) = follow(vec![Init, InitDone]).await;
        assert!(!informer.is_current(&decided_on));
    }

    #[tokio::test]
    async fn a_second_listing_tells_only_what_differs() {
        let (informer, seen) = follow(vec![
            Init,
            InitApply(map("a", "1", "1")),
            InitApply(map("b", "2", "2")),
            InitDone,
            Init,
            InitApply(map("b", "2", "2")),
            InitApply(map("c", "3", "3")),
            InitDone,
        ])
        .await;
        let expected = [("a", false, true), ("b", false, true), ("c", false, true), ("a", true, false)];
        assert_eq!(seen, expected.map(|(n, o, w)| (n.to_owned(), o, w)));
        assert!(informer.indexed("uid:1").is_empty());
        assert_eq!(informer.indexed("uid:3").len(), 1);
        informer.synced().wait().await;
    }

    #[tokio::test]
    async fn a_handler_that_registers_late_is_shown_what_is_there() {
        let (informer, _) = follow(vec![Init, InitApply(map("a", "1", "1")), InitDone]).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        informer.on_change(move |c| record.lock().push((c.key.name.clone(), c.old.is_some(), c.new.is_some())));
        assert_eq!(*seen.lock(), [("a".to_owned(), false, true)]);
    }

    #[tokio::test]
    async fn a_handler_that_panics_ends_neither_the_watch_nor_the_other_handlers() {
        let informer = Informer::new(None);
        informer.on_change(|change: &ObjectChange<ConfigMap>| assert_ne!(change.key.name, "a"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        informer.on_change(move |change| record.lock().push(change.key.name.clone()));
        let events = [Init, InitApply(map("a", "1", "1")), InitApply(map("b", "2", "2")), InitDone];
        informer.clone().run(stream::iter(events.map(Ok)), CancellationToken::new()).await;
        assert_eq!(*seen.lock(), ["a", "b"]);
        assert_eq!(informer.handler_panics(), 1);
    }

    #[tokio::test]
    async fn a_recreated_object_is_a_deletion_and_a_creation() {
        let (_, seen) = follow(vec![
            Init,
            InitApply(map("a", "1", "1")),
            InitDone,
            Apply(map("a", "9", "5")),
            Delete(map("a", "9", "6")),
        ])
        .await;
        let expected = [("a", false, true), ("a", true, false), ("a", false, true), ("a", true, false)];
        assert_eq!(seen, expected.map(|(n, o, w)| (n.to_owned(), o, w)));
    }
}
