//! `/status`: what the controller or agent of an object reports about it. The only way to change `status`.

use super::{Effect, Subresource, whole};

/// The declaration of this subresource.
pub static STATUS: Subresource = Subresource {
    segment: "status",
    verbs: &["get", "patch", "update"],
    form: None,
    effect: Effect::Fields(&[
        &["status"],
        &["metadata", "annotations"],
        &["metadata", "labels"],
        &["metadata", "finalizers"],
        &["metadata", "managedFields"],
    ]),
    by_agent: false,
    any_path: false,
    handle: whole,
};
