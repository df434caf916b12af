//! `/proxy`: of a node, requests that its agent answers, through `node_proxy`; of a pod or Service, requests that a
//! server in a pod answers, through `object_proxy`.

use super::{Effect, Subresource, without_agent};

/// The declaration of this subresource.
pub static PROXY: Subresource = Subresource {
    segment: "proxy",
    verbs: &["create", "delete", "get", "patch", "update"],
    form: None,
    effect: Effect::Nothing,
    by_agent: true,
    any_path: true,
    handle: without_agent,
};
