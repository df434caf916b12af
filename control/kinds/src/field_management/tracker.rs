//! Who owns what after a write: the stage "own fields" of the write pipeline.
//!
//! Objects come in the form that is stored. They are compared in the version of the request, and once more in every
//! other version that a manager used.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

use super::{
    compare::Difference,
    conflict::Conflict,
    managers::{Manager, ManagerId, Managers, Operation},
    reconcile::reconcile,
    reset::{Filter, strip},
    shape::ItemError,
    versions::{Pair, type_of},
};
use crate::kinds::{Kind, Kinds};

/// Who writes, and through what.
#[derive(Clone, Copy)]
pub struct Tracker<'a> {
    /// All kinds, to find the versions that managers used.
    pub kinds: &'a Kinds,
    /// The kind that the request names.
    pub served: &'a Kind,
    /// The kind that it is stored as.
    pub stored: &'a Kind,
    /// See [`super::manager_name`].
    pub manager: &'a str,
    /// Path segment of the subresource that is written through.
    pub subresource: Option<&'a str>,
    /// The present moment, in RFC 3339.
    pub now: &'a str,
}

/// Who owns the fields of an object, as the text of `metadata.managedFields`. Empty where nobody does.
pub type ManagersText = String;

impl<'a> Tracker<'a> {
    /// Who owns what once `new` is in the place of `old`, of which `managers` owned the fields. Both are of the stored
    /// kind. `sent` is what the client says of it itself.
    pub fn update(&self, old: Option<&Value>, new: &Value, managers: &str, sent: Option<&Value>) -> ManagersText {
        let sent = sent.filter(|_| self.subresource.is_none());
        if old.is_some() && sent.is_some_and(is_reset) {
            return ManagersText::new();
        }
        let from_client = sent.and_then(|sent| Managers::sent(sent).ok()).filter(|sent| !sent.is_empty());
        let all = from_client.or_else(|| Managers::stored(managers).ok()).unwrap_or_default();
        if all.is_empty() && old.is_some() {
            // Nobody kept account of this object before.
            return ManagersText::new();
        }
        self.updated(old, new, all, self.manager).unwrap_or_else(|error| {
            // As in Kubernetes: better no account than a wrong one.
            tracing::warn!(kind = ?self.stored, %error, "cannot tell who owns the fields of an object");
            ManagersText::new()
        })
    }

    /// The same, given the managers; what is written belongs to the manager `name`.
    pub(super) fn updated(
        &self,
        old: Option<&Value>,
        new: &Value,
        managers: Managers<'_>,
        name: &str,
    ) -> Result<ManagersText, ItemError> {
        let pair = Pair::of(self.served, old, new);
        let difference = pair.difference(self.filter())?;
        let mut managers = managers;
        if difference == Difference::default() {
            return Ok(managers.print());
        }
        self.disown(&mut managers, &difference, (old, new), None)?;
        let mut changed = difference.changed;
        strip(&mut changed);
        // A Scale does not show that there are no replicas.
        let is_hidden = self.subresource == Some("scale") && new["spec"]["replicas"].as_i64().unwrap_or(0) == 0;
        if !changed.is_empty() && !is_hidden {
            let id = self.id(name, Operation::Update);
            let previous = managers.take(&id).map(Manager::into_fields).unwrap_or_default();
            // Kubernetes writes no time of changes through `/scale`.
            let time = (self.subresource != Some("scale")).then(|| self.now.to_owned());
            managers.put(Manager::new(id, time, previous.union(changed)));
        }
        managers.drop_idle();
        managers.limit();
        Ok(managers.print())
    }

    /// The id of a manager that writes through this tracker.
    pub(super) fn id<'i>(&self, name: &'i str, operation: Operation) -> ManagerId<'i>
    where
        'a: 'i,
    {
        ManagerId {
            name: Cow::Borrowed(name),
            operation,
            api_version: Cow::Owned(self.served.api_version()),
            subresource: Cow::Borrowed(self.subresource.unwrap_or_default()),
        }
    }

    /// What a write through this tracker can own.
    pub(super) fn filter(&self) -> Filter {
        Filter::of(self.stored, self.subresource)
    }

    /// The kind of the same objects in another version.
    pub(super) fn version(&self, api_version: &str) -> Option<Arc<Kind>> {
        let kind = self.kinds.by_api_version(api_version, &self.served.kind)?;
        let stored = kind.stored()?;
        (stored.group == self.stored.group && stored.plural == self.stored.plural).then_some(kind)
    }

    /// Takes from every manager but `applier` what a write changed or removed: `own` in the version of the request.
    /// `old` and `new` are of the stored kind. Answers with what was changed and somebody else's.
    pub(super) fn disown<'m>(
        &self,
        managers: &mut Managers<'m>,
        own: &Difference<'_>,
        (old, new): (Option<&Value>, &Value),
        applier: Option<&ManagerId<'_>>,
    ) -> Result<Vec<Conflict<'m>>, ItemError> {
        let version = self.served.api_version();
        let is_applier = |id: &ManagerId<'_>| applier.is_some_and(|applier| applier.is_same(id));
        let mut conflicts = Vec::new();
        let mut others: Vec<String> = Vec::new();
        for manager in managers.iter_mut().filter(|manager| !is_applier(&manager.id)) {
            if manager.id.api_version == version {
                conflicts.extend(disown_one(manager, self.served, own));
            } else if !others.iter().any(|other| *other == manager.id.api_version) {
                others.push(manager.id.api_version.to_string());
            }
        }
        for other in others {
            let uses_it = |id: &ManagerId<'_>| id.api_version == other && !is_applier(id);
            let Some(kind) = self.version(&other) else {
                managers.retain(|manager| !uses_it(&manager.id));
                continue;
            };
            let pair = Pair::of(&kind, old, new);
            let difference = pair.difference(self.filter())?;
            for manager in managers.iter_mut().filter(|manager| uses_it(&manager.id)) {
                conflicts.extend(disown_one(manager, &kind, &difference));
            }
        }
        Ok(conflicts)
    }
}

/// Takes from a manager what a write changed or removed. Answers with what it owned of the changes.
fn disown_one<'m>(manager: &mut Manager<'m>, kind: &Kind, difference: &Difference<'_>) -> Option<Conflict<'m>> {
    let fields = manager.fields();
    let mut left = reconcile(type_of(kind), std::mem::take(fields));
    let taken = left.intersection(&difference.changed);
    left.subtract(&difference.changed);
    left.subtract(&difference.removed);
    *fields = left;
    (!taken.is_empty()).then(|| Conflict { manager: manager.id.to_string(), fields: taken })
}

/// Whether a client asks to forget all managers: an empty list, or one empty entry.
fn is_reset(sent: &Value) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.values().all(is_empty),
        _ => false,
    }
}
