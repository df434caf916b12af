//! One object in the versions that its managers used.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    compare::{Difference, State, compare},
    reset::Filter,
    shape::{ItemError, TypeRef},
};
use crate::kinds::{Kind, Storage};

/// The type of a kind's objects.
pub fn type_of(kind: &Kind) -> TypeRef<'_> {
    TypeRef::root(kind.schema.types(), kind.schema.root())
}

/// An object of the stored kind as `served` shows it.
pub fn shown<'v>(served: &Kind, object: &'v Value) -> Cow<'v, Value> {
    match &served.storage {
        Storage::As(stored) => {
            let mut object = object.clone();
            (stored.from_stored)(&mut object, served);
            Cow::Owned(object)
        }
        Storage::Stored | Storage::Virtual | Storage::Computed => Cow::Borrowed(object),
    }
}

/// An object as `served` shows it, in the form that is stored.
pub fn as_stored<'v>(served: &Kind, object: &'v Value) -> Cow<'v, Value> {
    match &served.storage {
        Storage::As(stored) => {
            let mut object = object.clone();
            (stored.to_stored)(&mut object);
            Cow::Owned(object)
        }
        Storage::Stored | Storage::Virtual | Storage::Computed => Cow::Borrowed(object),
    }
}

/// An object of the version `from` in the version `to`.
pub fn converted(from: &Kind, to: &Kind, object: Value) -> Value {
    if from.api_version() == to.api_version() {
        return object;
    }
    let stored = as_stored(from, &object).into_owned();
    shown(to, &stored).into_owned()
}

/// Two states of one object in one version.
pub struct Pair<'v> {
    pub kind: &'v Kind,
    old: Option<Cow<'v, Value>>,
    new: Cow<'v, Value>,
}

impl<'v> Pair<'v> {
    /// Of states of the stored kind.
    pub fn of(kind: &'v Kind, old: Option<&'v Value>, new: &'v Value) -> Self {
        Self { kind, old: old.map(|old| shown(kind, old)), new: shown(kind, new) }
    }

    /// What a write changes that can be owned.
    pub fn difference(&self, filter: Filter) -> Result<Difference<'_>, ItemError> {
        let old = self.old.as_deref().map_or(State::Zero, State::Is);
        let mut difference = compare(type_of(self.kind), old, State::Is(&self.new))?;
        filter.apply_to(&mut difference);
        Ok(difference)
    }
}
