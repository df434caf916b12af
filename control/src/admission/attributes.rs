//! What webhooks and policies are told of a request: `admission.Attributes` of Kubernetes.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    auth::{authorizer::Authorizer, user_info::user_info},
    identity::Identity,
    kinds::{Kind, Kinds},
    status::Subject,
    store::Snapshot,
};

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `POST`, of an object or of a form such as an Eviction.
    Create,
    /// `PUT`, `PATCH`, of an object that exists.
    Update,
    /// `DELETE`, of one object or of each of many.
    Delete,
    /// A stream or a proxied request: `pods/exec`, `nodes/proxy`.
    Connect,
}

impl Operation {
    /// As rules and reviews spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A kind that is sent to a subresource in the place of the object: Scale, Eviction, Binding, PodExecOptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestForm<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// `v1`
    pub version: &'a str,
    /// `Scale`
    pub kind: &'a str,
}

/// One request that webhooks and policies are asked about.
#[derive(Clone)]
pub struct Attributes<'a> {
    /// What it does.
    pub operation: Operation,
    /// The kind whose path it names.
    pub served: &'a Arc<Kind>,
    /// What is sent, where that is not an object of the kind.
    pub form: Option<RequestForm<'a>>,
    /// Path segment.
    pub subresource: Option<&'a str>,
    /// Of the object; `None` for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    /// Of the object; empty where it is yet to be generated.
    pub name: &'a str,
    /// Who asks.
    pub identity: &'a Identity,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// CreateOptions, UpdateOptions, PatchOptions or DeleteOptions; null for a connection.
    pub options: Value,
    /// What the request is decided from.
    pub snapshot: &'a Snapshot,
    /// Who may do what, for expressions that ask.
    pub authorizer: &'a Authorizer,
    /// All kinds: other versions of the served one are found there.
    pub kinds: Arc<Kinds>,
}

impl<'a> Attributes<'a> {
    /// What a refusal is about.
    pub fn subject(&self) -> Subject<'a> {
        Subject { group: &self.served.group, resource: &self.served.plural, name: self.name }
    }

    /// Whether the request is about a namespace itself.
    pub fn is_namespace(&self) -> bool {
        self.served.group.is_empty() && self.served.plural == super::namespace::RESOURCE
    }

    /// The namespace that rules see: that of a namespace is itself.
    pub fn namespace(&self) -> Option<&'a str> {
        let own = self.is_namespace().then_some(self.name).filter(|name| !name.is_empty());
        self.namespace.or(own)
    }

    /// Whether it is about a configuration of admission. Nothing that is configured is asked about those: a wrong one
    /// could not be repaired.
    pub fn is_exempt(&self) -> bool {
        const EXEMPT: [&str; 6] = [
            "ValidatingWebhookConfiguration",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
        ];
        self.served.group == "admissionregistration.k8s.io" && EXEMPT.contains(&&*self.served.kind)
    }

    /// The kinds that are stored as the same one, the served one left out: the same objects in other versions.
    pub fn equivalents(&self) -> impl Iterator<Item = &Arc<Kind>> {
        let stored = self.served.stored().map(|stored| stored.resource());
        self.kinds.iter().filter(move |kind| {
            let same = kind.stored().map(|stored| stored.resource()) == stored && stored.is_some();
            let served = kind.group == self.served.group && kind.version == self.served.version;
            same && !served && self.subresource.is_none_or(|subresource| kind.has(subresource))
        })
    }

    /// An `AdmissionRequest` without uid and objects, as sent to who is asked about `invoked`.
    pub fn request(&self, invoked: &Kind) -> Value {
        let of = |kind: &Kind| match self.form {
            Some(RequestForm { group, version, kind }) => json!({"group": group, "version": version, "kind": kind}),
            None => json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
        };
        let at = |kind: &Kind| json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
        let mut request = json!({"kind": of(invoked), "resource": at(invoked)});
        let subresource = self.subresource.filter(|subresource| !subresource.is_empty());
        if let Some(subresource) = subresource {
            request["subResource"] = subresource.into();
        }
        request["requestKind"] = of(self.served);
        request["requestResource"] = at(self.served);
        if let Some(subresource) = subresource {
            request["requestSubResource"] = subresource.into();
        }
        if !self.name.is_empty() {
            request["name"] = self.name.into();
        }
        if let Some(namespace) = self.namespace() {
            request["namespace"] = namespace.into();
        }
        request["operation"] = self.operation.as_str().into();
        request["userInfo"] = user_info(self.identity);
        request["dryRun"] = self.dry_run.into();
        request["options"] = self.options.clone();
        request
    }
}
