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
    jiff::Timestamp,
};
use kube::Client;
use tokio::time::Instant;

use self::{
    identity::{Revision, has_claim_template, is_member, makers_of_claim, revision_of},
    plan::SetView,
    requests::StatefulSetRequests,
};
use super::{
    Context,
    claiming::Claimer,
    expectations::{self, Expectations},
    history::{self, History, revision_changed, template_of},
    pod_owners::{SelectingOwner, pod_changed, selects},
};
use crate::engine::{Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue};

const COMPONENT: &str = "statefulset-controller";
const KIND: &str = "StatefulSet";
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
        .on(&informers.pods, |this, change, queue| {
            pod_changed(&this.expectations, &this.sets, KIND, change, queue);
        })
        .on(&informers.revisions, |this, change, queue| revision_changed(&this.sets, KIND, change, queue))
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
    /// A pod may wait until a claim is gone, and owners may be missing.
    fn claim_changed(&self, change: &ObjectChange<PersistentVolumeClaim>, queue: &WorkQueue<Key>) {
        let matters = |claim: &Option<Arc<PersistentVolumeClaim>>| {
            claim
                .as_ref()
                .map(|claim| (claim.metadata.owner_references.clone(), claim.metadata.deletion_timestamp.clone()))
        };
        if matters(&change.old) != matters(&change.new) {
            sets_of_claim(&self.sets, &change.key).into_iter().for_each(|set| queue.add(set));
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(set) = self.sets.get(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = set.selector() else {
            return Err(Failure::Malformed { what: "selector", message: format!("of StatefulSet {key}") });
        };
        if !self.expectations.met(&key, Instant::now()) {
            return Ok(Outcome::After(expectations::TIMEOUT));
        }
        let requests = self.requests(&key, &set);
        let mut claimer = Claimer::new(&*set, requests.sets.clone());
        let revisions = claimer
            .claim(&self.revisions, &requests.history.revisions, |revision| selects(&selector, &revision.metadata))
            .await?;
        let selected = |pod: &Pod| selects(&selector, &pod.metadata) && is_member(&set, pod);
        let pods = claimer.claim(&self.pods, &requests.pods, selected).await?;
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let history = history::plan(&template, &revisions);
        let created = requests.history.current(&history, &template).await?;
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
        let mut done = requests.carry_out(&plan.steps, view.is_parallel()).await;
        let replaced = if done.is_ok() { plan.replaced } else { 0 };
        let (status, timer) = status::desired(&view, created.collisions, replaced);
        if !set.status.as_ref().is_some_and(|old| status::says_the_same(old, &status)) {
            let reported = requests.report(status).await;
            done = done.and(reported);
        }
        if done.is_ok() {
            done = requests.history.delete(&obsolete(&set, &history, [&current.name, &update.name], &pods)).await;
        }
        Outcome::of(done, timer.map(|delay| delay.max(Duration::from_millis(1))))
    }

    fn requests<'a>(&'a self, key: &'a Key, set: &'a StatefulSet) -> StatefulSetRequests<'a> {
        StatefulSetRequests {
            key,
            set,
            sets: Api::namespaced(self.client.clone(), &key.namespace),
            pods: Api::namespaced(self.client.clone(), &key.namespace),
            claims: Api::namespaced(self.client.clone(), &key.namespace),
            history: History { owner: set, revisions: Api::namespaced(self.client.clone(), &key.namespace) },
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

/// The sets that make a claim of this name. Its labels do not tell: what a selector asks for by expressions is not on
/// it.
fn sets_of_claim(sets: &Informer<StatefulSet>, claim: &Key) -> Vec<Key> {
    let makers = makers_of_claim(&claim.name).map(|(template, set)| (template, Key::new(&claim.namespace, set)));
    let found = makers.filter(|(template, set)| sets.get(set).is_some_and(|set| has_claim_template(&set, template)));
    found.map(|(_, set)| set).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::fixtures::list;

    #[tokio::test]
    async fn a_claim_is_known_by_its_name_whatever_the_selector() {
        let sets = Informer::new(None);
        let set = |name: &str, template: &str| -> StatefulSet {
            serde_json::from_value(json!({"metadata": {"namespace": "default", "name": name, "uid": name}, "spec": {
                "selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
                "volumeClaimTemplates": [{"metadata": {"name": template}}]}}))
            .expect("a valid set")
        };
        list(&sets, [set("web", "data"), set("my-web", "data"), set("db", "log")]).await;
        let of = |namespace: &str, claim: &str| -> Vec<String> {
            sets_of_claim(&sets, &Key::new(namespace, claim)).into_iter().map(|set| set.name).collect()
        };
        assert_eq!(
            (of("default", "data-web-0"), of("default", "data-my-web-12")),
            (vec!["web".into()], vec!["my-web".into()])
        );
        for (namespace, claim) in [("default", "data-db-0"), ("other", "data-web-0"), ("default", "data-web")] {
            assert_eq!(of(namespace, claim), [""; 0], "{namespace} {claim}");
        }
    }
}
