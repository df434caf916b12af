//! `/proxy` of a node: requests that its agent answers, through `node_proxy`.

use super::{Effect, Subresource, SubresourceKind, without_agent};

/// The declaration of this subresource.
pub static PROXY: Subresource = Subresource {
    segment: "proxy",
    verbs: &["create", "delete", "get", "patch", "update"],
    form: Some(SubresourceKind { group: "", version: "v1", kind: "NodeProxyOptions", schema: "" }),
    effect: Effect::Nothing,
    by_agent: true,
    any_path: true,
    handle: without_agent,
};
