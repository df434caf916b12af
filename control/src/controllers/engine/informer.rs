//! The objects of one kind as the API last told them, kept by one watch and shared by all who read them.
//!
//! The watch task is the only writer. Handlers run in that task, after the store changed, and must only enqueue.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::{Stream, StreamExt};
use kube::{Resource, runtime::watcher};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Key;

/// One difference between two moments of an object. An object that was replaced by another of the same name (another uid) comes
/// as a deletion and a creation.
pub struct Change<K> {
    pub key: Key,
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object as it is now, or as it was before it went.
    pub fn latest(&self) -> &Arc<K> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has a before or an after")
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
/// Names under which an object is found beside its key, such as `owner:UID`.
type IndexBy<K> = fn(&K) -> Vec<String>;

/// Holds the objects of one kind.
pub struct Informer<K> {
    state: RwLock<State<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    index_by: Option<IndexBy<K>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    index: HashMap<String, BTreeSet<Key>>,
}

/// Whether an informer's first listing is complete.
pub struct Synced(watch::Receiver<bool>);

impl Synced {
    /// Returns once the first listing is complete.
    pub async fn wait(mut self) {
        // An error means that the informer itself is gone, and with it the process's interest in it.
        if self.0.wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl<K: Resource + Send + Sync + 'static> Informer<K> {
    pub fn new(index_by: Option<IndexBy<K>>) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State { objects: BTreeMap::new(), index: HashMap::new() }),
            handlers: RwLock::new(Vec::new()),
            index_by,
            synced: watch::Sender::new(false),
        })
    }

    /// Calls `handler` for every later change. Register before [`Self::run`], or the first listing is missed.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// All objects, ordered by key.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let from = Key::new(namespace, "");
        state.objects.range(from..).take_while(|(k, _)| k.namespace == namespace).map(|(_, o)| o.clone()).collect()
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

    /// Follows `events` until `stop`. A broken watch is resumed by the stream itself, with back-off.
    pub async fn run<S>(self: Arc<Self>, events: S, stop: CancellationToken)
    where
        S: Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    {
        let mut events = std::pin::pin!(events);
        let mut listed: Option<BTreeSet<Key>> = None;
        loop {
            let event = tokio::select! {
                biased;
                _ = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Init)) => listed = Some(BTreeSet::new()),
                Some(Ok(watcher::Event::InitApply(object))) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(Key::of(&object));
                    }
                    self.apply(object);
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    if let Some(listed) = listed.take() {
                        self.retain(&listed);
                    }
                    self.synced.send_replace(true);
                }
                Some(Ok(watcher::Event::Apply(object))) => self.apply(object),
                Some(Ok(watcher::Event::Delete(object))) => self.delete(&Key::of(&object)),
                Some(Err(error)) => tracing::debug!(%error, "watch interrupted"),
                None => return,
            }
        }
    }

    fn apply(&self, object: K) {
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
                self.tell(Change { key: key.clone(), old: Some(old), new: None });
                self.tell(Change { key, old: None, new: Some(new) });
            }
            // A resumed watch or a second listing tells what is known already.
            Some(old) if old.meta().resource_version == new.meta().resource_version => {}
            old => self.tell(Change { key, old, new: Some(new) }),
        }
    }

    fn delete(&self, key: &Key) {
        let old = {
            let mut state = self.state.write();
            let old = state.objects.remove(key);
            self.reindex(&mut state, key, old.as_deref(), None);
            old
        };
        if old.is_some() {
            self.tell(Change { key: key.clone(), old, new: None });
        }
    }

    fn retain(&self, listed: &BTreeSet<Key>) {
        let gone: Vec<Key> = self.state.read().objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.delete(&key);
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

    fn tell(&self, change: Change<K>) {
        for handler in self.handlers.read().iter() {
            handler(&change);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
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
