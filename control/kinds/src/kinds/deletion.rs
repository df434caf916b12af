//! What deletion means for one kind, beyond what finalizers in the metadata do for all.

use serde_json::Value;

/// How objects of a kind are deleted. Data and plain functions, so that built-in and custom kinds have it alike.
#[derive(Clone, Copy, Debug)]
pub struct Deletion {
    /// Whether all objects that a selector takes can be deleted in one request.
    pub bulk: bool,
    /// Whether the names in `spec.finalizers` hold a deleted object as those in the metadata do.
    pub spec_finalizers: bool,
    /// How many seconds whoever runs the object has to end it, given the object and what the request asked for. Zero
    /// where nothing has to be waited for.
    pub grace_seconds: fn(object: &Value, asked: Option<i64>) -> i64,
    /// Whether dependents stay where a request says nothing of them.
    pub orphans_by_default: bool,
    /// Whether objects of the kind own none, so that a policy for dependents means nothing.
    pub has_no_dependents: bool,
    /// Changes an object that stays for now, when its deletion begins.
    pub begin: fn(object: &mut Value),
    /// Whether a deletion is answered with the object as it was, and not with a `Status`.
    pub returns_object: bool,
    /// A finalizer that the object gets when its deletion begins.
    pub finalizer: Option<&'static str>,
    /// Whether the beginning of a deletion sets nothing but its time: no period of grace, and no generation.
    pub sets_time_alone: bool,
    /// Whether an object that goes at once is answered as one that was told to end.
    pub ends_gracefully: bool,
    /// What a deletion that says nothing of dependents is warned of.
    pub warning: Option<&'static str>,
}

impl Deletion {
    /// Of most kinds: an object goes as soon as no finalizer holds it.
    pub const PLAIN: Self = Self {
        bulk: true,
        spec_finalizers: false,
        grace_seconds: |_, _| 0,
        orphans_by_default: false,
        has_no_dependents: false,
        begin: |_| {},
        returns_object: false,
        finalizer: None,
        sets_time_alone: false,
        ends_gracefully: false,
        warning: None,
    };

    /// Of kinds whose deletion is answered with the object.
    pub const RETURNING: Self = Self { returns_object: true, ..Self::PLAIN };
}
