//! The one ledger of a node, with what each running container was given: shared by the workers, and kept on disk for
//! the next agent.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    Amounts, Requests,
    ledger::{Allocation, Held, Ledger},
};

/// The form on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct KeptAllocations {
    /// By uid of the pod.
    allocated: BTreeMap<String, Allocation>,
    /// By uid of the pod and id of the container.
    actuated: BTreeMap<String, BTreeMap<String, Amounts>>,
}

impl KeptAllocations {
    /// Raise it with every change of the JSON form.
    pub const VERSION: u32 = 1;
}

/// What is held, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Book {
    ledger: Ledger,
    actuated: BTreeMap<String, BTreeMap<String, Amounts>>,
}

impl Book {
    /// For the disk.
    pub fn to_keep(&self) -> Option<KeptAllocations> {
        Some(KeptAllocations { allocated: self.ledger.allocations(), actuated: self.actuated.clone() })
    }
}

/// What the pods of this node hold. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Allocations {
    book: watch::Sender<Book>,
    /// Counts the times that one pod's change gave or took something from others.
    changes: watch::Sender<u64>,
}

impl Allocations {
    /// For a node of this capacity, from what an earlier agent left.
    pub fn new(capacity: Requests, kept: Option<KeptAllocations>) -> Self {
        let KeptAllocations { allocated, actuated } = kept.unwrap_or_default();
        let book = Book { ledger: Ledger::new(capacity, allocated), actuated };
        Self { book: watch::Sender::new(book), changes: watch::Sender::new(0) }
    }

    /// Every state from now on, to be kept on disk.
    pub fn books(&self) -> watch::Receiver<Book> {
        self.book.subscribe()
    }

    /// Says when a pod may hold something else although it did not change itself.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes in a version of the Pod, and says what it holds then.
    pub fn put(&self, pod: &Arc<Pod>, now: Timestamp) -> Held {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut others = false;
        self.book.send_if_modified(|book| {
            let before = book.ledger.held(&uid).cloned();
            others = !book.ledger.put(&uid, pod, now).is_empty();
            others || before.as_ref() != book.ledger.held(&uid)
        });
        self.tell(others);
        self.held(&uid).unwrap_or_default()
    }

    /// What the pod holds.
    pub fn held(&self, uid: &str) -> Option<Held> {
        self.book.borrow().ledger.held(uid).cloned()
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

    /// The pod has ended: what it held is free.
    pub fn release(&self, uid: &str, now: Timestamp) {
        let mut others = false;
        self.book.send_if_modified(|book| {
            let was_held = book.ledger.held(uid).is_some() || book.actuated.remove(uid).is_some();
            others = !book.ledger.remove(uid, now).is_empty();
            was_held
        });
        self.tell(others);
    }

    /// The pods of this node are these: what others held before is forgotten.
    pub fn retain(&self, uids: &[String]) {
        self.book.send_modify(|book| {
            book.ledger.retain(uids);
            book.actuated.retain(|uid, _| uids.contains(uid));
        });
    }

    fn tell(&self, others: bool) {
        if others {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}
