//! `/log` of a pod: its node's agent answers, through `node_proxy`.

use super::{Effect, Subresource, without_agent};

pub static LOG: Subresource = Subresource {
    segment: "log",
    verbs: &["get"],
    form: None,
    effect: Effect::Nothing,
    streams: true,
    handle: without_agent,
};
