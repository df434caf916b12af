//! `/log` of a pod: its node's agent answers, through `node_proxy`.

use super::{Effect, Subresource, without_agent};

/// The declaration of this subresource.
pub static LOG: Subresource = Subresource {
    segment: "log",
    verbs: &["get"],
    form: None,
    effect: Effect::Nothing,
    by_agent: true,
    any_path: false,
    handle: without_agent,
};
