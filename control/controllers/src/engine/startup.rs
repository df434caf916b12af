//! How a controller starts: its handlers enqueue keys, and its workers start after all informers it reads have synced.

use std::{future::Future, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use kube::Resource;

use super::{
    informer::{Informer, ObjectChange, Synced},
    key::Key,
    queue::WorkQueue,
    tasks::Tasks,
    work::{Failure, Outcome, work},
};

/// A controller before its first key.
pub struct Startup<C> {
    name: &'static str,
    controller: Arc<C>,
    queue: Arc<WorkQueue<Key>>,
    reads: Vec<Synced>,
}

impl<C: Send + Sync + 'static> Startup<C> {
    /// `name` is what its tasks are called in the log.
    pub fn new(name: &'static str, controller: C) -> Self {
        Self { name, controller: Arc::new(controller), queue: Arc::new(WorkQueue::new(name)), reads: Vec::new() }
    }

    /// Calls `handler` for every change, to enqueue the keys that it concerns.
    pub fn on<K: Resource + Send + Sync + 'static>(
        self,
        informer: &Informer<K>,
        handler: impl Fn(&C, &ObjectChange<K>, &WorkQueue<Key>) + Send + Sync + 'static,
    ) -> Self {
        // Weak, since the controller holds informers: they would keep each other, and the API's store, for ever.
        let (controller, queue) = (Arc::downgrade(&self.controller), self.queue.clone());
        informer.on_change(move |change| {
            if let Some(controller) = controller.upgrade() {
                handler(&controller, change, &queue);
            }
        });
        self.reads(informer)
    }

    /// Enqueues every object that changes.
    pub fn on_each<K: Resource + Send + Sync + 'static>(self, informer: &Informer<K>) -> Self {
        self.on(informer, |_, change, queue| queue.add(change.key.clone()))
    }

    /// Waits for the first listing of what is read, but enqueues nothing.
    pub fn reads<K: Resource + Send + Sync + 'static>(mut self, informer: &Informer<K>) -> Self {
        self.reads.push(informer.synced());
        self
    }

    /// The queue of its keys.
    pub fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    /// Starts the controller as one of `tasks`; at most `concurrency` keys are worked on at a time.
    pub fn start<F, Fut>(self, tasks: &Tasks, concurrency: usize, reconcile: F)
    where
        F: Fn(Arc<C>, Key) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let Self { name, controller, queue, reads } = self;
        let reconcile = Arc::new(move |key| reconcile(controller.clone(), key).boxed());
        run(name, queue, reads, tasks, concurrency, reconcile);
    }
}

/// Boxed: compiled once, not once a controller.
type Reconcile = dyn Fn(Key) -> BoxFuture<'static, Result<Outcome, Failure>> + Send + Sync;

fn run(
    name: &'static str,
    queue: Arc<WorkQueue<Key>>,
    reads: Vec<Synced>,
    tasks: &Tasks,
    concurrency: usize,
    reconcile: Arc<Reconcile>,
) {
    tasks.measure(queue.clone());
    tasks.spawn(name, move |stop| {
        let (queue, reads, reconcile) = (queue.clone(), reads.clone(), reconcile.clone());
        async move {
            let synced = async {
                for informer in reads {
                    informer.wait().await;
                }
            };
            if stop.run_until_cancelled(synced).await.is_some() {
                work(name, queue, concurrency, stop, move |key| reconcile(key)).await;
            }
        }
        .boxed()
    });
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
    use kube::runtime::watcher::Event::{Init, InitApply, InitDone};
    use parking_lot::Mutex;
    use tokio::sync::Notify;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[derive(Default)]
    struct Seen {
        keys: Mutex<Vec<String>>,
        another: Notify,
    }

    async fn reconcile(seen: Arc<Seen>, key: Key) -> Result<Outcome, Failure> {
        seen.keys.lock().push(key.to_string());
        seen.another.notify_one();
        Ok(Outcome::Done)
    }

    #[tokio::test]
    async fn no_key_is_worked_on_before_all_that_is_read_was_listed() {
        let (watched, read) = (Informer::<ConfigMap>::new(None), Informer::<ConfigMap>::new(None));
        let startup = Startup::new("test", Seen::default()).on_each(&watched).reads(&read);
        let (seen, tasks) = (startup.controller.clone(), Tasks::default());
        startup.start(&tasks, 1, reconcile);
        let metadata = ObjectMeta { name: Some("a".into()), namespace: Some("default".into()), ..Default::default() };
        let listing = [Init, InitApply(ConfigMap { metadata, ..Default::default() }), InitDone];
        watched.run(stream::iter(listing.map(Ok)), CancellationToken::new()).await;
        tokio::task::yield_now().await;
        assert!(seen.keys.lock().is_empty());
        read.run(stream::iter([Init, InitDone].map(Ok)), CancellationToken::new()).await;
        seen.another.notified().await;
        assert_eq!(*seen.keys.lock(), ["default/a"]);
        tasks.shutdown().await;
    }
}
