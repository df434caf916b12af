//! `/attach` of a pod: the streams of the main process of one of its containers, from its node's agent; through
//! `node_proxy`.

use super::{Effect, Subresource, without_agent};

/// The declaration of this subresource.
pub static ATTACH: Subresource = Subresource {
    segment: "attach",
    verbs: &["create", "get"],
    form: None,
    effect: Effect::Nothing,
    by_agent: true,
    any_path: false,
    handle: without_agent,
};
