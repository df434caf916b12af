//! What a kind cannot know alone: whether the namespace takes new objects, who asks, what every pod of the cluster
//! gets.
//!
//! [`Admission::mutate`] runs on the defaulted object before it is validated, [`Admission::validate`] on the object as
//! it would be stored. Both are async, since webhooks are to come. Neither allocates anything: see
//! [`crate::allocation`].
//!
//! | file | what it decides |
//! |---|---|
//! | `namespace` | whether a namespace takes new objects, and may be deleted |
//! | `plugins` | which of Kubernetes' built-in plugins sees what, and in which order |
//! | `limit_ranger`, `pod_resources` | what containers get, and between which amounts they stay |
//! | `service_account` | the account of a pod, its pull secrets and its token |
//! | `pod_security` | which pods the level of their namespace forbids |
//! | `priority`, `default_tolerations`, `runtime_class`, `topology_labels` | what else a pod gets |
//! | `node_taint` | that a new node takes no pods yet |
//! | `default_class`, `claim_resize` | the class of claims and Ingresses; whether claims grow |
//! | `certificate_request`, `certificate_subject` | the requester and the subject of a CertificateSigningRequest |
//! | `policy` | what ValidatingAdmissionPolicies deny |
//! | `quota` | how much a namespace may hold |
//! | `write_warnings` | of what in an object an answer warns |
//!
//! What a node may write is decided by [`crate::auth::node_restriction`].

use std::sync::Arc;

use serde_json::Value;

use self::plugins::{Plugins, Surroundings};
use crate::{
    auth::node_restriction::{self, NodeWrite},
    identity::Identity,
    kinds::{Kind, Registry},
    request::Verb,
    status::{Status, Subject},
    store::{Snapshot, Store, Write},
};

mod amounts;
mod certificate_request;
mod certificate_subject;
mod claim_resize;
mod default_class;
mod default_tolerations;
mod limit_ranger;
pub mod namespace;
mod node_taint;
mod plugins;
mod pod_resources;
mod pod_security;
pub mod policy;
mod priority;
pub mod quota;
mod readings;
mod runtime_class;
mod service_account;
mod topology_labels;
mod write_warnings;

/// Admits writes. One per control service; cheap to clone.
#[derive(Clone, Default)]
pub struct Admission {
    plugins: Arc<Plugins>,
    policies: policy::Policies,
    /// The kinds of parameters of policies.
    kinds: Option<Registry>,
    store: Option<Arc<dyn Store>>,
}

/// One write to be admitted.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// [`Verb::Create`], [`Verb::Update`] or [`Verb::Delete`]. A deletion is asked about when it begins; the update
    /// that takes the last finalizer away is an update.
    pub operation: Verb,
    /// A stored kind.
    pub kind: &'a Kind,
    /// Of the object; `None` for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    /// Of the object.
    pub name: &'a str,
    /// Path segment.
    pub subresource: Option<&'a str>,
    /// The stored object, on update and delete.
    pub old: Option<&'a Value>,
    /// Who asks.
    pub identity: &'a Identity,
    /// What the write was made from.
    pub snapshot: &'a Snapshot,
}

impl Admission {
    /// With the kinds that are served: policies take objects of them as parameters. In `store`, plugins wait for what
    /// is about to be made.
    pub fn serving(kinds: Registry, store: Arc<dyn Store>) -> Self {
        Self { kinds: Some(kinds), store: Some(store), ..Self::default() }
    }

    fn around(&self) -> Surroundings<'_> {
        Surroundings { store: self.store.as_ref(), kinds: self.kinds.as_ref() }
    }

    /// Fills in what the cluster gives to a new or changed object. Refuses new objects whose namespace does not take
    /// them.
    pub async fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
        if let (Verb::Create, Some(namespace)) = (request.operation, request.namespace) {
            let state = namespace::state(request.snapshot.get(namespace::RESOURCE, namespace).map(|found| &**found));
            namespace::takes_new_objects(request.subject(), namespace, state)?;
        }
        self.plugins.mutate(request, self.around(), object).await
    }

    /// Refuses what may not be stored. On [`Verb::Delete`], `object` is the stored one.
    pub async fn validate(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        if request.operation == Verb::Delete {
            namespace::may_be_deleted(request)?;
        }
        write_warnings::tell(request, object);
        self.plugins.validate(request, self.around(), object).await?;
        policy::must_compile(request, object)?;
        self.policies.check(request, object, self.kinds.as_ref())?;
        let Some(node) = request.identity.node() else { return Ok(()) };
        let write = NodeWrite {
            node,
            operation: request.operation,
            group: &request.kind.group,
            resource: &request.kind.plural,
            subresource: request.subresource.unwrap_or_default(),
            old: request.old,
            new: object,
        };
        node_restriction::check(&write)
            .map_err(|violation| Status::forbidden(request.subject(), &violation.to_string()))
    }
}

impl Admission {
    /// The writes that charge a write to the quotas of its namespace: they belong into its transaction. Refuses what
    /// the quotas do not allow. After all else has admitted it.
    pub fn charge(&self, request: &Request<'_>, object: &Value) -> Result<Vec<Write>, Status> {
        quota::charge(request, object)
    }
}

impl<'a> Request<'a> {
    /// What a refusal is about.
    pub fn subject(&self) -> Subject<'a> {
        Subject { group: &self.kind.group, resource: &self.kind.plural, name: self.name }
    }
}
