//! The requests of one pass over a StatefulSet: in order, or many at once with a slow start for sets whose pods do not
//! wait for each other.

use fairlead_client::{Api, Object};
use futures::{StreamExt, stream};
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetStatus},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::{
    super::{
        expectations::Expectations,
        history::{History, HistoryOwner},
        pod_requests::{IN_FLIGHT, refusal, several},
    },
    COMPONENT,
    identity::{self, Revision},
    plan::SetStep,
    retention,
};
use crate::engine::{
    EventType, Failure, Informer, Key, Recorder, api_code, is_gone_or_taken, is_namespace_terminating, reference,
    unless_gone,
};

impl HistoryOwner for StatefulSet {
    /// Source: `ControllerRevisionHashLabel`.
    const REVISION_LABEL: &'static str = "controller.kubernetes.io/hash";

    fn collision_count(&self) -> i32 {
        self.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
    }
}

/// The requests of one pass, and what they need.
pub struct StatefulSetRequests<'a> {
    /// Name of the set.
    pub key: &'a Key,
    /// The set as this pass began with it.
    pub set: &'a StatefulSet,
    /// StatefulSets of its namespace.
    pub sets: Api<StatefulSet>,
    /// Pods of its namespace.
    pub pods: Api<Pod>,
    /// Claims of its namespace.
    pub claims: Api<PersistentVolumeClaim>,
    /// Its revisions.
    pub history: History<'a, StatefulSet>,
    /// The shared cache of sets.
    pub view: &'a Informer<StatefulSet>,
    /// Creations and deletions that the cache has not shown yet.
    pub expectations: &'a Expectations,
    /// Writes events about the set.
    pub recorder: &'a Recorder,
}

impl StatefulSetRequests<'_> {
    /// Takes `steps` one after the other, or in batches of 1, 2, 4… at once.
    pub async fn carry_out(&self, steps: &[SetStep<'_>], at_once: bool) -> Result<(), Failure> {
        let creations = steps.iter().filter(|step| matches!(step, SetStep::Create { .. })).count();
        let deletions = steps.iter().filter_map(|step| match step {
            SetStep::Delete(pod) => pod.metadata.uid.clone(),
            _ => None,
        });
        self.expectations.expect(self.key, creations, deletions);
        let (mut rest, mut batch) = (steps, 1_usize);
        while !rest.is_empty() && self.view.is_current(self.set) {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            rest = later;
            let failures: Vec<Failure> = stream::iter(0..now.len())
                .map(|at| self.take(&now[at]))
                .buffer_unordered(IN_FLIGHT)
                .filter_map(async |result| result.err())
                .collect()
                .await;
            if let Some(failure) = several(failures) {
                self.unexpect(rest);
                return Err(failure);
            }
            batch = if at_once { batch.saturating_mul(2) } else { 1 };
        }
        self.unexpect(rest);
        Ok(())
    }

    /// Takes back the expectations of steps that were not taken.
    fn unexpect(&self, steps: &[SetStep<'_>]) {
        for step in steps {
            match step {
                SetStep::Create { .. } => self.expectations.created(self.key),
                SetStep::Delete(pod) => {
                    self.expectations.deleted(self.key, pod.metadata.uid.as_deref().unwrap_or_default());
                }
                _ => {}
            }
        }
    }

    async fn take(&self, step: &SetStep<'_>) -> Result<(), Failure> {
        match step {
            SetStep::Create { ordinal, revision, claims } => {
                let created = self.create(*ordinal, revision, claims).await;
                if created.is_err() {
                    self.expectations.created(self.key);
                }
                created
            }
            SetStep::CreateClaims { ordinal, claims } => self.create_claims(*ordinal, claims).await,
            SetStep::AwaitDeletion { pod, claim } => {
                let why = format!("pvc {claim} is being deleted");
                self.failed("Create", "FailedCreate", pod, &why);
                Err(Failure::Malformed { what: "PersistentVolumeClaim", message: why })
            }
            SetStep::Own { claim, owners, conflict } => self.own(claim, owners, *conflict).await,
            SetStep::Correct { pod, patch } => self.correct(pod, patch).await,
            SetStep::Delete(pod) => self.delete(pod).await,
        }
    }

    async fn create(&self, ordinal: i32, revision: &Revision, claims: &[String]) -> Result<(), Failure> {
        self.create_claims(ordinal, claims).await?;
        let pod = identity::pod(self.set, revision, ordinal);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.pods.create(&PostParams::default(), &pod).await {
            Ok(_) => {
                self.succeeded("Create", "SuccessfulCreate", name);
                Ok(())
            }
            Err(error) if is_namespace_terminating(&error) => {
                self.expectations.created(self.key);
                Ok(())
            }
            Err(error) => {
                // One that the view does not show yet, or one of somebody else.
                if api_code(&error) != Some(409) {
                    self.failed("Create", "FailedCreate", name, &refusal(&error));
                }
                Err(Failure::request("create a pod")(error))
            }
        }
    }

    /// Makes those of the pod's claims that are among `names`.
    async fn create_claims(&self, ordinal: i32, names: &[String]) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        let pod = &identity::pod_name(self.set, ordinal);
        for mut claim in identity::claims(self.set, ordinal) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            if !names.contains(&name) {
                continue;
            }
            let about = format!("Claim {name} Pod {pod} in StatefulSet {}", self.key.name);
            claim.metadata.owner_references = retention::owner_of_new(self.set).map(|owner| vec![owner]);
            match self.claims.create(&PostParams::default(), &claim).await {
                Ok(_) => self.record(EventType::Normal, "SuccessfulCreate", format!("Create {about} success")),
                Err(error) if api_code(&error) == Some(409) => {}
                Err(error) => {
                    let why = refusal(&error);
                    self.record(EventType::Warning, "FailedCreate", format!("Create {about} failed error: {why}"));
                    self.failed("Create", "FailedCreate", pod, &format!("failed to create PVC {name}: {why}"));
                    return Err(Failure::request("create a PersistentVolumeClaim")(error));
                }
            }
        }
        Ok(())
    }

    async fn own(
        &self,
        claim: &PersistentVolumeClaim,
        owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
        conflict: bool,
    ) -> Result<(), Failure> {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        if conflict {
            let message = format!(
                "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the \
                 retention policy is ignored for this claim"
            );
            self.record(EventType::Warning, "ConflictingController", message);
        }
        let patch = json!({"metadata": {"uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version, "ownerReferences": owners}});
        patched(&self.claims, name, patch, "write the owners of a PersistentVolumeClaim").await
    }

    async fn correct(&self, pod: &Pod, patch: &Value) -> Result<(), Failure> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let corrected = patched(&self.pods, name, patch.clone(), "correct a pod").await;
        match &corrected {
            Ok(()) => self.succeeded("Update", "SuccessfulUpdate", name),
            Err(Failure::Request { source, .. }) => self.failed("Update", "FailedUpdate", name, &refusal(source)),
            Err(_) => {}
        }
        corrected
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Failure> {
        let (name, uid) = (pod.metadata.name.as_deref().unwrap_or_default(), pod.metadata.uid.clone());
        let preconditions = Preconditions { uid: uid.clone(), resource_version: None };
        match self.pods.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => {
                self.succeeded("Delete", "SuccessfulDelete", name);
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(self.key, uid.as_deref().unwrap_or_default());
                if is_gone_or_taken(&error) {
                    return Ok(());
                }
                self.failed("Delete", "FailedDelete", name, &refusal(&error));
                Err(Failure::request("delete a pod")(error))
            }
        }
    }

    /// Writes the status; a set that is gone needs none.
    pub async fn report(&self, status: StatefulSetStatus) -> Result<(), Failure> {
        let updated = StatefulSet { status: Some(status), ..self.set.clone() };
        let answer = self.sets.replace_status(&self.key.name, &PostParams::default(), &updated).await;
        unless_gone(answer, "update the status of a StatefulSet").map(drop)
    }

    fn succeeded(&self, verb: &str, reason: &'static str, pod: &str) {
        let message = format!("{verb} Pod {pod} in StatefulSet {} successful", self.key.name);
        self.record(EventType::Normal, reason, message);
    }

    fn failed(&self, verb: &str, reason: &'static str, pod: &str, why: &str) {
        let message = format!("{verb} Pod {pod} in StatefulSet {} failed error: {why}", self.key.name);
        self.record(EventType::Warning, reason, message);
    }

    fn record(&self, kind: EventType, reason: &'static str, message: String) {
        self.recorder.record(COMPONENT, reference(self.set), kind, reason, message);
    }
}

/// Patches an object, if it is still there.
async fn patched<K: Object>(api: &Api<K>, name: &str, patch: Value, operation: &'static str) -> Result<(), Failure> {
    unless_gone(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await, operation).map(drop)
}
