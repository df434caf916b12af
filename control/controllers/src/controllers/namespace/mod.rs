//! Deletes everything in a terminating namespace, then removes the finalizer that keeps the namespace.
//!
//! Pods are deleted first, so that nothing they use is deleted before them (KEP-5080). What has finalizers is waited
//! for.

mod conditions;
mod content;
mod pace;

use std::{sync::Arc, time::Duration};

use fairlead_client::Api;
use futures::FutureExt;
use k8s_openapi::{api::core::v1::Namespace, jiff::Timestamp};
use kube::{Client, api::PostParams};
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use self::{conditions::Remaining, content::Content, pace::Passes};
use super::{
    Context,
    served::{Currency, Served, ServedKinds},
};
use crate::engine::{Deadline, Failure, Informer, Key, Outcome, Startup, Tasks, api_code};

const COMPONENT: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
/// When to look again, should no deletion enqueue the namespace before. Source: Kubernetes' estimate for pods with
/// grace.
const RECHECK_AFTER: Duration = Duration::from_secs(15);

struct Controller {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    kinds: ServedKinds,
    currency: Currency,
    passes: Arc<Mutex<Passes>>,
}

/// Starts the controller. The answer is to be called with the namespace of every object that is deleted.
pub fn start(context: &Context, tasks: &Tasks) -> impl Fn(&str) + Send + Sync + 'static {
    let namespaces = context.informers.namespaces.clone();
    let passes = Arc::new(Mutex::new(Passes::default()));
    let controller = Controller {
        client: context.client.clone(),
        namespaces: namespaces.clone(),
        kinds: context.kinds.clone(),
        currency: context.currency.clone(),
        passes: passes.clone(),
    };
    let startup = Startup::new(COMPONENT, controller).on(&namespaces, |this, change, queue| {
        // Later changes are mostly this controller's own reports.
        let was_ours = change.old.as_deref().is_some_and(is_ours);
        match change.new.as_deref() {
            Some(new) if is_ours(new) && !was_ours => queue.add(change.key.clone()),
            Some(_) => {}
            None => this.passes.lock().forget(&change.key),
        }
    });
    let queue = startup.queue().clone();
    let (kinds, terminating, waiting) = (context.kinds.clone(), namespaces.clone(), queue.clone());
    tasks.spawn("namespace-discovery", move |stop| {
        let (mut kinds, namespaces, queue) = (kinds.clone(), terminating.clone(), waiting.clone());
        // What waits for a group that could not be discovered waits no longer once it is.
        let enqueue = async move {
            while kinds.changed().await.is_ok() {
                let all = namespaces.all();
                for name in all.iter().filter(|one| is_ours(one)).filter_map(|one| one.metadata.name.as_deref()) {
                    queue.add(Key::cluster(name));
                }
            }
            std::future::pending().await
        };
        async move { stop.run_until_cancelled(enqueue).await.unwrap_or_default() }.boxed()
    });
    startup.start(tasks, 4, Controller::reconcile);
    move |namespace| {
        let key = Key::cluster(namespace);
        if namespaces.get(&key).as_deref().is_some_and(is_ours)
            && let Some(at) = passes.lock().removed(&key, Instant::now())
        {
            queue.add_at(key, Deadline::At(at));
        }
    }
}

/// Being deleted, and waiting for us.
fn is_ours(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
    namespace.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// The namespace without our finalizer.
fn finalized(namespace: &Namespace) -> Namespace {
    let mut finalized = namespace.clone();
    if let Some(finalizers) = finalized.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    finalized
}

/// After which pause the next pass follows one that left objects of so many kinds; `None` where nothing is left.
/// `removed` is the pause where objects went meanwhile: their events ask for no other pass, even if this one failed.
fn next_pass(left: Result<usize, Failure>, removed: Option<Duration>) -> Result<Option<Duration>, Failure> {
    match (left, removed) {
        (Ok(0), _) => Ok(None),
        (Ok(_), pause) => Ok(Some(pause.unwrap_or(RECHECK_AFTER).min(RECHECK_AFTER))),
        (Err(failure), None) => Err(failure),
        (Err(failure), Some(timer)) => Err(Failure::BeforeTimer { failure: Box::new(failure), timer }),
    }
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(namespace) = self.namespaces.get(&key).filter(|namespace| is_ours(namespace)) else {
            return Ok(Outcome::Done);
        };
        // A kind that is served only from now on refuses objects in a terminating namespace, so this snapshot is
        // complete.
        let found = if self.currency.reached().await { self.kinds.borrow().clone() } else { None };
        let Some(found) = found else { return Ok(Outcome::Done) };
        let kinds = found.current().filter(|kind| kind.namespaced);
        let (pods, others): (Vec<&Served>, Vec<&Served>) =
            kinds.partition(|kind| kind.resource.plural == "pods" && kind.resource.group.is_empty());
        self.passes.lock().begin(&key, Instant::now());
        let left = self.pass(&namespace, &pods, &others, found.stale.iter().cloned().collect()).await;
        let removed = self.passes.lock().end(&key, Instant::now());
        match next_pass(left, removed)? {
            None => self.finalize(&namespace).await,
            Some(pause) => Ok(Outcome::After(pause)),
        }
    }

    /// Deletes what can be deleted now, and reports. Returns how many kinds have something left.
    async fn pass(
        &self,
        namespace: &Namespace,
        pods: &[&Served],
        others: &[&Served],
        undiscovered: Vec<String>,
    ) -> Result<usize, Failure> {
        let mut failures = Vec::new();
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let content = Content { client: &self.client, namespace: name };
        let mut remaining = content.empty(pods, &mut failures).await;
        if remaining.is_empty() {
            remaining = content.empty(others, &mut failures).await;
        }
        // What the servers of these have of the namespace cannot be told.
        remaining.undiscovered = undiscovered;
        let reported = self.report(namespace, &remaining).await;
        failures.extend(reported.err());
        match failures.len() {
            0 => Ok(remaining.objects.len().saturating_add(remaining.undiscovered.len())),
            count => Err(Failure::Several(count, Box::new(failures.swap_remove(0)))),
        }
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<Outcome, Failure> {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let body = serde_json::to_vec(&finalized(namespace))
            .map_err(|error| Failure::Malformed { what: "Namespace", message: error.to_string() })?;
        let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| Failure::Malformed { what: "Namespace", message: error.to_string() })?;
        match self.client.request::<IgnoredAny>(request).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if api_code(&error) == Some(404) => Ok(Outcome::Done),
            Err(error) => Err(Failure::request("finalize a Namespace")(error)),
        }
    }

    async fn report(&self, namespace: &Namespace, remaining: &Remaining) -> Result<(), Failure> {
        let mut reported = namespace.clone();
        if !remaining.tell(reported.status.get_or_insert_default(), Timestamp::now()) {
            return Ok(());
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        match api.replace_status(name, &PostParams::default(), &reported).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(api_code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(Failure::request("report on a Namespace")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pass_that_fails_is_followed_by_the_one_that_removals_ask_for() {
        let pause = Duration::from_millis(1500);
        let failed = || Failure::Malformed { what: "kind", message: "it cannot be listed".into() };
        assert!(matches!(next_pass(Err(failed()), None), Err(Failure::Malformed { .. })));
        match next_pass(Err(failed()), Some(pause)) {
            Err(Failure::BeforeTimer { timer, .. }) => assert_eq!(timer, pause),
            other => panic!("{other:?}"),
        }
        assert_eq!(next_pass(Ok(2), Some(pause)).unwrap(), Some(pause));
        assert_eq!(next_pass(Ok(2), None).unwrap(), Some(RECHECK_AFTER));
        assert_eq!(next_pass(Ok(0), Some(pause)).unwrap(), None);
    }

    #[test]
    fn only_a_terminating_namespace_that_waits_for_us_is_emptied() {
        let read = |value| -> Namespace { serde_json::from_value(value).expect("a valid namespace") };
        let terminating = read(json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes", "other"]}}));
        assert!(is_ours(&terminating));
        assert!(!is_ours(&read(json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}}))));
        let finalized = finalized(&terminating);
        assert!(!is_ours(&finalized));
        assert_eq!(finalized.spec.and_then(|s| s.finalizers), Some(vec!["other".to_owned()]));
    }
}
