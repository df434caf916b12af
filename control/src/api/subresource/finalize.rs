//! `/finalize` of a Namespace: the only way to take names off `spec.finalizers`.

use super::{Effect, FieldWrite, Responder, Subresource, whole};

/// The declaration of this subresource.
pub static FINALIZE: Subresource = Subresource {
    segment: "finalize",
    verbs: &["update"],
    effect: Effect::Fields(&FieldWrite { fields: &[&["spec", "finalizers"]], prepare: |_, _, _| {} }),
    responder: Responder::Api(whole),
    ..Subresource::PLAIN
};
