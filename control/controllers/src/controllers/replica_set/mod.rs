//! ReplicaSet and ReplicationController: as many pods of the template as asked for.
//!
//! [`plan`] decides which pods to claim, create and delete, [`status`] what to report; this file reads and writes. It
//! never looks at a Deployment. [`family`] is all that the two kinds differ in.

pub(super) mod delete_order;
mod family;
mod plan;
mod requests;
mod status;

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    jiff::Timestamp,
};
use kube::Client;
use tokio::time::Instant;

use self::family::Family;
use super::{
    Context,
    expectations::{self, Expectations},
    pod_owners::{SelectingOwner, pod_changed},
};
use crate::{
    engine::{Failure, Informer, Key, Outcome, Recorder, Startup, Tasks},
    objects::{
        candidates::orphans_for,
        informer_index::{on_node, owned_by},
        owners::controller_of,
        pod_state::is_active,
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
        .on(&informers.pods, |this, change, queue| {
            pod_changed(&this.expectations, &this.sets, this.family.kind(), change, queue);
        })
        .on(sets, |this, change, queue| {
            if change.new.is_none() {
                this.expectations.forget(&change.key);
            }
            queue.add(change.key.clone());
        })
        .start(tasks, CONCURRENCY, Controller::reconcile);
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(set) = self.sets.get(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = set.selector() else {
            return Err(Failure::Malformed { what: "selector", message: format!("of {} {key}", self.family.kind()) });
        };
        let now = Timestamp::now();
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let (caught_up, candidates) = self.expectations.met_before(&key, Instant::now(), || {
            let mut candidates = self.pods.indexed(&owned_by(uid));
            candidates.extend(orphans_for(&self.pods, &key.namespace, set.label_selector()));
            candidates
        });
        let plan = plan::plan(&set, &selector, &candidates, caught_up, now, |pod| self.siblings_on_node(&set, pod));
        let failure = self.requests(&key, &set).carry_out(&plan).await.err();
        let (status, timer) = status::desired(&set, &plan, failure.as_ref(), now);
        let mut result = Ok(());
        if set.status.as_ref() != Some(&status) {
            result = self.family.write_status(&self.client, &set, status).await;
        }
        let stale = (!caught_up).then_some(expectations::TIMEOUT);
        Outcome::of(failure.map_or(result, Err), timer.into_iter().chain(stale).min())
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
