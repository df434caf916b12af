//! The pods of a namespace as the API has them, listed once for all claims there that wait to be released.
//!
//! A list answers for a claim if it was begun after the claim was seen to be deleted, and after the last change of a
//! pod that may have released it: pods that are bound later do not start with a claim that is being deleted. A list is
//! kept while claims of its namespace wait.
//!
//! Source: `LazyLivePodList` of Kubernetes.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::{
    engine::{Failure, Key},
    objects::volume_references::claim_names,
};

/// What lists of pods are asked for. Moments are counted: each claim that is asked about and each list has its own.
#[derive(Default)]
pub struct LivePods {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    now: u64,
    namespaces: HashMap<String, Waiting>,
}

/// One namespace.
#[derive(Default)]
struct Waiting {
    /// By name, the claims that wait.
    claims: HashMap<String, WaitingSince>,
    /// Locked while it is made, so that all who need one share it.
    list: Arc<tokio::sync::Mutex<Option<List>>>,
}

/// Which claim waits, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingSince {
    uid: String,
    at: u64,
}

struct List {
    begun: u64,
    /// By the name of a claim, the pods that name it.
    pods: Arc<HashMap<String, Vec<Pod>>>,
}

impl Inner {
    fn tick(&mut self) -> u64 {
        self.now = self.now.saturating_add(1);
        self.now
    }
}

impl LivePods {
    /// Notes that a claim that is being deleted is to be looked at: only lists that begin from now on tell of it.
    pub fn note_waiting(&self, claim: &Key, uid: &str) -> WaitingSince {
        let mut inner = self.inner.lock();
        let asked = WaitingSince { uid: uid.to_owned(), at: inner.tick() };
        let waiting = inner.namespaces.entry(claim.namespace.clone()).or_default();
        waiting.claims.insert(claim.name.clone(), asked.clone());
        asked
    }

    /// When this claim was asked about last; now, if it was not.
    pub fn waiting_since(&self, claim: &Key, uid: &str) -> WaitingSince {
        let inner = self.inner.lock();
        let standing = inner.namespaces.get(&claim.namespace).and_then(|waiting| waiting.claims.get(&claim.name));
        let standing = standing.filter(|asked| asked.uid == uid).cloned();
        drop(inner);
        standing.unwrap_or_else(|| self.note_waiting(claim, uid))
    }

    /// The pods that name a claim, in a list that was begun after it was asked about; `list` makes one.
    pub async fn using(
        &self,
        claim: &Key,
        asked: &WaitingSince,
        list: impl AsyncFnOnce() -> Result<Vec<Pod>, Failure>,
    ) -> Result<Vec<Pod>, Failure> {
        let shared = self.inner.lock().namespaces.entry(claim.namespace.clone()).or_default().list.clone();
        let mut standing = shared.lock().await;
        let known = standing.as_ref().filter(|list| list.begun > asked.at).map(|list| list.pods.clone());
        let pods = match known {
            Some(pods) => pods,
            None => {
                let begun = self.inner.lock().tick();
                let pods = Arc::new(by_claim(list().await?));
                *standing = Some(List { begun, pods: pods.clone() });
                pods
            }
        };
        drop(standing);
        Ok(pods.get(&claim.name).cloned().unwrap_or_default())
    }

    /// Forgets a claim that was looked at, unless it was asked about again; with the last one goes the list.
    pub fn forget(&self, claim: &Key, asked: &WaitingSince) {
        self.remove(claim, |standing| standing == asked);
    }

    /// Forgets a claim that is gone.
    pub fn forget_gone(&self, claim: &Key) {
        self.remove(claim, |_| true);
    }

    fn remove(&self, claim: &Key, is_meant: impl FnOnce(&WaitingSince) -> bool) {
        let mut inner = self.inner.lock();
        let Some(waiting) = inner.namespaces.get_mut(&claim.namespace) else { return };
        if waiting.claims.get(&claim.name).is_some_and(is_meant) {
            waiting.claims.remove(&claim.name);
        }
        if waiting.claims.is_empty() {
            inner.namespaces.remove(&claim.namespace);
        }
    }
}

fn by_claim(pods: Vec<Pod>) -> HashMap<String, Vec<Pod>> {
    let mut all: HashMap<String, Vec<Pod>> = HashMap::new();
    for pod in pods {
        for claim in claim_names(&pod) {
            all.entry(claim).or_default().push(pod.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    #[derive(Default)]
    struct Lists(AtomicUsize);

    impl Lists {
        async fn of(&self, live: &LivePods, claim: &Key, asked: &WaitingSince, pods: &[Pod]) -> Vec<Pod> {
            let list = async || {
                self.0.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(pods.to_vec())
            };
            live.using(claim, asked, list).await.unwrap()
        }

        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn pod() -> Pod {
        let volumes = json!([{"name": "a", "persistentVolumeClaim": {"claimName": "c1"}}]);
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": volumes}}))
            .unwrap()
    }

    #[tokio::test]
    async fn all_claims_of_a_namespace_that_wait_share_one_list() {
        let (live, lists) = (LivePods::default(), Lists::default());
        let claims: Vec<Key> = (0..100).map(|at| Key::new("ns", format!("c{at}"))).collect();
        let asked: Vec<WaitingSince> = claims.iter().map(|claim| live.note_waiting(claim, "u")).collect();
        let pods = [pod()];
        let all = claims.iter().zip(&asked).map(|(claim, asked)| lists.of(&live, claim, asked, &pods));
        let all = futures::future::join_all(all).await;
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>()[..3], [0, 1, 0]);
        assert_eq!(lists.count(), 1);
        for (claim, asked) in claims.iter().zip(&asked) {
            live.forget(claim, asked);
        }
        assert!(live.inner.lock().namespaces.is_empty(), "the list goes with the last claim");
    }

    #[tokio::test]
    async fn a_list_does_not_tell_of_claims_that_were_asked_about_after_it_had_begun() {
        let (live, lists) = (LivePods::default(), Lists::default());
        let (first, second) = (Key::new("ns", "c1"), Key::new("ns", "c2"));
        let asked = live.note_waiting(&first, "u");
        assert_eq!(lists.of(&live, &first, &asked, &[pod()]).await.len(), 1);
        let later = live.waiting_since(&second, "u");
        lists.of(&live, &second, &later, &[]).await;
        assert_eq!(lists.count(), 2);
        // The pod that was in the first list goes, and its claim is asked about again.
        let again = live.note_waiting(&first, "u");
        live.forget(&first, &asked);
        assert_eq!(live.waiting_since(&first, "u"), again, "it still waits");
        assert!(lists.of(&live, &first, &again, &[]).await.is_empty());
        assert_eq!(lists.count(), 3);
        assert_ne!(live.waiting_since(&first, "another of its name"), again);
        live.forget_gone(&first);
        live.forget_gone(&second);
        assert!(live.inner.lock().namespaces.is_empty());
    }
}
