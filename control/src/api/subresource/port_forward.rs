//! `/portforward` of a pod: connections to its ports, made by its node's agent; through `node_proxy`.

use super::{Effect, Subresource, without_agent};

/// The declaration of this subresource.
pub static PORT_FORWARD: Subresource = Subresource {
    segment: "portforward",
    verbs: &["create", "get"],
    form: None,
    effect: Effect::Nothing,
    by_agent: true,
    any_path: false,
    handle: without_agent,
};
