//! Garbage collector: deletes objects whose owners are gone, and carries out foreground deletion and orphaning.
//!
//! It watches the metadata of every served kind ([`watches`]); [`graph`] decides, [`requests`] reads and writes. It
//! deletes nothing whose owner it has not asked the API for.

mod graph;
mod requests;
mod watches;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::graph::{CollectorAction, Graph, KindName, OwnedObject, OwnerState};
use super::{
    Context,
    served::{Served, ServedKinds},
};
use crate::engine::{Failure, Outcome, Tasks, WorkQueue, work};

const COMPONENT: &str = "garbage-collector";
const CONCURRENCY: usize = 64;
/// One kind that cannot be listed must not stop the collection of all others. Source: Kubernetes waits for 30 s.
const LISTING_LIMIT: Duration = Duration::from_secs(60);

struct Collector {
    client: Client,
    kinds: ServedKinds,
    graph: Mutex<Graph>,
    queue: Arc<WorkQueue<String>>,
    /// Kinds whose first listing is complete.
    listed: watch::Sender<BTreeSet<KindName>>,
    removed: Box<dyn Fn(&str) + Send + Sync>,
}

/// Starts the collector. `removed` is called with the namespace of every object that is deleted.
pub fn start(context: &Context, tasks: &Arc<Tasks>, removed: impl Fn(&str) + Send + Sync + 'static) {
    let collector = Arc::new(Collector {
        client: context.client.clone(),
        kinds: context.kinds.clone(),
        graph: Mutex::default(),
        queue: Arc::new(WorkQueue::new(COMPONENT)),
        listed: watch::Sender::new(BTreeSet::new()),
        removed: Box::new(removed),
    });
    tasks.measure(collector.queue.clone());
    let watches = collector.clone();
    tasks.spawn("metadata-watches", move |stop| watches.clone().watch_all(stop).boxed());
    tasks.spawn(COMPONENT, move |stop| {
        let (collector, queue) = (collector.clone(), collector.queue.clone());
        async move {
            // Until all kinds are listed, an owner may only seem to be absent, and a dependent may be missing.
            let listed = tokio::time::timeout(LISTING_LIMIT, collector.all_listed());
            match stop.run_until_cancelled(listed).await {
                None => return,
                Some(Ok(())) => {}
                // Absent owners are asked for all the same.
                Some(Err(_)) => {
                    tracing::warn!(kinds = ?collector.unlisted(), "collecting without kinds that cannot be listed")
                }
            }
            let reconcile = move |uid| {
                let collector = collector.clone();
                async move { collector.reconcile(uid).await }
            };
            work(COMPONENT, queue, CONCURRENCY, stop, reconcile).await;
        }
        .boxed()
    });
}

impl Collector {
    /// The kinds whose objects are collected. Events own nothing and are owned by nothing.
    fn collected(&self) -> Option<Vec<Served>> {
        let kinds = self.kinds.borrow().clone()?;
        Some(kinds.kinds.iter().filter(|kind| kind.resource.kind != "Event").cloned().collect())
    }

    fn served(&self, kind: &KindName) -> Option<Served> {
        self.kinds.borrow().as_ref()?.kinds.iter().find(|served| *served.name() == **kind).cloned()
    }

    /// The kinds whose first listing is not complete; `None` before the kinds are known.
    fn unlisted(&self) -> Option<Vec<String>> {
        let listed = self.listed.borrow();
        let names = self.collected()?.into_iter().map(|kind| kind.name());
        Some(names.filter(|name| !listed.contains(name.as_str())).collect())
    }

    /// Returns once every kind that is served now has been listed.
    async fn all_listed(&self) {
        let (mut kinds, mut listed) = (self.kinds.clone(), self.listed.subscribe());
        loop {
            listed.mark_unchanged();
            kinds.mark_unchanged();
            if self.unlisted().is_some_and(|kinds| kinds.is_empty()) {
                return;
            }
            tokio::select! {
                Ok(()) = listed.changed() => {}
                Ok(()) = kinds.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Takes over an object's state.
    fn observe(&self, object: OwnedObject) {
        let affected = self.graph.lock().set(object);
        affected.into_iter().for_each(|uid| self.queue.add(uid));
    }

    /// Drops an object that was deleted.
    fn forget(&self, uid: &str) {
        let namespace = self.graph.lock().get(uid).map(|object| object.key.namespace.clone());
        let affected = self.graph.lock().remove(uid);
        affected.into_iter().for_each(|uid| self.queue.add(uid));
        if let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
            (self.removed)(&namespace);
        }
    }

    async fn reconcile(&self, uid: String) -> Result<Outcome, Failure> {
        let Some(object) = self.graph.lock().get(&uid).cloned() else { return Ok(Outcome::Done) };
        let unseen = self.graph.lock().unseen_owners(&object);
        let mut states: Vec<(OwnerReference, OwnerState)> = Vec::with_capacity(unseen.len());
        for owner in unseen {
            let state = self.ask(&object, &owner).await?;
            states.push((owner, state));
        }
        let unseen = |owner: &OwnerReference| {
            states.iter().find(|(asked, _)| asked == owner).map_or(OwnerState::Solid, |(_, state)| *state)
        };
        let action = self.graph.lock().decide(&object, unseen);
        self.carry_out(&object, action).await?;
        Ok(Outcome::Done)
    }

    async fn carry_out(&self, object: &OwnedObject, action: CollectorAction) -> Result<(), Failure> {
        match action {
            CollectorAction::Nothing => Ok(()),
            CollectorAction::Delete { policy } => self.delete(object, policy).await,
            CollectorAction::Unblock => {
                let unblocked = |owner: &OwnerReference| OwnerReference {
                    block_owner_deletion: owner.block_owner_deletion.map(|_| false),
                    ..owner.clone()
                };
                self.set_owners(object, &object.owners.iter().map(unblocked).collect::<Vec<_>>()).await
            }
            CollectorAction::KeepOwners(owners) => self.set_owners(object, &owners).await,
            CollectorAction::DropFinalizer(finalizer) => self.drop_finalizer(object, finalizer).await,
            CollectorAction::Release(dependents) => {
                for uid in dependents {
                    let Some(dependent) = self.graph.lock().get(&uid).cloned() else { continue };
                    let kept: Vec<_> = dependent.owners.iter().filter(|o| o.uid != object.uid).cloned().collect();
                    self.set_owners(&dependent, &kept).await?;
                }
                // The owner is deleted once the graph shows its dependents released; each release enqueues it again.
                Ok(())
            }
        }
    }
}
