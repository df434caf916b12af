//! Disruption controller: what PodDisruptionBudgets report, from which evictions are allowed or refused.
//!
//! [`budget`] computes a report, [`scale`] how many pods there should be; [`stale_target`] takes back what an eviction
//! that came to nothing left on pods. This file reads and writes. The API itself counts each eviction down
//! (`api/subresource/eviction`) until the next report.

mod budget;
mod scale;
mod stale_target;

use std::{sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, PodTemplateSpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
    jiff::Timestamp,
};
use kube::{
    Client, Resource,
    api::PostParams,
    core::{Selector, SelectorExt},
};

use self::{
    budget::Expectation,
    scale::{PodControllers, Scale, ScaleError},
};
use super::Context;
use crate::{
    engine::{
        EventType, Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue, api_code,
        reference,
    },
    objects::{
        informers::{pods_for, selectors_for},
        pod_state::counts_differently,
    },
};

/// As Kubernetes' events name it.
const COMPONENT: &str = "controllermanager";
const CONCURRENCY: usize = 8;
/// When a budget that could not be computed is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

struct Controller {
    client: Client,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    controllers: PodControllers,
    recorder: Recorder,
}

/// Starts the controllers.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        budgets: informers.disruption_budgets.clone(),
        pods: informers.pods.clone(),
        controllers: PodControllers::new(informers, context.kinds.clone(), context.client.clone()),
        recorder: context.recorder.clone(),
    };
    Startup::new("disruption", controller)
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
            self.budgets_of(pod).iter().for_each(|budget| queue.add(Key::of(&**budget)));
        }
        let labels = |pod: &Option<Arc<Pod>>| pod.as_ref().map(|pod| pod.metadata.labels.clone());
        if let Some(pod) = &change.new
            && labels(&change.old) != labels(&change.new)
        {
            self.warn_of_several(pod);
        }
    }

    fn warn_of_several(&self, pod: &Pod) {
        let [first, _, ..] = &self.budgets_of(pod)[..] else { return };
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let message = format!(
            "Pod \"{}\"/\"{}\" matches multiple PodDisruptionBudgets.  Chose \"{}\" arbitrarily.",
            name(&pod.metadata.namespace),
            name(&pod.metadata.name),
            name(&first.metadata.name)
        );
        self.recorder.record(COMPONENT, reference(pod), EventType::Warning, "MultiplePodDisruptionBudgets", message);
    }

    /// The budgets that select the pod.
    fn budgets_of(&self, pod: &Pod) -> Vec<Arc<PodDisruptionBudget>> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut budgets = selectors_for(&self.budgets, namespace, pod.metadata.labels.iter().flatten());
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        budgets.retain(|budget| {
            let selector = selector_of(budget).and_then(|selector| Selector::try_from(selector.clone()).ok());
            selector.is_some_and(|selector| selector.matches(&labels))
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
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
        let budgets = selectors_for(&self.budgets, &change.key.namespace, labels.into_iter().flatten());
        budgets.iter().for_each(|budget| queue.add(Key::of(&**budget)));
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(budget) = self.budgets.get(&key) else { return Ok(Outcome::Done) };
        let pods = self.selected(&key, &budget)?;
        if pods.is_empty() {
            self.record(&budget, EventType::Normal, "NoPods", "No matching pods found");
        }
        match self.expectation(&budget, &pods).await {
            Ok(expected) => self.report(&budget, &pods, expected).await,
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                self.record(&budget, EventType::Warning, "CalculateExpectedPodCountFailed", message);
                self.write(&budget, budget::failed(&budget, error.to_string(), Timestamp::now())).await?;
                match error {
                    ScaleError::Request(source) => {
                        Err(Failure::Request { operation: "read the scale of a controller", source })
                    }
                    // What is missing may come: kinds and objects of others have no watch here.
                    _ => Ok(Outcome::After(LOOK_AGAIN)),
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
        pods.retain(|pod| matcher.matches(&pod.metadata.labels.clone().unwrap_or_default()));
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
        self.write(budget, report.status).await?;
        Ok(report.recheck.map_or(Outcome::Done, |rest| Outcome::After(rest.max(Duration::from_secs(1)))))
    }

    /// Writes the status, unless an eviction or anyone else changed the budget since it was read.
    async fn write(&self, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), Failure> {
        if budget.status.as_ref().is_some_and(|old| budget::says_the_same(old, &status)) {
            return Ok(());
        }
        let updated = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        let key = Key::of(budget);
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.replace_status(&key.name, &PostParams::default(), &updated).await {
            Ok(_) => Ok(()),
            Err(error) if api_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(Failure::request("update the status of a disruption budget")(error)),
        }
    }

    fn record(&self, budget: &PodDisruptionBudget, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.recorder.record(COMPONENT, reference(budget), kind, reason, message);
    }
}

fn selector_of(budget: &PodDisruptionBudget) -> Option<&LabelSelector> {
    budget.spec.as_ref()?.selector.as_ref()
}
