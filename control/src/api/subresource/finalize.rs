//! `/finalize` of a Namespace: the only way to take names off `spec.finalizers`.

use super::{Effect, Subresource, whole};

/// The declaration of this subresource.
pub static FINALIZE: Subresource = Subresource {
    segment: "finalize",
    verbs: &["update"],
    form: None,
    effect: Effect::Fields(&[&["spec", "finalizers"]]),
    by_agent: false,
    any_path: false,
    handle: whole,
};
