//! `/attach` of a pod: the streams of the main process of one of its containers, from its node's agent; through
//! `node_proxy`.

use serde_json::Value;

use super::{ConnectionOptions, Responder, Subresource};
use crate::{api::request::Call, request::pod_stream::PodStream};

/// The declaration of this subresource.
pub static ATTACH: Subresource = Subresource {
    segment: PodStream::Attach.segment(),
    verbs: &["create", "get"],
    connection: Some(&ConnectionOptions { kinds: &[("pods", "PodAttachOptions")], set_options }),
    responder: Responder::Node(|nodes, info, request| Box::pin(nodes.pod_stream(PodStream::Attach, info, request))),
    ..Subresource::PLAIN
};

/// The container, and which of its streams.
pub fn set_options(call: &Call, options: &mut Value) {
    for stream in ["stdin", "stdout", "stderr", "tty"] {
        if call.query.is_set(stream) {
            options[stream] = true.into();
        }
    }
    if let Some(container) = call.query.parameter("container").filter(|container| !container.is_empty()) {
        options["container"] = container.into();
    }
}
