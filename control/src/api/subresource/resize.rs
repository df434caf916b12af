//! `/resize` of a pod: resources of its containers, changed while it runs.

use super::{Effect, PartWrite, Responder, Subresource, whole};
use crate::kinds::pod::resize;

/// The declaration of this subresource.
pub static RESIZE: Subresource = Subresource {
    segment: "resize",
    verbs: &["get", "patch", "update"],
    effect: Effect::Part(&PartWrite { prepare: resize::prepare, validate: |new, old, _| resize::validate(new, old) }),
    responder: Responder::Api(whole),
    ..Subresource::PLAIN
};
