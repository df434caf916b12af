//! The workers of one node, for all who look for one.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use crate::pods::worker::Handle;

/// The workers of this node by pod uid. Cloning shares it.
#[derive(Clone, Default)]
pub struct Workers(Arc<RwLock<HashMap<String, Handle>>>);

impl Workers {
    /// Every worker there is.
    pub fn all(&self) -> Vec<Handle> {
        self.0.read().values().cloned().collect()
    }

    /// The worker of the pod of this name; of the newest, where an older one is still being torn down.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Handle> {
        let workers = self.0.read();
        let named = workers.values().filter(|handle| {
            let pod = handle.pod();
            pod.namespace == namespace && pod.name == name
        });
        named.max_by_key(|handle| handle.view().pod.metadata.creation_timestamp.clone()).cloned()
    }

    /// The worker of the pod `uid`.
    pub(super) fn get(&self, uid: &str) -> Option<Handle> {
        self.0.read().get(uid).cloned()
    }

    /// Adds the worker of a new pod.
    pub(super) fn insert(&self, uid: String, handle: Handle) {
        self.0.write().insert(uid, handle);
    }

    /// Drops all workers.
    pub(super) fn clear(&self) {
        self.0.write().clear();
    }

    /// Drops the worker of a pod that is gone.
    pub(super) fn remove(&self, uid: &str) {
        self.0.write().remove(uid);
    }
}
