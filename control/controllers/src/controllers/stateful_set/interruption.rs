//! A StatefulSet's controller that is killed at any of its requests, and started again, ends in the same state: its
//! passes are played over a cluster in memory, once undisturbed, and once for each request at which it dies.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Value, json};

use super::{
    fixtures::{healthy, now, revision, stateful_set, with},
    identity::{self, revision_of},
    plan::{SetStep, SetView, plan},
    retention,
};
use crate::objects::pod_state::is_terminating;

/// Passes after which a cluster must be at rest.
const PASSES: usize = 100;

#[derive(Clone, Default)]
struct World {
    pods: BTreeMap<String, Arc<Pod>>,
    claims: BTreeMap<String, PersistentVolumeClaim>,
    uids: usize,
    /// Requests until the controller dies.
    left: Option<usize>,
    requests: usize,
}

/// What counts: which pods run what, and which claims have which owners.
type Rest = (Vec<(String, String)>, Vec<(String, Vec<String>)>);

impl World {
    /// `None` where the controller died.
    fn request(&mut self) -> Option<()> {
        self.requests += 1;
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        Some(())
    }

    fn uid(&mut self) -> Option<String> {
        self.uids += 1;
        Some(format!("new-{}", self.uids))
    }

    fn create_claims(&mut self, set: &StatefulSet, ordinal: i32, names: &[String]) -> Option<()> {
        for mut claim in identity::claims(set, ordinal) {
            if !claim.metadata.name.as_ref().is_some_and(|name| names.contains(name)) {
                continue;
            }
            self.request()?;
            claim.metadata.owner_references = retention::owner_of_new(set).map(|owner| vec![owner]);
            let name = claim.metadata.name.clone().expect("a name");
            assert!(self.claims.insert(name, claim).is_none(), "a claim was made twice");
        }
        Some(())
    }

    fn take(&mut self, set: &StatefulSet, step: &SetStep) -> Option<()> {
        match step {
            SetStep::Create { ordinal, revision, claims } => {
                self.create_claims(set, *ordinal, claims)?;
                self.request()?;
                let mut pod = identity::pod(set, revision, *ordinal);
                pod.metadata.uid = self.uid();
                let pod = with(Arc::new(pod), json!({"status": {"phase": "Pending"}}));
                let name = pod.metadata.name.clone().expect("a name");
                assert!(self.pods.insert(name, pod).is_none(), "a pod was made twice");
            }
            SetStep::CreateClaims { ordinal, claims } => self.create_claims(set, *ordinal, claims)?,
            SetStep::AwaitDeletion { .. } => {}
            SetStep::Own { claim, owners, .. } => {
                self.request()?;
                let name = claim.metadata.name.as_ref().expect("a name");
                let claim = self.claims.get_mut(name).expect("is there");
                claim.metadata.owner_references = Some(owners.clone());
            }
            SetStep::Correct { pod, patch } => {
                self.request()?;
                self.pods.insert(pod.metadata.name.clone().expect("a name"), with(pod.clone(), patch.clone()));
            }
            SetStep::Delete(pod) => {
                self.request()?;
                let mut going = Pod::clone(pod);
                going.metadata.deletion_timestamp = Some(Time(now()));
                self.pods.insert(pod.metadata.name.clone().expect("a name"), Arc::new(going));
            }
        }
        Some(())
    }

    /// What kubelets and the garbage collector do.
    fn settle(&mut self) -> bool {
        let before = self.rest();
        let (pods, claims) = (self.pods.len(), self.claims.len());
        self.pods.retain(|_, pod| !is_terminating(pod));
        let ready = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let mut started = false;
        for pod in self.pods.values_mut().filter(|pod| pod.status.as_ref().is_some_and(|s| s.conditions.is_none())) {
            *pod = with(pod.clone(), ready.clone());
            started = true;
        }
        let uids: Vec<_> = self.pods.values().filter_map(|pod| pod.metadata.uid.clone()).collect();
        self.claims.retain(|_, claim| {
            let mut owners = claim.metadata.owner_references.iter().flatten().peekable();
            owners.peek().is_none() || owners.any(|owner| owner.kind == "StatefulSet" || uids.contains(&owner.uid))
        });
        started || before != self.rest() || (pods, claims) != (self.pods.len(), self.claims.len())
    }

    fn rest(&self) -> Rest {
        let pods = self.pods.iter().map(|(name, pod)| (name.clone(), revision_of(pod).to_owned())).collect();
        let claims = self.claims.iter().map(|(name, claim)| {
            let owners = claim.metadata.owner_references.iter().flatten().map(|owner| owner.kind.clone());
            (name.clone(), owners.collect())
        });
        (pods, claims.collect())
    }

    /// Plays passes until nothing changes any more.
    fn play(mut self, set: &StatefulSet) -> (Rest, usize) {
        let (current, update) = (revision("old"), revision("new"));
        for _ in 0..PASSES {
            let claims = self.claims.clone();
            let find = move |name: &str| claims.get(name).cloned().map(Arc::new);
            let pods: Vec<_> = self.pods.values().cloned().collect();
            let pods = SetView::by_ordinal(&pods);
            let view = SetView { set, current: &current, update: &update, pods, claims: &find, now: now() };
            let steps = plan(&view).steps;
            if steps.iter().try_for_each(|step| self.take(set, step)).is_none() {
                // Dead. The next one knows nothing of it.
                self.left = None;
            }
            if !self.settle() && steps.is_empty() {
                return (self.rest(), self.requests);
            }
        }
        panic!("it did not come to rest: {:?}", self.rest());
    }
}

fn set(replicas: i32, management: &str, policy: Value) -> StatefulSet {
    let mut set = stateful_set(
        replicas,
        json!({"spec": {"podManagementPolicy": management, "persistentVolumeClaimRetentionPolicy": policy}}),
    );
    let template = json!([{"metadata": {"name": "data"}, "spec": {}}, {"metadata": {"name": "log"}, "spec": {}}]);
    set.spec.as_mut().expect("a spec").volume_claim_templates = serde_json::from_value(template).expect("claims");
    set
}

#[test]
fn a_controller_that_dies_at_any_request_ends_in_the_same_state() {
    let policies = [
        json!({"whenScaled": "Retain", "whenDeleted": "Retain"}),
        json!({"whenScaled": "Delete", "whenDeleted": "Delete"}),
        json!({"whenScaled": "Delete", "whenDeleted": "Retain"}),
    ];
    for policy in policies {
        for management in ["OrderedReady", "Parallel"] {
            // From nothing to three; three of the old revision to three, one and none of the new one.
            for (before, after) in [(0, 3), (3, 3), (3, 1), (3, 0), (1, 3)] {
                let set = set(after, management, policy.clone());
                let mut world = World::default();
                for ordinal in 0..before {
                    let pod = healthy(&set, "old", ordinal);
                    world.pods.insert(pod.metadata.name.clone().expect("a name"), pod);
                    for claim in identity::claims(&set, ordinal) {
                        world.claims.insert(claim.metadata.name.clone().expect("a name"), claim);
                    }
                }
                let (expected, requests) = world.clone().play(&set);
                let pods: Vec<String> = (0..after).map(|ordinal| format!("web-{ordinal}")).collect();
                let found: Vec<&String> = expected.0.iter().map(|(name, _)| name).collect();
                assert_eq!(found, pods.iter().collect::<Vec<_>>(), "{policy} {management}");
                assert!(expected.0.iter().all(|(_, revision)| revision == "new"));
                for dies_at in 0..requests {
                    let world = World { left: Some(dies_at), ..world.clone() };
                    let (found, _) = world.play(&set);
                    assert_eq!(found, expected, "{policy} {management} {before} {after}, died at {dies_at}");
                }
            }
        }
    }
}
