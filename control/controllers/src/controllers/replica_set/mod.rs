//! ReplicaSet and ReplicationController: as many pods of the template as asked for.
//!
//! [`plan`] decides which pods to claim, create and delete, [`status`] what to report; this file reads and writes. It
//! never looks at a Deployment. [`family`] is all that the two kinds differ in.

pub(super) mod delete_order;
mod family;
pub(super) mod plan;
mod requests;
mod status;

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{Client, core::Selector};
use tokio::time::Instant;

use self::{family::Family, plan::ReplicaSetPlan};
use super::{
    Context,
    expectations::{self, Expectations},
};
use crate::{
    engine::{Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue},
    objects::{
        informers::{on_node, orphans_for, owned_by, selectors_for},
        owners::controller_of,
        pod_state::{counts_differently, is_active, is_terminating},
    },
};

const CONCURRENCY: usize = 8;

struct Controller {
    family: Family,
    client: Client,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    expectations: Expectations,
    recorder: Recorder,
}

/// Starts the controllers of both kinds.
pub fn start(context: &Context, tasks: &Tasks) {
    start_one(Family::ReplicaSets, &context.informers.replica_sets, context, tasks);
    start_one(Family::ReplicationControllers, &context.informers.replication_controllers, context, tasks);
}

fn start_one(family: Family, sets: &Arc<Informer<ReplicaSet>>, context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        family,
        client: context.client.clone(),
        sets: sets.clone(),
        pods: informers.pods.clone(),
        expectations: Expectations::default(),
        recorder: context.recorder.clone(),
    };
    Startup::new(family.component(), controller)
        .on(&informers.pods, Controller::pod_changed)
        .on(sets, |this, change, queue| {
            if change.new.is_none() {
                this.expectations.forget(&change.key);
            }
            queue.add(change.key.clone());
        })
        .start(tasks, CONCURRENCY, Controller::reconcile);
}

impl Controller {
    /// Updates the expectations with what was seen, and enqueues the sets that count the pod.
    fn pod_changed(&self, change: &ObjectChange<Pod>, queue: &WorkQueue<Key>) {
        let pod = change.latest();
        self.expectations.observe(change, |pod| self.owner_of(pod));
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !counts_differently(old, new)
        {
            return;
        }
        for version in [&change.old, &change.new].into_iter().flatten() {
            if let Some(set) = self.owner_of(version) {
                queue.add(set);
            }
        }
        if !change.new.as_deref().is_none_or(is_terminating) && controller_of(&pod.metadata).is_none() {
            self.enqueue_adopters(pod, queue);
        }
    }

    fn owner_of(&self, pod: &Pod) -> Option<Key> {
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == self.family.kind())?;
        Some(Key::new(pod.metadata.namespace.clone().unwrap_or_default(), owner.name.clone()))
    }

    fn enqueue_adopters(&self, pod: &Pod, queue: &WorkQueue<Key>) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for set in selectors_for(&self.sets, namespace, pod.metadata.labels.iter().flatten()) {
            if selector(&set).is_some_and(|s| plan::selects(&s, pod)) {
                queue.add(Key::of(&*set));
            }
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(set) = self.sets.get(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = selector(&set) else {
            return Err(Failure::Malformed { what: "selector", message: format!("of {} {key}", self.family.kind()) });
        };
        let now = Timestamp::now();
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let (caught_up, candidates) = self.expectations.met_before(&key, Instant::now(), || {
            let mut candidates = self.pods.indexed(&owned_by(uid));
            candidates.extend(orphans_for(&self.pods, &key.namespace, set.spec.as_ref().map(|s| &s.selector)));
            candidates
        });
        let plan = plan::plan(&set, &selector, &candidates, caught_up, now, |pod| self.siblings_on_node(&set, pod));
        let failure = self.carry_out(&key, &set, &plan).await.err();
        let (status, timer) = status::desired(&set, &plan, failure.as_ref(), now);
        if set.status.as_ref() != Some(&status) {
            self.family.write_status(&self.client, &set, status).await?;
        }
        match (failure, timer) {
            (Some(failure), _) => Err(failure),
            (None, Some(delay)) => Ok(Outcome::After(delay)),
            (None, None) if !caught_up => Ok(Outcome::After(expectations::TIMEOUT)),
            (None, None) => Ok(Outcome::Done),
        }
    }

    async fn carry_out(&self, key: &Key, set: &ReplicaSet, plan: &ReplicaSetPlan) -> Result<(), Failure> {
        let requests = self.requests(key, set);
        requests.claim(plan).await?;
        if plan.create > 0 {
            requests.create(plan.create).await?;
        }
        if !plan.delete.is_empty() {
            requests.delete(&plan.delete).await?;
        }
        Ok(())
    }

    fn requests<'a>(&'a self, key: &'a Key, set: &'a ReplicaSet) -> requests::ReplicaSetRequests<'a> {
        requests::ReplicaSetRequests {
            key,
            set,
            pods: Api::namespaced(self.client.clone(), &key.namespace),
            family: self.family,
            client: &self.client,
            view: &self.sets,
            expectations: &self.expectations,
            recorder: &self.recorder,
        }
    }

    /// How many active pods of the set's whole family (all sets of its owner) share the pod's node: crowded nodes
    /// shrink first.
    fn siblings_on_node(&self, set: &ReplicaSet, node: &str) -> usize {
        let family: Vec<Arc<ReplicaSet>> = match controller_of(&set.metadata) {
            Some(owner) => self.sets.indexed(&owned_by(&owner.uid)),
            None => self.sets.get(&Key::of(set)).into_iter().collect(),
        };
        let uids: Vec<&str> = family.iter().filter_map(|s| s.metadata.uid.as_deref()).collect();
        let pods = self.pods.indexed(&on_node(node));
        pods.iter()
            .filter(|pod| is_active(pod))
            .filter(|pod| controller_of(&pod.metadata).is_some_and(|o| uids.contains(&o.uid.as_str())))
            .count()
    }
}

/// The set's selector; `None` if it is not one, or selects everything.
fn selector(set: &ReplicaSet) -> Option<Selector> {
    let selector: Selector = set.spec.as_ref()?.selector.clone().try_into().ok()?;
    (!selector.selects_all()).then_some(selector)
}
