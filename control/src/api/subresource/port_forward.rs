//! `/portforward` of a pod: connections to its ports, made by its node's agent; through `node_proxy`.

use serde_json::{Value, json};

use super::{ConnectionOptions, Responder, Subresource};
use crate::{
    api::{node_proxy::forwarded_ports, request::Call},
    request::pod_stream::PodStream,
};

/// The declaration of this subresource.
pub static PORT_FORWARD: Subresource = Subresource {
    segment: PodStream::PortForward.segment(),
    verbs: &["create", "get"],
    connection: Some(&ConnectionOptions { kinds: &[("pods", "PodPortForwardOptions")], set_options }),
    responder: Responder::Node(|nodes, info, request| {
        Box::pin(nodes.pod_stream(PodStream::PortForward, info, request))
    }),
    ..Subresource::PLAIN
};

fn set_options(call: &Call, options: &mut Value) {
    // What is no port is refused once this is allowed.
    options["ports"] = json!(forwarded_ports(&call.query).unwrap_or_default());
}
