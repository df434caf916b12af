//! `/ephemeralcontainers` of a pod: containers that are added while it runs, to look into it.

use super::{Effect, PartWrite, Responder, Subresource, whole};
use crate::kinds::pod::ephemeral_containers;

/// The declaration of this subresource.
pub static EPHEMERAL_CONTAINERS: Subresource = Subresource {
    segment: "ephemeralcontainers",
    verbs: &["get", "patch", "update"],
    effect: Effect::Part(&PartWrite {
        prepare: ephemeral_containers::prepare,
        validate: ephemeral_containers::validate,
    }),
    responder: Responder::Api(whole),
    ..Subresource::PLAIN
};
