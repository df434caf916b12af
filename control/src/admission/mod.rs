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
//! | `pod` | the service account and tolerations of new pods |
//! | `certificate_request` | the requester that a CertificateSigningRequest names |
//! | `policy` | what ValidatingAdmissionPolicies deny |
//! | `warnings` | what an answer warns of |
//!
//! What a node may write is decided by [`crate::auth::node_restriction`].

use serde_json::Value;

use crate::{
    auth::node_restriction::{self, NodeWrite},
    identity::Identity,
    kinds::{Kind, Registry},
    request::Verb,
    status::{Status, Subject},
    store::Snapshot,
};

mod certificate_request;
pub mod namespace;
mod pod;
pub mod policy;

/// Admits writes. One per control service; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    policies: policy::Policies,
    /// The kinds of parameters of policies.
    kinds: Option<Registry>,
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
    /// With the kinds that are served: policies take objects of them as parameters.
    pub fn serving(kinds: Registry) -> Self {
        Self { kinds: Some(kinds), ..Self::default() }
    }

    /// Fills in what the cluster gives to a new or changed object. Refuses new objects whose namespace does not take
    /// them.
    pub async fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
        if let (Verb::Create, Some(namespace)) = (request.operation, request.namespace) {
            let state = namespace::state(request.snapshot.get(namespace::RESOURCE, namespace).map(|found| &**found));
            namespace::takes_new_objects(request.subject(), namespace, state)?;
        }
        if request.operation != Verb::Create || request.subresource.is_some() {
            return Ok(());
        }
        match (&*request.kind.group, &*request.kind.kind) {
            ("", "Pod") => pod::complete(object),
            ("certificates.k8s.io", "CertificateSigningRequest") => {
                certificate_request::set_requester(object, request.identity);
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses what may not be stored. On [`Verb::Delete`], `object` is the stored one.
    pub async fn validate(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        if request.operation == Verb::Delete {
            namespace::may_be_deleted(request)?;
        }
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

impl<'a> Request<'a> {
    /// What a refusal is about.
    pub fn subject(&self) -> Subject<'a> {
        Subject { group: &self.kind.group, resource: &self.kind.plural, name: self.name }
    }
}
