//! Deletes what nobody owns any more, and carries out foreground deletion and orphaning.
//!
//! It watches the metadata of every served kind; [`graph`] decides, this file asks and does. It deletes nothing whose owner it
//! has not asked the API for.

mod graph;
mod requests;

use std::{collections::BTreeSet, sync::Arc};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client,
    core::{DynamicObject, PartialObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::graph::{Decision, Graph, Object, Owner};
use super::{
    Context,
    engine::{Failure, Outcome, Tasks, WorkQueue, work},
    informers::all,
    served::{Served, discover},
};

const COMPONENT: &str = "garbage-collector";
const CONCURRENCY: usize = 64;

struct Collector {
    client: Client,
    kinds: Vec<Served>,
    graph: Mutex<Graph>,
    queue: Arc<WorkQueue<String>>,
    /// How many kinds have been listed.
    listed: watch::Sender<usize>,
    removed: Box<dyn Fn(&str) + Send + Sync>,
}

/// Starts the collector. `removed` hears the namespace of every object that goes.
pub fn start(context: &Context, tasks: &Arc<Tasks>, removed: impl Fn(&str) + Send + Sync + 'static) {
    let (client, stop, watches) = (context.client.clone(), tasks.stop(), tasks.clone());
    tasks.spawn(COMPONENT, async move {
        let Some(mut kinds) = discover(&client, &stop).await else { return };
        kinds.retain(|kind| kind.resource.kind != "Event");
        let collector = Arc::new(Collector {
            client,
            kinds,
            graph: Mutex::default(),
            queue: Arc::default(),
            listed: watch::Sender::new(0),
            removed: Box::new(removed),
        });
        for kind in 0..collector.kinds.len() {
            watches.spawn("metadata-watch", collector.clone().follow(kind, stop.clone()));
        }
        let mut listed = collector.listed.subscribe();
        let all_listed = listed.wait_for(|count| *count == collector.kinds.len());
        tokio::select! {
            _ = stop.cancelled() => return,
            result = all_listed => if result.is_err() { return },
        }
        // Until here owners may have been unseen because their kind was not listed.
        let first = collector.graph.lock().with_owners_or_waiting();
        first.into_iter().for_each(|uid| collector.queue.add(uid));
        let queue = collector.queue.clone();
        let reconcile = move |uid| {
            let collector = collector.clone();
            async move { collector.reconcile(uid).await }
        };
        work(COMPONENT, queue, CONCURRENCY, stop, reconcile).await;
    });
}

impl Collector {
    /// Follows the metadata of one kind until `stop`.
    async fn follow(self: Arc<Self>, kind: usize, stop: CancellationToken) {
        let resource = &self.kinds[kind].resource;
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), resource);
        let mut events = std::pin::pin!(watcher(api, all()).default_backoff());
        let mut listing = BTreeSet::new();
        let mut first = true;
        loop {
            let event = tokio::select! {
                biased;
                _ = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Init)) => listing.clear(),
                Some(Ok(watcher::Event::InitApply(object))) => {
                    listing.insert(object.metadata.uid.clone().unwrap_or_default());
                    self.saw(Object::read(kind, object.metadata));
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    let gone = self.graph.lock().beyond(kind, &listing);
                    gone.iter().for_each(|uid| self.went(uid));
                    if std::mem::take(&mut first) {
                        self.listed.send_modify(|count| *count += 1);
                    }
                }
                Some(Ok(watcher::Event::Apply(object))) => self.saw(Object::read(kind, object.metadata)),
                Some(Ok(watcher::Event::Delete(object))) => {
                    self.went(object.metadata.uid.as_deref().unwrap_or_default())
                }
                Some(Err(error)) => tracing::debug!(%error, "watch interrupted"),
                None => return,
            }
        }
    }

    fn saw(&self, object: Object) {
        self.name(self.graph.lock().set(object));
    }

    fn went(&self, uid: &str) {
        let namespace = self.graph.lock().get(uid).map(|object| object.key.namespace.clone());
        self.name(self.graph.lock().remove(uid));
        if let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
            (self.removed)(&namespace);
        }
    }

    /// Names objects for work, once every kind has been listed; before that, the first pass will.
    fn name(&self, uids: Vec<String>) {
        if *self.listed.borrow() == self.kinds.len() {
            uids.into_iter().for_each(|uid| self.queue.add(uid));
        }
    }

    async fn reconcile(&self, uid: String) -> Result<Outcome, Failure> {
        let Some(object) = self.graph.lock().get(&uid).cloned() else { return Ok(Outcome::Done) };
        let unseen = self.graph.lock().unseen_owners(&object);
        let mut standings: Vec<(OwnerReference, Owner)> = Vec::with_capacity(unseen.len());
        for owner in unseen {
            let standing = self.ask(&object, &owner).await?;
            standings.push((owner, standing));
        }
        let unseen = |owner: &OwnerReference| {
            standings.iter().find(|(asked, _)| asked == owner).map_or(Owner::Solid, |(_, standing)| *standing)
        };
        let decision = self.graph.lock().decide(&object, unseen);
        self.carry_out(&object, decision).await?;
        Ok(Outcome::Done)
    }

    async fn carry_out(&self, object: &Object, decision: Decision) -> Result<(), Failure> {
        match decision {
            Decision::Nothing => Ok(()),
            Decision::Delete { policy } => self.delete(object, policy).await,
            Decision::KeepOwners(owners) => self.set_owners(object, &owners).await,
            Decision::DropFinalizer(finalizer) => self.drop_finalizer(object, finalizer).await,
            Decision::Release(dependents) => {
                for uid in dependents {
                    let Some(dependent) = self.graph.lock().get(&uid).cloned() else { continue };
                    let kept: Vec<_> = dependent.owners.iter().filter(|o| o.uid != object.uid).cloned().collect();
                    self.set_owners(&dependent, &kept).await?;
                }
                // The view must show that they are let go before their owner may go; each of them names it again.
                Ok(())
            }
        }
    }
}
