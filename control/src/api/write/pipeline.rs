//! The one pipeline that every write into the store goes through.
//!
//! The verb's own file decodes the body and converts it to the stored kind; what it makes of it comes here as a
//! [`Pending`]. Then, in this order: default → own fields → mutate → prepare → refuse escalation → validate → ask for
//! the right to create → admit → charge to quotas → allocate → commit. A transaction holds the object, all that was
//! allocated to it, what it takes of quotas, and that its namespace takes new objects: they are stored together or not
//! at all.
//!
//! As in Kubernetes, the writer owns what it sent and what defaults made of it, and nobody owns what admission and
//! allocation add. `metadata.managedFields` is text beside the object all the while: see [`crate::field_management`].
//!
//! A write that finds the object changed is [`Committed::Stale`]: its verb makes it anew from the present state.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

use super::{
    WriteOutcome, creation_access, held_by_spec, inquiry::Inquiry, must_be_valid, refusal, reject_new_finalizers, size,
};
use crate::{
    admission::{certificate_request, namespace},
    allocation::{self, Claimant},
    api::{
        Api, Status, StorageLocation, Subject,
        request::Call,
        subresource::{Effect, Subresource},
    },
    auth::{param_access, rbac::escalation},
    custom::{Custom, definition},
    deadline,
    definitions::ownership,
    encode,
    field_management::{ManagersText, Tracker, same_but_times},
    kinds::{FieldError, Kind, Kinds, Sent, error_budget, paths_on_demand},
    request::Verb,
    rfc3339,
    schema::SentEmpties,
    store::{Change, CommitError, Condition, Expect, Key, Object, Requirement, Snapshot, Transaction, Write},
};

/// A write as its verb made it, before anything else had a say.
pub struct Pending<'a> {
    /// Where the object is kept, with its own key.
    pub place: &'a StorageLocation,
    /// The object's namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    /// The object's name.
    pub name: &'a str,
    /// The subresource that is written through, if any.
    pub subresource: Option<&'static Subresource>,
    /// The stored object, on all but creation.
    pub old: Option<Stored<'a>>,
    /// What is to become of it.
    pub action: Action,
    /// What it says of fields that it cannot change: told beside everything else that is wrong.
    pub refused: Vec<FieldError>,
    /// Whose the fields are that change.
    pub ownership: Ownership<'a>,
    /// What the policies and webhooks of the cluster are told beside.
    pub inquiry: Inquiry<'a>,
}

/// What a write does to the ownership of fields.
pub enum Ownership<'a> {
    /// Nothing: what it changes is nobody's.
    Kept,
    /// What changes is the writer's.
    Tracked(Writer<'a>),
    /// The write decided it itself, being an apply.
    Decided(ManagersText),
}

/// Who writes, and through what.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The kind that the request names.
    pub served: &'a Kind,
    /// See [`crate::field_management::manager_name`].
    pub manager: &'a str,
    /// Path segment of the subresource that is written through.
    pub subresource: Option<&'a str>,
}

impl<'a> Writer<'a> {
    /// Hands `by` the tracker of what this writer changes in objects of the kind `stored`.
    pub fn track<T>(self, kinds: &Kinds, stored: &Kind, by: impl FnOnce(&Tracker<'_>) -> T) -> T {
        let Self { served, manager, subresource } = self;
        by(&Tracker { kinds, served, stored, manager, subresource, now: &rfc3339::now() })
    }

    /// Who owns what once `new` is in the place of `old`, both of the kind `stored`. See [`Tracker::update`].
    async fn account(
        self,
        api: &Api,
        stored: &Kind,
        (old, new): (Option<&Value>, &Value),
        managers: &str,
        sent: Option<&Value>,
    ) -> Result<ManagersText, Status> {
        let kinds = api.kinds().snapshot();
        let update = || self.track(&kinds, stored, |tracker| tracker.update(old, new, managers, sent));
        let accounted = ownership::account(self.served, update).await;
        accounted.or_else(|status| {
            deadline::must_not_be_over()?;
            // As in Kubernetes: better no account than a wrong one.
            tracing::warn!(kind = ?stored, why = status.message, "cannot tell who owns the fields of an object");
            Ok(ManagersText::new())
        })
    }
}

/// A stored object beside its JSON value.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// The object as the store has it.
    pub object: &'a Arc<Object>,
    /// The same, parsed.
    pub value: &'a Value,
}

/// What a write does to the object.
pub enum Action {
    /// It is created, or becomes this.
    Put {
        /// The object.
        new: Value,
        /// What its client sent empty.
        empties: SentEmpties,
    },
    /// Its deletion begins or is hastened: it stays for now and becomes this.
    Mark(Value),
    /// It goes.
    Remove,
}

/// A write that passed everything but the store.
pub enum Prepared {
    /// The object is already as it should be.
    Unchanged,
    /// Nothing but a commit is left.
    Ready {
        /// Its first write is the object's own.
        transaction: Transaction,
        /// Whether the object is gone afterwards.
        removes: bool,
    },
}

/// What the store said to a write.
pub enum Committed {
    /// The object as it was stored, or as it was when it went.
    Done(Arc<Object>),
    /// The object's own key holds something else than the write was made for.
    Stale,
    /// Something beside the object changed: an address was taken by another.
    Contended,
}

/// Takes a write through everything but the store. `snapshot` is what the write was made from.
pub async fn prepare(api: &Api, call: &Call, snapshot: &Snapshot, pending: Pending<'_>) -> Result<Prepared, Status> {
    let Pending { place, namespace, name, subresource, old, action, refused, ownership, inquiry } = pending;
    let identity = &call.identity;
    let kind = &*place.kind;
    let operation = match (&action, &old) {
        (Action::Put { .. }, None) => Verb::Create,
        (Action::Put { .. }, Some(_)) => Verb::Update,
        (Action::Mark(_) | Action::Remove, _) => Verb::Delete,
    };
    let stored = old.map(|old| old.value);
    let segment = subresource.map(|subresource| subresource.segment);
    let request = crate::request::WriteRequest {
        operation,
        kind,
        group: &place.group,
        namespace,
        name,
        name_in_path: call.target.name.as_deref(),
        subresource: segment,
        old: stored,
        identity,
        snapshot,
    };
    let admission = api.admission();
    let (is_apply, is_mark) = (matches!(ownership, Ownership::Decided(_)), matches!(action, Action::Mark(_)));
    let inquiry = inquiry.begin(api, call, &request, old, subresource)?;
    let mut managers = old.map_or(Cow::Borrowed(""), |old| old.object.managers());
    let after_mutation: Snapshot;
    let (mut snapshot, mut request) = (snapshot, request);
    let mut new = match action {
        Action::Put { mut new, mut empties } => {
            let effect = subresource.map_or(Effect::Update, |subresource| subresource.effect);
            let sent_managers = take_managers(&mut new);
            if let Effect::Fields(write) = effect {
                empties.retain_in(write.fields);
            }
            let sent = Sent::of(&new, empties);
            (kind.default)(&mut new);
            match ownership {
                Ownership::Kept => {}
                Ownership::Decided(decided) => managers = Cow::Owned(decided),
                Ownership::Tracked(writer) => {
                    let sent = sent_managers.as_ref();
                    managers = Cow::Owned(writer.account(api, kind, (stored, &new), &managers, sent).await?);
                }
            }
            // Those who are asked see what would be stored, and what is compared with the stored object is in its form.
            if inquiry.is_some() || stored.is_some() {
                kind.schema.write_zeros(&mut new);
            }
            match &inquiry {
                // In boxes, as below: to ask webhooks takes much memory, and few writes have any.
                Some(inquiry) => {
                    new = Box::pin(inquiry.mutate(&request, new, &mut managers)).await?;
                    // Webhooks take their time: whether the object is allowed is decided on what there is after them.
                    after_mutation = api.store().snapshot();
                    snapshot = &after_mutation;
                    request.snapshot = snapshot;
                }
                None => admission.mutate(&request, api.authorizer(), &mut new).await?,
            }
            certificate_request::prepare(&request, &mut new);
            match (effect, stored) {
                (Effect::Update, stored) => (kind.prepare)(&mut new, stored, &sent),
                (Effect::Part(part), Some(old)) => (part.prepare)(&mut new, old),
                (Effect::Fields(write), Some(old)) => (write.prepare)(kind, &mut new, old),
                _ => {}
            }
            kind.schema.write_zeros(&mut new);
            escalation::refuse(api.authorizer(), &request, &new).await?;
            let validate = || match (effect, stored) {
                (Effect::Part(part), Some(old)) => (part.validate)(&new, old, &sent.empties),
                // What sets an immutable field is not held against the object as it was.
                (Effect::SetImmutable, _) => (kind.validate)(&new, None, &sent.empties),
                (_, stored) => (kind.validate)(&new, stored, &sent.empties),
            };
            let errors = match kind.makes_paths_on_demand {
                true => paths_on_demand::where_refused(|| error_budget::within(validate)),
                false => error_budget::within(validate),
            };
            must_be_valid(kind, (&new, stored), &sent.empties, refused, errors)?;
            param_access::refuse(api.authorizer(), &api.kinds().snapshot(), &request, &new)?;
            if operation == Verb::Create {
                // In a box, too: nearly all that is created is posted.
                Box::pin(creation_access::refuse(api, call)).await?;
            }
            if let Some(old) = stored {
                reject_new_finalizers(kind, &new, old)?;
                for field in ["apiVersion", "kind"] {
                    new[field] = old[field].clone();
                }
                new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            }
            admission.validate(&request, api.authorizer(), &new).await?;
            if let Some(inquiry) = &inquiry {
                Box::pin(inquiry.validate(&new, &managers, snapshot)).await?;
            }
            // What is stored under an old key is written anew though nothing changes: so keys are rotated.
            let is_same = |old: Stored<'_>| {
                is_same_account(&old.object.managers(), &managers) && !api.store().is_stale(&place.resource, old.object)
            };
            if stored == Some(&new) && old.is_some_and(is_same) {
                return Ok(Prepared::Unchanged);
            }
            Some(new).filter(|new| stored.is_none() || !is_released(kind, new))
        }
        Action::Mark(_) | Action::Remove => {
            admission.delete(&request, api.authorizer(), stored.unwrap_or(&Value::Null))?;
            if let Some(inquiry) = &inquiry {
                Box::pin(inquiry.delete()).await?;
            }
            match action {
                Action::Mark(new) => Some(new),
                _ => None,
            }
        }
    };
    let charges = match &new {
        Some(new) if operation != Verb::Delete => admission.charge(&request, new)?,
        _ => Vec::new(),
    };
    let mut require = Vec::new();
    if let (Verb::Create, Some(namespace)) = (operation, namespace)
        && admission.requires_namespaces()
    {
        require.push(Requirement { key: namespace::key(namespace), condition: Condition::Alive });
    }
    if let (Verb::Create, Some(custom)) = (operation, &kind.custom) {
        require.push(definition_takes_objects(custom, kind, snapshot)?);
    }
    // A taken name is told before a taken address.
    let taken = old.is_none() && snapshot.get(&place.resource, &place.key).is_some();
    let allocated = match taken {
        true => Vec::new(),
        // Other subresources change nothing that is allocated.
        false if subresource.is_some() && new.is_some() && !allocation::is_held_by_status(kind) => Vec::new(),
        false => {
            let claimant = Claimant { kind, namespace, name };
            api.allocator().allocate(snapshot, &claimant, stored, new.as_mut())?
        }
    };
    let expect = old.map_or(Expect::Absent, |old| Expect::At(old.object.revision));
    let removes = new.is_none();
    let change = match new {
        None => Change::Delete,
        // What is being deleted is not held up by its size.
        Some(new) if is_mark => Change::Put(encode::managed_draft(kind, &new, &managers)),
        Some(new) => {
            let managers = if is_apply {
                size::StoredManagers::Needed(&managers)
            } else {
                size::StoredManagers::Optional(&managers)
            };
            Change::Put(size::bounded_draft(kind, &new, managers, old.map(|old| &**old.object))?)
        }
    };
    let mut writes = vec![Write { key: place.key(), expect, change }];
    writes.extend(allocated);
    writes.extend(charges);
    Ok(Prepared::Ready { transaction: Transaction { require, writes }, removes })
}

/// Takes what a client says of the managers out of the object.
pub fn take_managers(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.shift_remove("managedFields")
}

/// Whether nothing but times differs: such a write changes nothing.
fn is_same_account(old: &str, new: &str) -> bool {
    old == new || same_but_times(old, new)
}

/// A definition that is being deleted takes no further objects, or they would outlive it.
fn definition_takes_objects(custom: &Custom, kind: &Kind, snapshot: &Snapshot) -> Result<Requirement, Status> {
    let key = Key { resource: definition::RESOURCE.into(), name: custom.definition.clone() };
    match snapshot.get(&key.resource, &key.name) {
        Some(definition) if !definition.header().deleting() => Ok(Requirement { key, condition: Condition::Alive }),
        Some(_) => {
            Err(Status::terminating_definition(Subject { group: &kind.group, resource: &kind.plural, name: "" }))
        }
        None => Err(Status::unknown_path()),
    }
}

/// Commits a prepared write.
pub async fn commit(
    api: &Api,
    place: &StorageLocation,
    name: &str,
    transaction: Transaction,
) -> Result<Committed, Status> {
    let own = place.key();
    outcome_of_commit(place, name, &own, api.store().commit(transaction).await)
}

/// What a commit's result means for the write of the object at `own`.
pub fn outcome_of_commit(
    place: &StorageLocation,
    name: &str,
    own: &Key,
    result: Result<Vec<Arc<Object>>, CommitError>,
) -> Result<Committed, Status> {
    match result {
        Ok(objects) => {
            let first = objects.into_iter().next();
            first.map(Committed::Done).ok_or_else(|| Status::internal("the store answered with no object"))
        }
        Err(CommitError::Conflict { key, .. }) if key == *own => Ok(Committed::Stale),
        Err(CommitError::Conflict { key, current }) if namespace::is_namespace(&key) => {
            let state = namespace::state(current.as_deref());
            namespace::takes_new_objects(place.subject(name), &key.name, state)?;
            Ok(Committed::Contended)
        }
        Err(CommitError::Conflict { .. }) => Ok(Committed::Contended),
        Err(error) => Err(refusal(error, place.subject(name))),
    }
}

/// What a dry run answers instead of a commit: the object as it would have been stored.
pub fn outcome_of_dry_run(transaction: Transaction, old: Option<&Arc<Object>>) -> Result<WriteOutcome, Status> {
    let first = transaction.writes.into_iter().next().map(|write| write.change);
    match (first, old) {
        (Some(Change::Put(draft)), old) => Ok(WriteOutcome::Dry { draft, revision: old.map(|old| old.revision) }),
        (Some(Change::Delete), Some(old)) => Ok(WriteOutcome::Stored(old.clone())),
        (Some(Change::Amend(_) | Change::Delete) | None, _) => Err(Status::internal("a dry run of nothing")),
    }
}

/// Whether an object whose deletion was asked for has nothing left that holds it.
pub fn is_released(kind: &Kind, object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
        && !held_by_spec(kind, object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn the_last_finalizer_lets_a_deleted_object_go() {
        let kind = Kinds::built_in().by_path("", "v1", "namespaces").unwrap();
        let mut object = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["a/b"]}});
        assert!(!is_released(&kind, &object));
        object["metadata"]["finalizers"] = json!([]);
        assert!(is_released(&kind, &object));
        object["spec"]["finalizers"] = json!(["kubernetes"]);
        assert!(!is_released(&kind, &object));
        object["spec"] = json!({});
        object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        assert!(!is_released(&kind, &object), "a pod's grace is ended by its node");
    }
}
