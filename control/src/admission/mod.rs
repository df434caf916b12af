//! What a kind cannot know alone: whether the namespace takes new objects, who asks, what every pod of the cluster
//! gets, and what the webhooks and policies of the cluster say.
//!
//! ```text
//!  mutate ──▶ ask_to_mutate: policies, webhooks ──▶ (once more where they changed the object)
//!  validate ──▶ ask_to_validate: policies, webhooks
//! ```
//!
//! [`Admission::mutate`] runs on the defaulted object before it is validated, [`Admission::validate`] on the object as
//! it would be stored; so do the two that ask what is configured, where anything is. Nothing here allocates anything:
//! see [`crate::allocation`].
//!
//! | file | what it decides |
//! |---|---|
//! | `plugins` | in which order Kubernetes' built-in plugins see a write; each has one of the next files |
//! | `namespace` | whether a namespace takes new objects, and may be deleted |
//! | `limit_ranger`, `pod_resources` | what containers get, and between which amounts they stay |
//! | `service_account` | the account of a pod, its pull secrets and its token |
//! | `pod_security` | which pods the level of their namespace forbids |
//! | `priority`, `default_tolerations`, `runtime_class`, `topology_labels` | what else a pod gets |
//! | `node_restriction` | what the agent of a node may write |
//! | `node_taint` | that a new node takes no pods yet |
//! | `device_admin_access` | which claims reach devices that others have claimed |
//! | `default_class`, `claim_resize` | the class of claims and Ingresses; whether claims grow |
//! | `storage_protection` | the finalizers of volumes, claims and VolumeAttributesClasses |
//! | `certificate_request`, `certificate_subject` | the requester and the subject of a CertificateSigningRequest |
//! | `certificate_signers` | who approves and signs for a signer |
//! | `quota` | how much a namespace may hold |
//! | `write_warnings` | of what in an object an answer warns |
//! | `webhooks` | what programs outside change and deny |
//! | `policy` | what expressions in CEL change and deny |
//! | `attributes`, `versions` | what those are told of a request, and its objects in the versions they want |
//! | `rules`, `selectors`, `expression` | whether they are about a request |
//! | `access` | what expressions ask of the authoriser |
//! | `decoded` | what mutators made of an object, as if a client had sent it |
//! | `reinvocation` | which mutators are asked once more |
//! | `per_revision` | keeps them compiled |
//! | `readings` | stored objects that configure plugins, parsed once for each of their revisions |
//! | `amounts` | amounts of resources by name, and the arithmetic of Kubernetes' `ResourceList` |

use std::{fmt, sync::Arc, time::Instant};

use serde_json::Value;

use self::{
    attributes::Attributes,
    plugins::{AdmissionContext, PluginReadings},
    reinvocation::Reinvocation,
    versions::Versioned,
};
use crate::{
    auth::authorizer::Authorizer,
    kinds::Registry,
    metrics::{AdmissionMetrics, Scrape},
    request::{Verb, WriteRequest},
    status::Status,
    store::{Snapshot, Store, Write},
    webhook::Dial,
};

mod access;
mod amounts;
pub mod attributes;
pub mod certificate_request;
mod certificate_signers;
mod certificate_subject;
mod claim_resize;
mod decoded;
mod default_class;
mod default_tolerations;
mod device_admin_access;
mod expression;
mod limit_ranger;
pub mod namespace;
mod node_restriction;
mod node_taint;
mod per_revision;
mod plugins;
mod pod_resources;
mod pod_security;
pub mod policy;
mod priority;
pub mod quota;
mod readings;
pub mod reinvocation;
mod rules;
mod runtime_class;
mod selectors;
mod service_account;
mod storage_protection;
mod topology_labels;
pub mod versions;
pub mod webhooks;
mod write_warnings;

/// Admits writes. One per control service; cheap to clone.
#[derive(Clone, Default)]
pub struct Admission {
    inner: Arc<Configured>,
    readings: Arc<PluginReadings>,
    /// The kinds that quotas count.
    kinds: Option<Registry>,
    store: Option<Arc<dyn Store>>,
}

/// What the cluster's objects configure, compiled.
#[derive(Debug, Default)]
struct Configured {
    policies: policy::Policies,
    webhooks: webhooks::Webhooks,
    metrics: AdmissionMetrics,
}

impl Admission {
    /// With the kinds that are served. In `store`, plugins wait for what is about to be made; over `network`, webhooks
    /// are called.
    pub fn serving(kinds: Registry, store: Arc<dyn Store>, network: Arc<dyn Dial>) -> Self {
        let inner = Arc::new(Configured { webhooks: webhooks::Webhooks::over(network), ..Configured::default() });
        Self { inner, kinds: Some(kinds), store: Some(store), ..Self::default() }
    }

    fn context<'a>(&'a self, request: &'a WriteRequest<'a>, authorizer: &'a Authorizer) -> AdmissionContext<'a> {
        let (store, kinds) = (self.store.as_ref(), self.kinds.as_ref());
        AdmissionContext { request, readings: &self.readings, authorizer, store, kinds }
    }

    /// Fills in what the cluster gives to a new or changed object. Refuses new objects whose namespace does not take
    /// them, and what a node may not write.
    pub async fn mutate(
        &self,
        request: &WriteRequest<'_>,
        authorizer: &Authorizer,
        object: &mut Value,
    ) -> Result<(), Status> {
        plugins::mutate(&self.context(request, authorizer), object).await
    }

    /// Refuses what may not be stored, being created or updated.
    pub async fn validate(
        &self,
        request: &WriteRequest<'_>,
        authorizer: &Authorizer,
        object: &Value,
    ) -> Result<(), Status> {
        device_admin_access::refuse(request, object)?;
        write_warnings::tell(request, object);
        plugins::validate(&self.context(request, authorizer), object).await
    }

    /// Refuses the deletion of what may not be deleted.
    pub fn delete(&self, request: &WriteRequest<'_>, authorizer: &Authorizer, stored: &Value) -> Result<(), Status> {
        plugins::delete(&self.context(request, authorizer), stored)
    }

    /// Whether anything is configured that might have a say about a request.
    pub fn asks(&self, snapshot: &Snapshot) -> bool {
        !self.inner.webhooks.is_empty(snapshot) || !self.inner.policies.is_empty(snapshot)
    }

    /// Whether any of it is about requests like this one, whatever the objects are.
    pub fn concerns(&self, attributes: &Attributes<'_>) -> bool {
        !attributes.is_exempt() && (self.inner.webhooks.concern(attributes) || self.inner.policies.concern(attributes))
    }

    /// Has the policies and webhooks of the cluster change the object.
    pub async fn ask_to_mutate(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
        state: &mut Reinvocation,
    ) -> Result<(), Status> {
        if attributes.is_exempt() {
            return Ok(());
        }
        let Configured { policies, webhooks, metrics } = &*self.inner;
        policies.mutate(attributes, objects, state, metrics).await?;
        webhooks.mutate(attributes, objects, state, metrics).await
    }

    /// Has mutating policies evaluated from now on.
    pub fn evaluate_mutating_policies(&self) {
        self.inner.policies.evaluate_mutating();
    }

    /// Refuses what the policies and webhooks of the cluster deny.
    pub async fn ask_to_validate(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
    ) -> Result<(), Status> {
        if attributes.is_exempt() {
            return Ok(());
        }
        let Configured { policies, webhooks, metrics } = &*self.inner;
        policies.validate(attributes, objects, metrics).await?;
        webhooks.validate(attributes, objects, metrics).await
    }
}

impl Admission {
    /// The writes that charge a write to the quotas of its namespace: they belong into its transaction. Refuses what
    /// the quotas do not allow. After all else has admitted it.
    pub fn charge(&self, request: &WriteRequest<'_>, object: &Value) -> Result<Vec<Write>, Status> {
        if !quota::concerns(request) {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let charged = quota::charge(request, object);
        let operation = if request.operation == Verb::Create { "CREATE" } else { "UPDATE" };
        self.inner.metrics.validated("ResourceQuota", operation, charged.is_err(), begun.elapsed());
        charged
    }

    /// What webhooks, policies and quotas did.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        self.inner.metrics.tell(scrape)
    }
}
