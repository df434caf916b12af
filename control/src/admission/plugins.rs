//! Kubernetes' built-in admission plugins, and the order in which they see a write. Each plugin's file says which
//! writes it is about, and decides. Which of them are on is said at the start: see [`crate::admission_plugins`].
//!
//! After them come mutating policies and webhooks, validating policies and webhooks, ResourceQuota, and AlwaysDeny at
//! last: [`super::Admission`] asks those itself, since they see a request in the version that the client sent.
//!
//! Source: `AllOrderedPlugins` in `pkg/kubeapiserver/options/plugins.go`.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use serde_json::Value;

use super::{
    ServedKinds, always_pull_images, anti_affinity_topology, certificate_signers, certificate_subject, claim_resize,
    default_class, default_tolerations, extended_resource_tolerations, external_ips, limit_ranger, namespace,
    namespace_exists, node_restriction, node_taint, owner_references, pod_node_selector, pod_security, pod_tolerations,
    priority, readings::Readings, runtime_class, service_account, storage_protection, topology_labels,
};
use crate::{
    admission_plugins::{AdmissionPlugins, PluginName},
    auth::authorizer::Authorizer,
    request::{Verb, WriteRequest},
    status::Status,
    store::Store,
};

/// The plugins, in the order of [`PluginName`], which is Kubernetes'.
static ORDER: [&Plugin; 25] = [
    &namespace::PLUGIN,
    &namespace_exists::PLUGIN,
    &anti_affinity_topology::PLUGIN,
    &limit_ranger::PLUGIN,
    &service_account::PLUGIN,
    &node_restriction::PLUGIN,
    &node_taint::PLUGIN,
    &always_pull_images::PLUGIN,
    &pod_security::PLUGIN,
    &pod_node_selector::PLUGIN,
    &priority::PLUGIN,
    &default_tolerations::PLUGIN,
    &pod_tolerations::PLUGIN,
    &extended_resource_tolerations::PLUGIN,
    &default_class::STORAGE_PLUGIN,
    &storage_protection::PLUGIN,
    &owner_references::PLUGIN,
    &claim_resize::PLUGIN,
    &runtime_class::PLUGIN,
    &certificate_signers::APPROVAL_PLUGIN,
    &certificate_signers::SIGNING_PLUGIN,
    &certificate_subject::PLUGIN,
    &default_class::INGRESS_PLUGIN,
    &external_ips::PLUGIN,
    &topology_labels::PLUGIN,
];

const _: () = {
    let (mut earlier, mut rest) = ORDER.split_first().expect("there are plugins");
    while let Some((later, others)) = rest.split_first() {
        assert!((earlier.name as usize) < later.name as usize, "a plugin is not at its place, or stands twice");
        (earlier, rest) = (later, others);
    }
};

/// A built-in admission plugin: what it does with writes, of which it finds those that concern it.
pub struct Plugin {
    /// Which of Kubernetes' plugins it is.
    pub name: PluginName,
    /// Fills in a created or updated object, or refuses it, before the object is validated. May run twice for a write.
    pub mutate: Option<Mutate>,
    /// Refuses a created or updated object as it is to be stored.
    pub validate: Option<Validate>,
    /// Refuses the deletion of a stored object.
    pub delete: Option<Examine>,
}

impl Plugin {
    /// One that does nothing yet: for the fields that a plugin does not have.
    pub const fn named(name: PluginName) -> Self {
        Self { name, mutate: None, validate: None, delete: None }
    }

    /// `outcome`, and in the log which plugin refused: its answer need not tell.
    fn told(&self, outcome: Result<(), Status>) -> Result<(), Status> {
        outcome
            .inspect_err(|status| tracing::debug!(plugin = self.name.as_str(), "refused a write: {}", status.message))
    }
}

/// Refuses an object, or lets it be.
pub type Examine = fn(&AdmissionContext<'_>, &Value) -> Result<(), Status>;

/// How a plugin mutates.
pub enum Mutate {
    /// By what is stored.
    Now(fn(&AdmissionContext<'_>, &mut Value) -> Result<(), Status>),
    /// It may wait for an object that is about to be made.
    Waiting(for<'a> fn(&'a AdmissionContext<'a>, &'a mut Value) -> BoxFuture<'a, Result<(), Status>>),
}

/// How a plugin validates.
pub enum Validate {
    /// By what is stored.
    Now(Examine),
    /// It may wait for an object that is about to be made.
    Waiting(for<'a> fn(&'a AdmissionContext<'a>, &'a Value) -> BoxFuture<'a, Result<(), Status>>),
}

/// What a plugin decides by, beside the object.
#[derive(Clone, Copy)]
pub struct AdmissionContext<'a> {
    /// The write.
    pub request: &'a WriteRequest<'a>,
    /// Parsed objects that configure plugins.
    pub readings: &'a PluginReadings,
    /// Whom plugins ask what the writer may do beside.
    pub authorizer: &'a Authorizer,
    /// Where a plugin waits for an object that is about to be made.
    pub store: &'a Arc<dyn Store>,
    /// The kinds that are served.
    pub kinds: &'a ServedKinds,
}

impl AdmissionContext<'_> {
    /// Whether the write is this operation on an object of this kind, or on its subresource.
    pub fn is(&self, operation: Verb, (group, kind): (&str, &str), subresource: Option<&str>) -> bool {
        let request = self.request;
        request.operation == operation
            && request.subresource == subresource
            && *request.kind.kind == *kind
            && *request.kind.group == *group
    }

    /// Whether the write creates or updates an object of this kind itself.
    pub fn puts(&self, kind: (&str, &str)) -> bool {
        [Verb::Create, Verb::Update].into_iter().any(|operation| self.is(operation, kind, None))
    }

    /// 403 about the object.
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(self.request.subject(), why)
    }
}

/// The plugins that are on, in their order. Made once, at the start.
#[derive(Clone)]
pub struct PluginChain {
    plugins: Arc<[&'static Plugin]>,
}

impl PluginChain {
    /// Of those of [`ORDER`] that are on.
    pub fn of(on: &AdmissionPlugins) -> Self {
        Self { plugins: ORDER.into_iter().filter(|plugin| on.has(plugin.name)).collect() }
    }

    /// Has each plugin fill in what the cluster gives to a new or changed object.
    pub async fn mutate(&self, context: &AdmissionContext<'_>, object: &mut Value) -> Result<(), Status> {
        for plugin in &*self.plugins {
            let outcome = match &plugin.mutate {
                None => continue,
                Some(Mutate::Now(mutate)) => mutate(context, object),
                Some(Mutate::Waiting(mutate)) => mutate(context, object).await,
            };
            plugin.told(outcome)?;
        }
        Ok(())
    }

    /// Has each plugin look at the object that is to be stored.
    pub async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        for plugin in &*self.plugins {
            let outcome = match &plugin.validate {
                None => continue,
                Some(Validate::Now(validate)) => validate(context, object),
                Some(Validate::Waiting(validate)) => validate(context, object).await,
            };
            plugin.told(outcome)?;
        }
        Ok(())
    }

    /// Has each plugin look at an object that is to be deleted.
    pub fn delete(&self, context: &AdmissionContext<'_>, stored: &Value) -> Result<(), Status> {
        for plugin in &*self.plugins {
            let Some(delete) = plugin.delete else { continue };
            plugin.told(delete(context, stored))?;
        }
        Ok(())
    }
}

impl fmt::Debug for PluginChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.plugins.iter().map(|plugin| plugin.name)).finish()
    }
}

/// What plugins have read of stored objects, parsed once for each of their revisions.
#[derive(Debug)]
pub struct PluginReadings {
    pub(super) accounts: Readings<service_account::Account>,
    pub(super) limit_ranges: Readings<Vec<limit_ranger::Limit>>,
    pub(super) priorities: Readings<priority::PriorityClass>,
    pub(super) runtimes: Readings<runtime_class::RuntimeClass>,
    pub(super) storage_classes: Readings<default_class::DefaultClass>,
    pub(super) ingress_classes: Readings<default_class::DefaultClass>,
    pub(super) node_selectors: Readings<pod_node_selector::NamespaceSelector>,
    pub(super) tolerations: Readings<pod_tolerations::NamespaceTolerations>,
}

impl Default for PluginReadings {
    fn default() -> Self {
        Self {
            accounts: Readings::new(service_account::RESOURCE, service_account::read),
            limit_ranges: Readings::new(limit_ranger::RESOURCE, limit_ranger::read),
            priorities: Readings::new(priority::RESOURCE, priority::read),
            runtimes: Readings::new(runtime_class::RESOURCE, runtime_class::read),
            storage_classes: Readings::new(default_class::STORAGE_CLASSES, default_class::read_storage),
            ingress_classes: Readings::new(default_class::INGRESS_CLASSES, default_class::read_ingress),
            node_selectors: Readings::new(namespace::RESOURCE, pod_node_selector::read),
            tolerations: Readings::new(namespace::RESOURCE, pod_tolerations::read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission_plugins::PluginError;

    /// Those that [`super::super::Admission`] asks itself, and those without anything to do.
    const ELSEWHERE: [PluginName; 9] = [
        PluginName::AlwaysAdmit,
        PluginName::ClusterTrustBundleAttest,
        PluginName::NodeDeclaredFeatureValidator,
        PluginName::MutatingAdmissionPolicy,
        PluginName::MutatingAdmissionWebhook,
        PluginName::ValidatingAdmissionPolicy,
        PluginName::ValidatingAdmissionWebhook,
        PluginName::ResourceQuota,
        PluginName::AlwaysDeny,
    ];

    #[test]
    fn every_plugin_that_can_be_on_is_asked_where_it_is_on() {
        for name in PluginName::all() {
            let names = |enable: &str, disable: &str| {
                let on = AdmissionPlugins::of(&[enable.parse().unwrap()], &[disable.parse().unwrap()])?;
                Ok::<_, PluginError>(PluginChain::of(&on).plugins.iter().map(|plugin| plugin.name).collect::<Vec<_>>())
            };
            let Ok(enabled) = names(name.as_str(), "") else {
                assert!(!ORDER.iter().any(|plugin| plugin.name == name), "{name:?} cannot be on");
                continue;
            };
            assert_eq!(enabled.contains(&name), !ELSEWHERE.contains(&name), "{name:?}");
            assert!(!names("", name.as_str()).unwrap().contains(&name), "{name:?}");
        }
    }

    #[test]
    fn every_plugin_does_something() {
        for plugin in ORDER {
            let does = plugin.mutate.is_some() || plugin.validate.is_some() || plugin.delete.is_some();
            assert!(does, "{:?}", plugin.name);
        }
    }
}
