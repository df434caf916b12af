//! The one ledger of a node, with what each running container was given: shared by the workers, and kept on disk for
//! the next agent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Amounts,
    ledger::{Allocation, Capacity, Ledger, PodGrant},
};
use crate::{
    last_known::{LastKnown, LastKnownError},
    pods::admission::{AdmittingNode, Rejection},
    runtime::{Container, Role},
};

/// The form on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct KeptAllocations {
    /// By uid of the pod.
    allocated: BTreeMap<String, Allocation>,
    /// By uid of the pod and id of the container.
    actuated: BTreeMap<String, BTreeMap<String, Amounts>>,
    /// By uid of the pod: ids of containers that were stopped to run again with other resources.
    #[serde(default)]
    restarting: BTreeMap<String, BTreeSet<String>>,
}

impl KeptAllocations {
    /// Raise it with every change of the JSON form.
    pub const VERSION: u32 = 2;
    /// Version 1 knew no restarts, and is read as one without any.
    pub const OLDEST: u32 = 1;
}

/// What is held, at one moment.
#[derive(Clone, Debug, Default)]
struct Book {
    ledger: Ledger,
    actuated: BTreeMap<String, BTreeMap<String, Amounts>>,
    restarting: BTreeMap<String, BTreeSet<String>>,
}

impl Book {
    fn to_keep(&self) -> KeptAllocations {
        KeptAllocations {
            allocated: self.ledger.allocations(),
            actuated: self.actuated.clone(),
            restarting: self.restarting.clone(),
        }
    }
}

/// What the pods of this node hold. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Allocations {
    book: watch::Sender<Book>,
    /// Counts the times that one pod's change gave something to others.
    changes: watch::Sender<u64>,
    /// One write at a time, each of the newest state.
    file: Arc<Mutex<LastKnown<KeptAllocations>>>,
}

/// Why what is held is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be written. Remedy: see `source`; it is tried again.
    #[error("cannot keep what the pods were allocated")]
    Write {
        #[from]
        source: LastKnownError,
    },
    /// The thread that writes panicked: a bug.
    #[error("the write of what the pods were allocated ended abnormally")]
    Panicked { source: tokio::task::JoinError },
}

/// Between a change and its write: changes that come in this time share the write.
const DEBOUNCE: Duration = Duration::from_secs(2);

impl Allocations {
    /// For a node of this capacity, from what an earlier agent left in `file`.
    pub fn load(capacity: Capacity, file: LastKnown<KeptAllocations>) -> Self {
        let KeptAllocations { allocated, actuated, restarting } = file.load_or_warn().unwrap_or_default();
        let book = Book { ledger: Ledger::new(capacity, allocated), actuated, restarting };
        Self { book: watch::Sender::new(book), changes: watch::Sender::new(0), file: Arc::new(Mutex::new(file)) }
    }

    /// Writes down what is held. Durable when this returns.
    pub async fn store(&self) -> Result<(), StoreError> {
        let (book, file) = (self.book.clone(), self.file.clone());
        let write = move || {
            let file = file.lock();
            let newest = book.borrow().to_keep();
            file.store(&newest)
        };
        let written = tokio::task::spawn_blocking(write).await;
        Ok(written.map_err(|source| StoreError::Panicked { source })??)
    }

    /// Stores every change until `stop`, debounced; one that is pending then is still stored.
    pub async fn keep(self, stop: CancellationToken) {
        let mut changes = self.book.subscribe();
        changes.mark_changed();
        loop {
            tokio::select! {
                // Pending changes are stored before the stop is seen.
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(DEBOUNCE) => {}
            }
            changes.mark_unchanged();
            if let Err(error) = self.store().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "what this node knows is not kept on disk");
            }
        }
    }

    /// Says when a pod may hold something else although it did not change itself.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All pods of this node are these, with the containers `found` by uid: what others held before is forgotten.
    pub fn adopt(&self, pods: &[Arc<Pod>], found: &HashMap<String, Vec<Container>>, now: Timestamp) {
        let label = |uid: &str, wanted: &str| {
            let of_container = found.get(uid)?.iter().filter_map(|container| match &container.owner.role {
                Role::Container { name, resources, .. } if name == wanted => Some((container.owner.attempt, resources)),
                _ => None,
            });
            let (_, resources) = of_container.max_by_key(|(attempt, _)| *attempt)?;
            Amounts::from_label(resources)
        };
        let uids: BTreeSet<_> = pods.iter().filter_map(|pod| pod.metadata.uid.as_ref()).collect();
        let mut others = false;
        self.book.send_modify(|book| {
            others = !book.ledger.adopt(pods, label, now).is_empty();
            book.actuated.retain(|uid, _| uids.contains(uid));
            book.restarting.retain(|uid, _| uids.contains(uid));
        });
        self.tell(others);
    }

    /// Takes in a version of the Pod, and says what it holds then; or why the node does not admit it.
    pub fn put(
        &self,
        uid: &str,
        pod: &Arc<Pod>,
        node: AdmittingNode<'_>,
        now: Timestamp,
    ) -> Result<PodGrant, Rejection> {
        let put = self.change(uid, |ledger| ledger.put(uid, pod, node, now));
        put.map(|()| self.grant(uid).unwrap_or_default())
    }

    /// As [`Self::put`] for a pod that holds something; `None` for one that does not, or not any more.
    pub fn update(&self, uid: &str, pod: &Arc<Pod>, now: Timestamp) -> Option<PodGrant> {
        self.change(uid, |ledger| Ok::<_, Infallible>(ledger.update(uid, pod, now))).ok()?;
        self.grant(uid)
    }

    /// Changes what the pod holds, and tells the others that got something by that.
    fn change<E>(&self, uid: &str, change: impl FnOnce(&mut Ledger) -> Result<BTreeSet<String>, E>) -> Result<(), E> {
        let mut others = Ok(BTreeSet::new());
        self.book.send_if_modified(|book| {
            let before = book.ledger.grant(uid).cloned();
            others = change(&mut book.ledger);
            others.as_ref().is_ok_and(|others| !others.is_empty()) || before.as_ref() != book.ledger.grant(uid)
        });
        self.tell(!others?.is_empty());
        Ok(())
    }

    /// What the pod was granted.
    pub fn grant(&self, uid: &str) -> Option<PodGrant> {
        self.book.borrow().ledger.grant(uid).cloned()
    }

    /// What container `id` of the pod was last given, where it was given anything after its creation.
    pub fn actuated(&self, uid: &str, id: &str) -> Option<Amounts> {
        self.book.borrow().actuated.get(uid)?.get(id).copied()
    }

    /// Container `id` of the pod now has these.
    pub fn record_actuated(&self, uid: &str, id: &str, amounts: Amounts) {
        self.book.send_modify(|book| {
            book.actuated.entry(uid.to_owned()).or_default().insert(id.to_owned(), amounts);
        });
    }

    /// Whether container `id` of the pod was stopped to run again with other resources.
    pub fn is_restarting(&self, uid: &str, id: &str) -> bool {
        self.book.borrow().restarting.get(uid).is_some_and(|ids| ids.contains(id))
    }

    /// Container `id` of the pod is to be stopped, to run again with other resources.
    pub fn record_restart(&self, uid: &str, id: &str) {
        self.book.send_modify(|book| {
            book.restarting.entry(uid.to_owned()).or_default().insert(id.to_owned());
        });
    }

    /// These containers of the pod are no more.
    pub fn forget_containers(&self, uid: &str, ids: &[String]) {
        self.book.send_if_modified(|book| {
            let actuated = book.actuated.get_mut(uid);
            let known = actuated.map_or(0, |known| ids.iter().filter(|id| known.remove(*id).is_some()).count());
            let restarting = book.restarting.get_mut(uid);
            let stopped = restarting.map_or(0, |known| ids.iter().filter(|id| known.remove(*id)).count());
            known + stopped > 0
        });
    }

    /// The pod has ended: what it held is free.
    pub fn release(&self, uid: &str, now: Timestamp) {
        let mut others = false;
        self.book.send_if_modified(|book| {
            let was_granted = book.ledger.grant(uid).is_some();
            others = !book.ledger.remove(uid, now).is_empty();
            // Each, whatever there was of the others.
            let (actuated, restarting) = (book.actuated.remove(uid), book.restarting.remove(uid));
            was_granted || actuated.is_some() || restarting.is_some()
        });
        self.tell(others);
    }

    fn tell(&self, others: bool) {
        if others {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests;
