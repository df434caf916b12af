//! `/ephemeralcontainers` of a pod: containers that are added while it runs, to look into it.

use super::{Effect, PartWrite, Responder, Subresource, whole};
use crate::kinds::pod::{ephemeral_containers, sent_empties};

/// The declaration of this subresource.
pub static EPHEMERAL_CONTAINERS: Subresource = Subresource {
    segment: "ephemeralcontainers",
    verbs: &["get", "patch", "update"],
    effect: Effect::Part(&PartWrite {
        prepare: ephemeral_containers::prepare,
        validate: |new, old, empties| {
            let mut empties = empties.clone();
            empties.retain_in(&[&["spec", "ephemeralContainers"]]);
            sent_empties::refused_with(ephemeral_containers::validate(new, old), &empties)
        },
    }),
    responder: Responder::Api(whole),
    ..Subresource::PLAIN
};
