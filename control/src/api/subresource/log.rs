//! `/log` of a pod: its node's agent answers, through `node_proxy`.

use super::{Responder, Subresource};

/// The declaration of this subresource.
pub static LOG: Subresource = Subresource {
    segment: "log",
    verbs: &["get"],
    responder: Responder::Node(|nodes, info, request| Box::pin(nodes.pod_log(info, request))),
    ..Subresource::PLAIN
};
