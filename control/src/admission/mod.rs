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
//! | `namespace_exists` | that every write has its namespace |
//! | `limit_ranger`, `pod_resources` | what containers get, and between which amounts they stay |
//! | `service_account` | the account of a pod, its pull secrets and its token |
//! | `pod_security` | which pods the level of their namespace forbids |
//! | `priority`, `default_tolerations`, `runtime_class`, `topology_labels` | what else a pod gets |
//! | `node_restriction` | what the agent of a node may write |
//! | `node_taint` | that a new node takes no pods yet |
//! | `always_pull_images`, `anti_affinity_topology` | how pods pull images, and by what they stay apart |
//! | `pod_node_selector`, `pod_tolerations` | what a namespace's annotations give to its pods, and allow |
//! | `extended_resource_tolerations` | that pods tolerate the taints of the devices that they ask for |
//! | `toleration` | tolerations, and which of two tolerates more |
//! | `owner_references`, `served_kinds` | who names the owners of an object; which resource an owner's kind is |
//! | `external_ips` | that Services get no external addresses |
//! | `always_deny` | that nothing changes |
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
    plugins::{AdmissionContext, PluginChain, PluginReadings},
    reinvocation::Reinvocation,
    versions::Versioned,
};
use crate::{
    admission_plugins::{AdmissionPlugins, PluginName},
    auth::authorizer::Authorizer,
    metrics::{AdmissionMetrics, Scrape},
    request::{Verb, WriteRequest},
    status::Status,
    store::{Snapshot, Store, Write},
    webhook::Dial,
};

mod access;
mod always_deny;
mod always_pull_images;
mod amounts;
mod anti_affinity_topology;
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
mod extended_resource_tolerations;
mod external_ips;
#[cfg(test)]
mod large_inputs;
mod limit_ranger;
pub mod namespace;
mod namespace_exists;
mod node_restriction;
mod node_taint;
mod owner_references;
mod per_revision;
mod plugins;
mod pod_node_selector;
mod pod_resources;
mod pod_security;
mod pod_tolerations;
pub mod policy;
mod priority;
pub mod quota;
mod readings;
pub mod reinvocation;
mod rules;
mod runtime_class;
mod selectors;
mod served_kinds;
mod service_account;
mod storage_protection;
mod toleration;
mod topology_labels;
pub mod versions;
pub mod webhooks;
mod write_warnings;

pub use self::served_kinds::ServedKinds;

/// Admits writes. One per control service; cheap to clone.
#[derive(Clone)]
pub struct Admission {
    inner: Arc<Configured>,
    readings: Arc<PluginReadings>,
    /// The kinds that objects and their owners may have.
    kinds: ServedKinds,
    store: Arc<dyn Store>,
}

/// Which plugins are on, and what the cluster's objects configure, compiled.
#[derive(Debug)]
struct Configured {
    chain: PluginChain,
    policies: policy::Policies,
    webhooks: webhooks::Webhooks,
    metrics: AdmissionMetrics,
    /// NamespaceLifecycle.
    requires_namespaces: bool,
    /// ResourceQuota.
    charges_quotas: bool,
    /// AlwaysDeny.
    denies_all: bool,
}

impl Configured {
    fn new(plugins: &AdmissionPlugins, network: Arc<dyn Dial>) -> Self {
        Self {
            chain: PluginChain::of(plugins),
            policies: policy::Policies::new(plugins),
            webhooks: webhooks::Webhooks::new(plugins, network),
            metrics: AdmissionMetrics::default(),
            requires_namespaces: plugins.has(PluginName::NamespaceLifecycle),
            charges_quotas: plugins.has(PluginName::ResourceQuota),
            denies_all: plugins.has(PluginName::AlwaysDeny),
        }
    }
}

impl Admission {
    /// With the kinds that are served, and the plugins that are on. In `store`, plugins wait for what is about to be
    /// made; over `network`, webhooks are called.
    pub fn serving(
        kinds: ServedKinds,
        store: Arc<dyn Store>,
        network: Arc<dyn Dial>,
        plugins: &AdmissionPlugins,
    ) -> Self {
        let inner = Arc::new(Configured::new(plugins, network));
        Self { inner, readings: Arc::default(), kinds, store }
    }

    fn context<'a>(&'a self, request: &'a WriteRequest<'a>, authorizer: &'a Authorizer) -> AdmissionContext<'a> {
        AdmissionContext { request, readings: &self.readings, authorizer, store: &self.store, kinds: &self.kinds }
    }

    /// Fills in what the cluster gives to a new or changed object. Refuses new objects whose namespace does not take
    /// them, and what a node may not write.
    pub async fn mutate(
        &self,
        request: &WriteRequest<'_>,
        authorizer: &Authorizer,
        object: &mut Value,
    ) -> Result<(), Status> {
        self.inner.chain.mutate(&self.context(request, authorizer), object).await
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
        self.inner.chain.validate(&self.context(request, authorizer), object).await
    }

    /// Refuses the deletion of what may not be deleted.
    pub fn delete(&self, request: &WriteRequest<'_>, authorizer: &Authorizer, stored: &Value) -> Result<(), Status> {
        self.inner.chain.delete(&self.context(request, authorizer), stored)
    }

    /// Whether a new object is stored only where its namespace takes it: NamespaceLifecycle looked at the namespace,
    /// and it must still be so when the object is stored.
    pub fn requires_namespaces(&self) -> bool {
        self.inner.requires_namespaces
    }

    /// Whether anything is configured that might have a say about a request.
    pub fn asks(&self, snapshot: &Snapshot) -> bool {
        let Configured { webhooks, policies, denies_all, .. } = &*self.inner;
        *denies_all || !webhooks.is_empty(snapshot) || !policies.is_empty(snapshot)
    }

    /// Whether any of it is about requests like this one, whatever the objects are.
    pub fn concerns(&self, attributes: &Attributes<'_>) -> bool {
        let Configured { webhooks, policies, denies_all, .. } = &*self.inner;
        *denies_all || !attributes.is_exempt() && (webhooks.concern(attributes) || policies.concern(attributes))
    }

    /// Has the policies and webhooks of the cluster change the object.
    pub async fn ask_to_mutate(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
        state: &mut Reinvocation,
    ) -> Result<(), Status> {
        let Configured { policies, webhooks, metrics, denies_all, .. } = &*self.inner;
        if !attributes.is_exempt() {
            policies.mutate(attributes, objects, state, metrics).await?;
            webhooks.mutate(attributes, objects, state, metrics).await?;
        }
        match denies_all {
            true => Err(always_deny::refusal(attributes, objects.object())),
            false => Ok(()),
        }
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
        let Configured { policies, webhooks, metrics, .. } = &*self.inner;
        policies.validate(attributes, objects, metrics).await?;
        webhooks.validate(attributes, objects, metrics).await
    }
}

impl Admission {
    /// The writes that charge a write to the quotas of its namespace: they belong into its transaction. Refuses what
    /// the quotas do not allow. After all else has admitted it.
    pub fn charge(&self, request: &WriteRequest<'_>, object: &Value) -> Result<Vec<Write>, Status> {
        if !self.inner.charges_quotas || !quota::concerns(request) {
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
