//! StatefulSet: pods with stable names and volumes of their own, started, replaced and deleted in the order of their
//! ordinals.
//!
//! - [`identity`]: names, labels and volumes of pods; [`retention`]: who owns their claims
//! - [`plan`]: what one pass does; [`rollout`]: the next pod that is replaced; [`status`]: what is reported
//! - [`requests`]: what is sent
//!
//! The templates that a set had are ControllerRevisions ([`super::history`]); pods bear the name of theirs. *Current*
//! is the revision that a rollout comes from, *update* the one that it goes to; when it is complete they are the same.
//! Source: `pkg/controller/statefulset` of Kubernetes.

#[cfg(test)]
mod fixtures;
mod identity;
#[cfg(test)]
mod interruption;
mod plan;
mod requests;
mod retention;
mod rollout;
mod status;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Client, Resource,
    core::{Selector, SelectorExt},
};
use tokio::time::Instant;

use self::{
    identity::{Revision, is_member, revision_of},
    plan::SetView,
    requests::StatefulSetRequests,
};
use super::{
    Context,
    claiming::Claimer,
    expectations::{self, Expectations},
    history::{self, template_of},
};
use crate::{
    engine::{Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue},
    objects::{
        informers::{orphans_for, owned_by, selectors_for},
        owners::controller_of,
        pod_state::counts_differently,
    },
};

const COMPONENT: &str = "statefulset-controller";
const CONCURRENCY: usize = 8;

struct Controller {
    client: Client,
    sets: Arc<Informer<StatefulSet>>,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    revisions: Arc<Informer<ControllerRevision>>,
    expectations: Expectations,
    recorder: Recorder,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        sets: informers.stateful_sets.clone(),
        pods: informers.pods.clone(),
        claims: informers.claims.clone(),
        revisions: informers.revisions.clone(),
        expectations: Expectations::default(),
        recorder: context.recorder.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.pods, Controller::pod_changed)
        .on(&informers.revisions, |this, change, queue| {
            // One that a set's own pass made, or somebody with its name: the next change of the set reads it.
            if change.old.is_none() && controller_of(&change.latest().metadata).is_some() {
                return;
            }
            for version in [&change.old, &change.new].into_iter().flatten() {
                this.enqueue_owner(&version.metadata, queue);
            }
        })
        .on(&informers.claims, Controller::claim_changed)
        .on(&informers.stateful_sets, |this, change, queue| {
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
        self.expectations.observe(change, |pod| owner_of(&pod.metadata));
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !counts_differently(old, new)
        {
            return;
        }
        for version in [&change.old, &change.new].into_iter().flatten() {
            self.enqueue_owner(&version.metadata, queue);
        }
    }

    /// Enqueues the set that owns the object, or those that may adopt it.
    fn enqueue_owner(&self, meta: &ObjectMeta, queue: &WorkQueue<Key>) {
        if let Some(set) = owner_of(meta) {
            return queue.add(set);
        }
        if controller_of(meta).is_none() && meta.deletion_timestamp.is_none() {
            self.enqueue_selecting(meta, queue);
        }
    }

    fn enqueue_selecting(&self, meta: &ObjectMeta, queue: &WorkQueue<Key>) {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        for set in selectors_for(&self.sets, namespace, meta.labels.iter().flatten()) {
            if selector(&set).is_some_and(|selector| selects(&selector, meta)) {
                queue.add(Key::of(&*set));
            }
        }
    }

    /// Claims bear the labels of the set's selector. A pod may wait until one is gone, and owners may be missing.
    fn claim_changed(&self, change: &ObjectChange<PersistentVolumeClaim>, queue: &WorkQueue<Key>) {
        let matters = |claim: &Option<Arc<PersistentVolumeClaim>>| {
            claim
                .as_ref()
                .map(|claim| (claim.metadata.owner_references.clone(), claim.metadata.deletion_timestamp.clone()))
        };
        if matters(&change.old) != matters(&change.new) {
            self.enqueue_selecting(&change.latest().metadata, queue);
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(set) = self.sets.get(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = selector(&set) else {
            return Err(Failure::Malformed { what: "selector", message: format!("of StatefulSet {key}") });
        };
        if !self.expectations.met(&key, Instant::now()) {
            return Ok(Outcome::After(expectations::TIMEOUT));
        }
        let requests = self.requests(&key, &set);
        let (revisions, pods) = self.claim(&set, &selector, &requests).await?;
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let history = history::plan(&template, &revisions);
        let created = requests.update_revision(&history).await?;
        let update = Revision { name: created.revision.metadata.name.clone().unwrap_or_default(), template };
        let current = current_revision(&set, &revisions).unwrap_or_else(|| update.clone());
        let claims = |name: &str| self.claims.get(&Key::new(&key.namespace, name));
        let view = SetView {
            set: &set,
            current: &current,
            update: &update,
            pods: SetView::by_ordinal(&pods),
            claims: &claims,
            now: Timestamp::now(),
        };
        let plan = plan::plan(&view);
        if let Some((pod, why)) = &plan.waits_for {
            tracing::debug!(pod, why, "the set waits");
        }
        let failure = requests.carry_out(&plan.steps, view.is_parallel()).await.err();
        let replaced = if failure.is_none() { plan.replaced } else { 0 };
        let (status, timer) = status::desired(&view, created.collisions, replaced);
        if !set.status.as_ref().is_some_and(|old| status::says_the_same(old, &status)) {
            requests.report(status).await?;
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        requests.forget(&obsolete(&set, &history, [&current.name, &update.name], &pods)).await?;
        Ok(timer.map_or(Outcome::Done, |delay| Outcome::After(delay.max(Duration::from_millis(1)))))
    }

    /// The set's revisions and pods, after adopting and releasing.
    async fn claim(
        &self,
        set: &StatefulSet,
        selector: &Selector,
        requests: &StatefulSetRequests<'_>,
    ) -> Result<(Vec<Arc<ControllerRevision>>, Vec<Arc<Pod>>), Failure> {
        let uid = owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let asked = set.spec.as_ref().map(|s| &s.selector);
        let mut claimer = Claimer::new(set, requests.sets.clone());
        let mut revisions = self.revisions.indexed(&uid);
        revisions.extend(orphans_for(&self.revisions, namespace, asked));
        let revisions =
            claimer.claim(&requests.revisions, revisions, |revision| selects(selector, revision.meta())).await?;
        let mut pods = self.pods.indexed(&uid);
        pods.extend(orphans_for(&self.pods, namespace, asked));
        let selected = |pod: &Pod| selects(selector, pod.meta()) && is_member(set, pod);
        let pods = claimer.claim(&requests.pods, pods, selected).await?;
        Ok((revisions, pods))
    }

    fn requests<'a>(&'a self, key: &'a Key, set: &'a StatefulSet) -> StatefulSetRequests<'a> {
        StatefulSetRequests {
            key,
            set,
            sets: Api::namespaced(self.client.clone(), &key.namespace),
            pods: Api::namespaced(self.client.clone(), &key.namespace),
            claims: Api::namespaced(self.client.clone(), &key.namespace),
            revisions: Api::namespaced(self.client.clone(), &key.namespace),
            view: &self.sets,
            expectations: &self.expectations,
            recorder: &self.recorder,
        }
    }
}

/// The revision that a rollout comes from; `None` where the history does not have it.
fn current_revision(set: &StatefulSet, revisions: &[Arc<ControllerRevision>]) -> Option<Revision> {
    let name = set.status.as_ref()?.current_revision.clone()?;
    let revision = revisions.iter().find(|revision| revision.metadata.name.as_ref() == Some(&name))?;
    Some(Revision { template: template_of(revision)?, name })
}

/// The revisions beyond the limit of the history that nothing needs.
fn obsolete(
    set: &StatefulSet,
    history: &history::HistoryPlan,
    needed: [&String; 2],
    pods: &[Arc<Pod>],
) -> Vec<Arc<ControllerRevision>> {
    let mut live: BTreeSet<&str> = pods.iter().map(|pod| revision_of(pod)).collect();
    live.extend(needed.map(String::as_str));
    let is_live = |revision: &ControllerRevision| live.contains(revision.metadata.name.as_deref().unwrap_or_default());
    let mut all: Vec<_> = history.old.iter().chain(&history.duplicates).cloned().collect();
    history::sort(&mut all);
    let historic = all.iter().filter(|revision| !is_live(revision)).count();
    let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    let excess = usize::try_from(limit).map_or(0, |limit| historic.saturating_sub(limit));
    history::oldest(&all, excess, is_live)
}

fn owner_of(meta: &ObjectMeta) -> Option<Key> {
    let owner = controller_of(meta).filter(|owner| owner.kind == "StatefulSet")?;
    Some(Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// The set's selector; `None` if it is not one, or selects everything.
fn selector(set: &StatefulSet) -> Option<Selector> {
    let selector: Selector = set.spec.as_ref()?.selector.clone().try_into().ok()?;
    (!selector.selects_all()).then_some(selector)
}

fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().is_some_and(|labels| selector.matches(labels))
}
