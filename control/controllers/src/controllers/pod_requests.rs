//! Creates and deletes the pods of one set or Job: many at once, with a slow start so that a refusal is met by few.

use std::sync::Arc;

use fairlead_client::Api;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::expectations::Expectations;
use crate::engine::{EventType, Failure, Key, Recorder, is_gone_or_taken, is_namespace_terminating};

/// Most requests of one set at a time.
pub const IN_FLIGHT: usize = 64;
/// Most pods that one pass over a ReplicaSet or a Job creates or deletes: what became of them is seen, and reported,
/// before the next. Source: Kubernetes' `BurstReplicas` and `MaxPodCreateDeletePerSync`.
pub const BURST: usize = 500;

/// The requests of one pass over a set, and what they need.
pub struct PodRequests<'a> {
    /// Name of the set.
    pub key: &'a Key,
    /// Pods of the set's namespace.
    pub pods: Api<Pod>,
    /// Creations and deletions that the cache has not shown yet.
    pub expectations: &'a Expectations,
    /// Writes events about the set.
    pub recorder: &'a Recorder,
    /// Name of the controller.
    pub component: &'static str,
    /// What the events are about: the set.
    pub about: ObjectReference,
    /// Whether the set is still as this pass was decided on. One that was changed or deleted meanwhile is decided on
    /// anew.
    pub is_current: &'a (dyn Fn() -> bool + Send + Sync),
}

impl PodRequests<'_> {
    /// Creates `count` pods: 1, then 2, then 4… at a time, so that a set whose pods are refused asks few times. `pod`
    /// makes each of them just before its request. Returns how many were created, and what failed.
    pub async fn create(&self, count: usize, pod: impl Fn(usize) -> Pod + Send + Sync) -> (usize, Option<Failure>) {
        if count > 0 {
            self.expectations.expect(self.key, count, []);
        }
        let (mut done, mut batch, mut created, mut failure) = (0, 1, 0, None);
        while done < count && failure.is_none() && (self.is_current)() {
            let end = count.min(done + batch);
            let results: Vec<Result<bool, Failure>> =
                stream::iter(done..end).map(|at| self.create_one(pod(at))).buffer_unordered(IN_FLIGHT).collect().await;
            created += results.iter().filter(|result| matches!(result, Ok(true))).count();
            failure = several(results.into_iter().filter_map(Result::err).collect());
            done = end;
            batch = batch.saturating_mul(2).min(BURST);
        }
        self.expectations.unexpect_creations(self.key, count - done);
        (created, failure)
    }

    /// Whether the pod was created: in a namespace that is being deleted it is not, and nothing is to be retried.
    async fn create_one(&self, pod: Pod) -> Result<bool, Failure> {
        match self.pods.create(&PostParams::default(), &pod).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                self.record(EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(true)
            }
            Err(error) => {
                self.expectations.created(self.key);
                if is_namespace_terminating(&error) {
                    return Ok(false);
                }
                self.record(EventType::Warning, "FailedCreate", format!("Error creating: {}", refusal(&error)));
                Err(Failure::request("create a pod")(error))
            }
        }
    }

    /// Deletes `pods`, each only if it is still the one that was chosen. Returns those whose deletion has begun or that
    /// were gone already, and what failed.
    pub async fn delete(&self, pods: &[Arc<Pod>]) -> (Vec<Arc<Pod>>, Option<Failure>) {
        let (mut deleted, mut failure) = (Vec::new(), None);
        for batch in pods.chunks(BURST) {
            if failure.is_some() || !(self.is_current)() {
                break;
            }
            self.expectations.expect(self.key, 0, batch.iter().filter_map(|pod| pod.metadata.uid.clone()));
            let results: Vec<Result<Arc<Pod>, Failure>> = stream::iter(batch.to_vec())
                .map(|pod| self.delete_one(pod))
                .buffer_unordered(IN_FLIGHT)
                .collect()
                .await;
            let (begun, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
            deleted.extend(begun.into_iter().flatten());
            failure = several(failed.into_iter().filter_map(Result::err).collect());
        }
        (deleted, failure)
    }

    async fn delete_one(&self, pod: Arc<Pod>) -> Result<Arc<Pod>, Failure> {
        let (name, uid) = (pod.metadata.name.as_deref().unwrap_or_default(), pod.metadata.uid.clone());
        let preconditions = Preconditions { uid: uid.clone(), resource_version: None };
        match self.pods.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => {
                self.record(EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(pod)
            }
            Err(error) => {
                self.expectations.deleted(self.key, uid.as_deref().unwrap_or_default());
                if is_gone_or_taken(&error) {
                    return Ok(pod);
                }
                self.record(EventType::Warning, "FailedDelete", format!("Error deleting: {}", refusal(&error)));
                Err(Failure::request("delete a pod")(error))
            }
        }
    }

    fn record(&self, kind: EventType, reason: &'static str, message: String) {
        self.recorder.record(self.component, self.about.clone(), kind, reason, message);
    }
}

/// One failure for all of `failures`.
pub fn several(mut failures: Vec<Failure>) -> Option<Failure> {
    match failures.len() {
        0 => None,
        1 => failures.pop(),
        count => Some(Failure::Several(count, Box::new(failures.swap_remove(0)))),
    }
}

/// What the API said, without the client's wrapping.
pub fn refusal(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::controllers::fixtures::api;

    /// A set whose API answers its nth request with the code that `answer` gives for n.
    struct Set {
        key: Key,
        expectations: Expectations,
        recorder: Recorder,
        pods: Api<Pod>,
    }

    impl Set {
        fn new(answer: impl Fn(usize) -> u16 + Clone + Send + Sync + 'static) -> Self {
            let pods = Api::namespaced(api(answer), "default");
            let (expectations, recorder) = (Expectations::default(), Recorder::silent());
            Self { key: Key::new("default", "set"), expectations, recorder, pods }
        }

        fn requests<'a>(&'a self, is_current: &'a (dyn Fn() -> bool + Send + Sync)) -> PodRequests<'a> {
            PodRequests {
                key: &self.key,
                pods: self.pods.clone(),
                expectations: &self.expectations,
                recorder: &self.recorder,
                component: "test",
                about: ObjectReference::default(),
                is_current,
            }
        }

        fn expects_nothing(&self) -> bool {
            self.expectations.met(&self.key, Instant::now())
        }
    }

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        let pod = |at| serde_json::from_value(json!({"metadata": {"name": format!("p{at}"), "uid": format!("p{at}")}}));
        (0..count).map(|at| Arc::new(pod(at).expect("a valid pod"))).collect()
    }

    #[tokio::test]
    async fn each_pod_is_made_just_before_its_request() {
        let (made, answered, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let set = Set::new({
            let (made, answered, most) = (made.clone(), answered.clone(), most.clone());
            move |_| {
                most.fetch_max(made.load(SeqCst) - answered.fetch_add(1, SeqCst), SeqCst);
                201
            }
        });
        let pod = |_| {
            made.fetch_add(1, SeqCst);
            Pod::default()
        };
        let (created, failure) = set.requests(&|| true).create(2000, pod).await;
        assert!(created == 2000 && failure.is_none(), "{created} {failure:?}");
        assert!(most.load(SeqCst) <= IN_FLIGHT, "{most:?} pods waited for their requests");
    }

    #[tokio::test]
    async fn a_refusal_ends_the_creations_and_nothing_more_is_expected_of_them() {
        // The first is made, and of the next two one is refused.
        let set = Set::new(|nth| if nth == 2 { 403 } else { 201 });
        let (created, failure) = set.requests(&|| true).create(100, |_| Pod::default()).await;
        assert!(created == 2 && failure.is_some(), "{created} {failure:?}");
        assert!(!set.expects_nothing(), "the view shows neither of the two");
        set.expectations.created(&set.key);
        set.expectations.created(&set.key);
        assert!(set.expects_nothing());
        let (created, failure) = set.requests(&|| false).create(100, |_| Pod::default()).await;
        assert!(created == 0 && failure.is_none() && set.expects_nothing(), "the set was changed meanwhile");
    }

    #[tokio::test]
    async fn those_that_were_deleted_are_told_apart_from_those_that_were_not() {
        let set = Set::new(|nth| [200, 500, 404, 409][nth]);
        let (deleted, failure) = set.requests(&|| true).delete(&pods(4)).await;
        let names: Vec<_> = deleted.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(names, ["p0", "p2", "p3"], "gone already, or another pod of that name");
        assert!(failure.is_some());
        let (deleted, failure) = set.requests(&|| false).delete(&pods(4)).await;
        assert!(deleted.is_empty() && failure.is_none(), "the set was changed meanwhile");
    }
}
