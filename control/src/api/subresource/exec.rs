//! `/exec` of a pod: a command in one of its containers, run by its node's agent; through `node_proxy`.

use super::{Effect, Subresource, without_agent};

/// The declaration of this subresource.
pub static EXEC: Subresource = Subresource {
    segment: "exec",
    verbs: &["create", "get"],
    form: None,
    effect: Effect::Nothing,
    by_agent: true,
    any_path: false,
    handle: without_agent,
};
