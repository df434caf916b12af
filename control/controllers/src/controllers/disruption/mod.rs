//! Disruption controller: what PodDisruptionBudgets report, from which evictions are allowed or refused.
//!
//! [`budget`] computes a report, [`scale`] how many pods there should be; [`stale_target`] takes back what an eviction
//! that came to nothing left on pods. This file reads and writes. The API itself counts each eviction down
//! (`api/subresource/eviction`) until the next report.

mod budget;
mod scale;
mod stale_target;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fairlead_client::Api;
use futures::FutureExt;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, PodTemplateSpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Client, Resource, api::PostParams, core::Selector};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::{
    budget::Expectation,
    scale::{PodControllers, Scale, ScaleError},
};
use super::{Context, pod_owners::selects, served::ServedKinds};
use crate::{
    engine::{
        EventType, Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue, reference,
        unless_gone,
    },
    objects::{
        candidates::{pods_for, selectors_for},
        pod_state::counts_differently,
    },
};

/// As Kubernetes' events name it.
const COMPONENT: &str = "controllermanager";
const CONCURRENCY: usize = 8;

struct Controller {
    client: Client,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    controllers: PodControllers,
    /// Budgets that wait until the kind of a pod's controller is served, with its scale.
    waiting: Waiting,
    recorder: Recorder,
}

type Waiting = Arc<Mutex<BTreeSet<Key>>>;

/// Starts the controllers.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let waiting = Waiting::default();
    let controller = Controller {
        client: context.client.clone(),
        budgets: informers.disruption_budgets.clone(),
        pods: informers.pods.clone(),
        controllers: PodControllers::new(informers, context.kinds.clone(), context.client.clone()),
        waiting: waiting.clone(),
        recorder: context.recorder.clone(),
    };
    let startup = Startup::new("disruption", controller);
    let (queue, kinds) = (startup.queue().clone(), context.kinds.clone());
    tasks.spawn("disruption-kinds", move |stop| {
        enqueue_at_new_kinds(waiting.clone(), queue.clone(), kinds.clone(), stop).boxed()
    });
    startup
        .on_each(&informers.disruption_budgets)
        .on(&informers.pods, Controller::pod_changed)
        .on(&informers.replica_sets, |this, change, queue| this.scaled(change, of_set, queue))
        .on(&informers.replication_controllers, |this, change, queue| this.scaled(change, of_set, queue))
        .on(&informers.deployments, |this, change, queue| {
            this.scaled(change, |deployment| deployment.spec.as_ref().map(|s| (s.replicas, &s.template)), queue);
        })
        .on(&informers.stateful_sets, |this, change, queue| {
            this.scaled(change, |set| set.spec.as_ref().map(|s| (s.replicas, &s.template)), queue);
        })
        .start(tasks, CONCURRENCY, Controller::reconcile);
    stale_target::start(context, tasks);
}

/// Enqueues the budgets that wait whenever other kinds are served.
async fn enqueue_at_new_kinds(
    waiting: Waiting,
    queue: Arc<WorkQueue<Key>>,
    mut kinds: ServedKinds,
    stop: CancellationToken,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(kinds.changed()).await {
        std::mem::take(&mut *waiting.lock()).into_iter().for_each(|budget| queue.add(budget));
    }
    // Without discovery there is nothing to wait for.
    stop.cancelled().await;
}

/// How many pods a controller asks for, and of which template.
type Asked<'k> = Option<(Option<i32>, &'k PodTemplateSpec)>;

fn of_set(set: &ReplicaSet) -> Asked<'_> {
    set.spec.as_ref().and_then(|s| Some((s.replicas, s.template.as_ref()?)))
}

impl Controller {
    fn pod_changed(&self, change: &ObjectChange<Pod>, queue: &WorkQueue<Key>) {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !counts_differently(old, new)
        {
            return;
        }
        for pod in [&change.old, &change.new].into_iter().flatten() {
            self.budgets_of(&pod.metadata).iter().for_each(|budget| queue.add(Key::of(&**budget)));
        }
        let labels = |pod: &Option<Arc<Pod>>| pod.as_ref().map(|pod| pod.metadata.labels.clone());
        if let Some(pod) = &change.new
            && labels(&change.old) != labels(&change.new)
        {
            self.warn_of_several(pod);
        }
    }

    fn warn_of_several(&self, pod: &Pod) {
        let [first, _, ..] = &self.budgets_of(&pod.metadata)[..] else { return };
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let message = format!(
            "Pod \"{}\"/\"{}\" matches multiple PodDisruptionBudgets.  Chose \"{}\" arbitrarily.",
            name(&pod.metadata.namespace),
            name(&pod.metadata.name),
            name(&first.metadata.name)
        );
        self.recorder.record(COMPONENT, reference(pod), EventType::Warning, "MultiplePodDisruptionBudgets", message);
    }

    /// The budgets that select pods with this metadata.
    fn budgets_of(&self, pod: &ObjectMeta) -> Vec<Arc<PodDisruptionBudget>> {
        let namespace = pod.namespace.as_deref().unwrap_or_default();
        let mut budgets = selectors_for(&self.budgets, namespace, pod.labels.iter().flatten());
        budgets.retain(|budget| {
            let selector = selector_of(budget).and_then(|selector| Selector::try_from(selector.clone()).ok());
            selector.is_some_and(|selector| selects(&selector, pod))
        });
        budgets
    }

    /// Enqueues the budgets of a controller's pods when it asks for more or fewer.
    fn scaled<K: Resource + Send + Sync + 'static>(
        &self,
        change: &ObjectChange<K>,
        asked: fn(&K) -> Asked<'_>,
        queue: &WorkQueue<Key>,
    ) {
        let replicas = |object: &Option<Arc<K>>| object.as_deref().and_then(asked).map(|(replicas, _)| replicas);
        let Some((_, template)) = asked(change.latest()) else { return };
        if replicas(&change.old) == replicas(&change.new) {
            return;
        }
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        let pod = ObjectMeta { namespace: Some(change.key.namespace.clone()), labels, ..Default::default() };
        self.budgets_of(&pod).iter().for_each(|budget| queue.add(Key::of(&**budget)));
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(budget) = self.budgets.get(&key) else { return Ok(Outcome::Done) };
        let pods = self.selected(&key, &budget)?;
        if pods.is_empty() {
            self.record(&budget, EventType::Normal, "NoPods", "No matching pods found");
        }
        // Before the kinds are read: those that come meanwhile enqueue it again.
        self.waiting.lock().insert(key.clone());
        let expected = self.expectation(&budget, &pods).await;
        if !matches!(expected, Err(ScaleError::NotServed { .. } | ScaleError::NoScale { .. })) {
            self.waiting.lock().remove(&key);
        }
        match expected {
            Ok(expected) => self.report(&budget, &pods, expected).await,
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                self.record(&budget, EventType::Warning, "CalculateExpectedPodCountFailed", message);
                self.write(&budget, budget::failed(&budget, error.to_string(), Timestamp::now())).await?;
                match error {
                    ScaleError::Request(source) => {
                        Err(Failure::Request { operation: "read the scale of a controller", source })
                    }
                    // It waits for the kind. Where the controller is gone its pods go with it, or another takes them:
                    // they change in either case.
                    _ => Ok(Outcome::Done),
                }
            }
        }
    }

    /// The pods that the budget selects. No selector selects none, an empty one all.
    fn selected(&self, key: &Key, budget: &PodDisruptionBudget) -> Result<Vec<Arc<Pod>>, Failure> {
        let Some(selector) = selector_of(budget) else { return Ok(Vec::new()) };
        let matcher = Selector::try_from(selector.clone())
            .map_err(|error| Failure::Malformed { what: "selector", message: error.to_string() })?;
        let mut pods = pods_for(&self.pods, &key.namespace, selector);
        pods.retain(|pod| selects(&matcher, &pod.metadata));
        Ok(pods)
    }

    async fn expectation(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<Expectation, ScaleError> {
        let spec = budget.spec.clone().unwrap_or_default();
        let mut scale = Scale::default();
        if budget::needs_scale(&spec) {
            scale = self.controllers.scale_of(pods).await?;
        }
        if !scale.unmanaged.is_empty() {
            let selector = spec.selector.clone().and_then(|selector| Selector::try_from(selector).ok());
            let message = format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the \
                 status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account \
                 for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                selector.map(|selector| selector.to_string()).unwrap_or_default()
            );
            self.record(budget, EventType::Warning, "UnmanagedPods", message);
        }
        Ok(budget::expectation(&spec, pods.len(), scale.pods))
    }

    async fn report(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Pod>],
        expected: Expectation,
    ) -> Result<Outcome, Failure> {
        let report = budget::report(budget, pods, expected, Timestamp::now());
        for pod in &report.not_deleted {
            let message = format!("Pod was expected by PDB {} to be deleted but it wasn't", Key::of(budget));
            self.recorder.record(COMPONENT, reference(&**pod), EventType::Warning, "NotDeleted", message);
        }
        let written = self.write(budget, report.status).await;
        // A moment later: at its time an entry still stands.
        Outcome::of(written, report.recheck.map(|rest| rest.saturating_add(Duration::from_millis(1))))
    }

    /// Writes the status, unless an eviction or anyone else changed the budget since it was read.
    async fn write(&self, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), Failure> {
        if budget.status.as_ref().is_some_and(|old| budget::says_the_same(old, &status)) {
            return Ok(());
        }
        let updated = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        let key = Key::of(budget);
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &key.namespace);
        let answer = api.replace_status(&key.name, &PostParams::default(), &updated).await;
        unless_gone(answer, "update the status of a disruption budget").map(drop)
    }

    fn record(&self, budget: &PodDisruptionBudget, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.recorder.record(COMPONENT, reference(budget), kind, reason, message);
    }
}

fn selector_of(budget: &PodDisruptionBudget) -> Option<&LabelSelector> {
    budget.spec.as_ref()?.selector.as_ref()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};
    use tokio::sync::watch;

    use super::{super::served::Discovered, *};
    use crate::{
        controllers::fixtures::{api, list},
        engine::Taken,
        objects::informers::Informers,
    };

    fn budget(name: &str, selector: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({"metadata": {"namespace": "default", "name": name, "uid": name},
            "spec": {"maxUnavailable": 1, "selector": selector}}))
        .expect("a valid budget")
    }

    async fn controller(budgets: Vec<PodDisruptionBudget>, pods: Vec<Pod>) -> Controller {
        let (client, informers) = (api(|_| 200), Informers::new());
        list(&informers.disruption_budgets, budgets).await;
        list(&informers.pods, pods).await;
        let kinds = watch::channel(Some(Arc::new(Discovered::default()))).1;
        Controller {
            client: client.clone(),
            controllers: PodControllers::new(&informers, kinds, client),
            budgets: informers.disruption_budgets,
            pods: informers.pods,
            waiting: Waiting::default(),
            recorder: Recorder::silent(),
        }
    }

    fn waiting(queue: &WorkQueue<Key>) -> Vec<String> {
        let next = || match queue.take(tokio::time::Instant::now()) {
            Taken::Key(key) => {
                queue.done(&key);
                Some(key.name)
            }
            Taken::Nothing(_) => None,
        };
        let mut names: Vec<String> = std::iter::from_fn(next).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn only_budgets_that_select_the_pods_before_or_after_are_enqueued() {
        let budgets = vec![
            budget("web", json!({"matchLabels": {"app": "web"}})),
            budget("front", json!({"matchLabels": {"app": "web", "tier": "front"}})),
            budget("back", json!({"matchLabels": {"app": "web", "tier": "back"}})),
            budget("expressions", json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]})),
        ];
        let (controller, queue) = (controller(budgets, Vec::new()).await, WorkQueue::new("test"));
        let key = Key::new("default", "x");
        let scaled = |replicas: i32| -> Arc<Deployment> {
            let template = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
            Arc::new(
                serde_json::from_value(json!({"metadata": {"namespace": "default", "name": "x"},
                "spec": {"replicas": replicas, "selector": {}, "template": template}}))
                .expect("a valid Deployment"),
            )
        };
        let change = ObjectChange { key: key.clone(), old: Some(scaled(1)), new: Some(scaled(2)) };
        controller.scaled(&change, |found| found.spec.as_ref().map(|s| (s.replicas, &s.template)), &queue);
        assert_eq!(waiting(&queue), ["front", "web"]);
        let pod = |labels: Value| -> Arc<Pod> {
            let pod = json!({"metadata": {"namespace": "default", "name": "x", "labels": labels}});
            Arc::new(serde_json::from_value(pod).expect("a valid pod"))
        };
        let (old, new) = (pod(json!({"app": "web", "tier": "back"})), pod(json!({"app": "db"})));
        controller.pod_changed(&ObjectChange { key, old: Some(old), new: Some(new) }, &queue);
        assert_eq!(waiting(&queue), ["back", "expressions", "web"]);
    }

    #[tokio::test]
    async fn a_budget_that_cannot_be_computed_waits_for_the_kind_and_not_for_a_clock() {
        let owner = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "w",
            "controller": true}]);
        let pod = json!({"metadata": {"namespace": "default", "name": "p", "uid": "p", "labels": {"app": "web"},
            "ownerReferences": owner}});
        let pod: Pod = serde_json::from_value(pod).expect("a valid pod");
        let controller =
            Arc::new(controller(vec![budget("web", json!({"matchLabels": {"app": "web"}}))], vec![pod]).await);
        let key = Key::new("default", "web");
        let outcome = controller.clone().reconcile(key.clone()).await.expect("the status is written");
        assert_eq!(outcome, Outcome::Done);
        let (discovered, kinds) = watch::channel(None);
        let (queue, stop) = (Arc::new(WorkQueue::new("test")), CancellationToken::new());
        let enqueuing = enqueue_at_new_kinds(controller.waiting.clone(), queue.clone(), kinds, stop.clone());
        let enqueuing = tokio::spawn(enqueuing);
        discovered.send_replace(Some(Arc::new(Discovered::default())));
        queue.changed().await;
        assert_eq!(waiting(&queue), ["web"]);
        stop.cancel();
        enqueuing.await.expect("it ends");
    }
}
