//! Pods for which others were preempted, and the nodes they are to have once those are gone
//! (`status.nominatedNodeName`). Until then no pod that they outrank may take their place.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{cluster::Candidate, pod::Needs};
use crate::engine::Key;

/// Which pods without a node are nominated to which.
#[derive(Default)]
pub struct Nominated {
    pods: HashMap<String, NominatedPod>,
    /// uids by node.
    by_node: HashMap<String, BTreeSet<String>>,
}

struct NominatedPod {
    key: Key,
    node: String,
    needs: Arc<Needs>,
    /// Versions of the pod that are older do not know of it.
    since: u64,
}

impl Nominated {
    /// Nominates a pod to `node`, and to no other.
    pub fn insert(&mut self, uid: &str, key: Key, node: &str, needs: Arc<Needs>) {
        let since = self.pods.get(uid).map_or(0, |pod| pod.since);
        self.remove(uid);
        self.by_node.entry(node.to_owned()).or_default().insert(uid.to_owned());
        self.pods.insert(uid.to_owned(), NominatedPod { key, node: node.to_owned(), needs, since });
    }

    /// Forgets a pod, which has a node now, lost its nomination, or is gone.
    pub fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        if let Some(uids) = self.by_node.get_mut(&pod.node) {
            uids.remove(uid);
            if uids.is_empty() {
                self.by_node.remove(&pod.node);
            }
        }
    }

    /// The nomination stands in the pod's status from `revision` on.
    pub fn written_at(&mut self, uid: &str, revision: u64) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.since = revision;
        }
    }

    /// Whether a version of the pod is older than its nomination, and cannot say that it has none.
    pub fn is_newer_than(&self, uid: &str, revision: u64) -> bool {
        self.pods.get(uid).is_some_and(|pod| revision < pod.since)
    }

    /// The node that a pod is nominated to.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.pods.get(uid).map(|pod| pod.node.as_str())
    }

    /// The others nominated to `node` whose priority is that of `pod` or higher.
    pub fn outranking(&self, pod: Candidate, node: &str) -> Vec<&Needs> {
        let others = self.on(node).filter(|(uid, other)| *uid != pod.uid && other.needs.priority >= pod.needs.priority);
        others.map(|(_, other)| &*other.needs).collect()
    }

    /// uid and name of those nominated to `node` whose priority is below `priority`.
    pub fn outranked(&self, node: &str, priority: i32) -> Vec<(String, Key)> {
        let others = self.on(node).filter(|(_, other)| other.needs.priority < priority);
        others.map(|(uid, other)| (uid.to_owned(), other.key.clone())).collect()
    }

    fn on(&self, node: &str) -> impl Iterator<Item = (&str, &NominatedPod)> {
        let uids = self.by_node.get(node).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.as_str(), self.pods.get(uid)?)))
    }
}
