//! `/status`: what the controller or agent of an object reports about it. The only way to change `status`.

use super::{Effect, FieldWrite, Responder, Subresource, whole};

/// The declaration of this subresource.
pub static STATUS: Subresource = Subresource {
    segment: "status",
    verbs: &["get", "patch", "update"],
    effect: Effect::Fields(&FieldWrite {
        fields: &[
            &["status"],
            &["metadata", "annotations"],
            &["metadata", "labels"],
            &["metadata", "finalizers"],
            &["metadata", "managedFields"],
        ],
        prepare: |kind, new, old| (kind.prepare_status)(new, old),
    }),
    responder: Responder::Api(whole),
    ..Subresource::PLAIN
};
