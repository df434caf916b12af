//! What a write is known by while it is decided: for admission, and for rules about who may write what.

use serde_json::Value;

use super::Verb;
use crate::{identity::Identity, kinds::Kind, status::Subject, store::Snapshot};

/// One write to be decided.
#[derive(Clone, Copy)]
pub struct WriteRequest<'a> {
    /// [`Verb::Create`], [`Verb::Update`] or [`Verb::Delete`]. A deletion is asked about when it begins; the update
    /// that takes the last finalizer away is an update.
    pub operation: Verb,
    /// A stored kind.
    pub kind: &'a Kind,
    /// API group that the request names: that of the stored kind, but for objects that are served in two groups.
    pub group: &'a str,
    /// Of the object; `None` for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    /// Of the object.
    pub name: &'a str,
    /// In the path of the request; `None` where the object alone says it, as one that is created by POST.
    pub name_in_path: Option<&'a str>,
    /// Path segment.
    pub subresource: Option<&'a str>,
    /// The stored object, on update and delete.
    pub old: Option<&'a Value>,
    /// Who asks.
    pub identity: &'a Identity,
    /// What the write was made from.
    pub snapshot: &'a Snapshot,
}

impl<'a> WriteRequest<'a> {
    /// What a refusal is about.
    pub fn subject(&self) -> Subject<'a> {
        Subject { group: self.group, resource: &self.kind.plural, name: self.name }
    }
}
