//! `/approval` of a CertificateSigningRequest: whether it is to be signed.

use super::{Effect, Subresource, whole};

/// The declaration of this subresource.
pub static APPROVAL: Subresource = Subresource {
    segment: "approval",
    verbs: &["get", "patch", "update"],
    form: None,
    effect: Effect::Fields(&[
        &["status", "conditions"],
        &["metadata", "annotations"],
        &["metadata", "labels"],
        &["metadata", "finalizers"],
        &["metadata", "managedFields"],
    ]),
    by_agent: false,
    any_path: false,
    handle: whole,
};
