//! Kubernetes' built-in admission plugins that are on by default, with NodeRestriction, which every cluster switches
//! on, and the order in which they see a write. Each plugin's file says which writes it is about, and decides.
//!
//! After them come mutating policies and webhooks, validating policies and webhooks, and ResourceQuota at last:
//! [`super::Admission`] asks those itself, since they see a request in the version that the client sent.
//!
//! Source: `AllOrderedPlugins` in `pkg/kubeapiserver/options/plugins.go`.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::{
    certificate_signers, certificate_subject, claim_resize, default_class, default_tolerations, limit_ranger,
    namespace, node_restriction, node_taint, pod_security, priority, readings::Readings, runtime_class,
    service_account, storage_protection, topology_labels,
};
use crate::{
    auth::authorizer::Authorizer,
    kinds::Registry,
    request::{Verb, WriteRequest},
    status::Status,
    store::Store,
};

/// The plugins, in Kubernetes' order.
pub static ORDER: [&Plugin; 17] = [
    &namespace::PLUGIN,
    &limit_ranger::PLUGIN,
    &service_account::PLUGIN,
    &node_restriction::PLUGIN,
    &node_taint::PLUGIN,
    &pod_security::PLUGIN,
    &priority::PLUGIN,
    &default_tolerations::PLUGIN,
    &default_class::STORAGE_PLUGIN,
    &storage_protection::PLUGIN,
    &claim_resize::PLUGIN,
    &runtime_class::PLUGIN,
    &certificate_signers::APPROVAL_PLUGIN,
    &certificate_signers::SIGNING_PLUGIN,
    &certificate_subject::PLUGIN,
    &default_class::INGRESS_PLUGIN,
    &topology_labels::PLUGIN,
];

/// A built-in admission plugin: what it does with writes, of which it finds those that concern it.
pub struct Plugin {
    /// As Kubernetes calls it.
    pub name: &'static str,
    /// Fills in a created or updated object, or refuses it, before the object is validated. May run twice for a write.
    pub mutate: Option<Mutate>,
    /// Refuses a created or updated object as it is to be stored.
    pub validate: Option<Validate>,
    /// Refuses the deletion of a stored object.
    pub delete: Option<Examine>,
}

impl Plugin {
    /// For the fields that a plugin does not have.
    pub const NONE: Self = Self { name: "", mutate: None, validate: None, delete: None };

    /// `outcome`, and in the log which plugin refused: its answer need not tell.
    fn told(&self, outcome: Result<(), Status>) -> Result<(), Status> {
        outcome.inspect_err(|status| tracing::debug!(plugin = self.name, "refused a write: {}", status.message))
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
    pub store: Option<&'a Arc<dyn Store>>,
    /// The kinds that are served.
    pub kinds: Option<&'a Registry>,
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

    /// 403 about the object.
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(self.request.subject(), why)
    }
}

/// Has each plugin fill in what the cluster gives to a new or changed object.
pub async fn mutate(context: &AdmissionContext<'_>, object: &mut Value) -> Result<(), Status> {
    for plugin in ORDER {
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
pub async fn validate(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    for plugin in ORDER {
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
pub fn delete(context: &AdmissionContext<'_>, stored: &Value) -> Result<(), Status> {
    for plugin in ORDER {
        let Some(delete) = plugin.delete else { continue };
        plugin.told(delete(context, stored))?;
    }
    Ok(())
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a plugin of Kubernetes is in [`ORDER`], or why not.
    #[derive(PartialEq, Eq)]
    enum Standing {
        Here,
        /// Off by default.
        Off,
        /// ClusterTrustBundles are in beta, and not served by default.
        Unserved,
        /// It does nothing without its feature gate, which is off by default.
        Gated,
    }
    use Standing::{Gated, Here, Off, Unserved};

    /// `AllOrderedPlugins` of Kubernetes 1.35 up to the mutating policies.
    const KUBERNETES: [(&str, Standing); 31] = [
        ("AlwaysAdmit", Off),
        ("NamespaceAutoProvision", Off),
        ("NamespaceLifecycle", Here),
        ("NamespaceExists", Off),
        ("LimitPodHardAntiAffinityTopology", Off),
        ("LimitRanger", Here),
        ("ServiceAccount", Here),
        ("NodeRestriction", Here),
        ("TaintNodesByCondition", Here),
        ("AlwaysPullImages", Off),
        ("ImagePolicyWebhook", Off),
        ("PodSecurity", Here),
        ("PodNodeSelector", Off),
        ("Priority", Here),
        ("DefaultTolerationSeconds", Here),
        ("PodTolerationRestriction", Off),
        ("EventRateLimit", Off),
        ("ExtendedResourceToleration", Off),
        ("DefaultStorageClass", Here),
        ("StorageObjectInUseProtection", Here),
        ("OwnerReferencesPermissionEnforcement", Off),
        ("PersistentVolumeClaimResize", Here),
        ("RuntimeClass", Here),
        ("CertificateApproval", Here),
        ("CertificateSigning", Here),
        ("ClusterTrustBundleAttest", Unserved),
        ("CertificateSubjectRestriction", Here),
        ("DefaultIngressClass", Here),
        ("DenyServiceExternalIPs", Off),
        ("PodTopologyLabels", Here),
        ("NodeDeclaredFeatureValidator", Gated),
    ];

    #[test]
    fn the_plugins_that_are_on_see_a_write_in_kubernetes_order() {
        let expected = KUBERNETES.iter().filter(|(_, standing)| *standing == Here).map(|(name, _)| *name);
        assert_eq!(ORDER.map(|plugin| plugin.name).to_vec(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn every_plugin_does_something() {
        for plugin in ORDER {
            let does = plugin.mutate.is_some() || plugin.validate.is_some() || plugin.delete.is_some();
            assert!(does, "{}", plugin.name);
        }
    }
}
