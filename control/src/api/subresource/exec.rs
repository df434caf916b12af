//! `/exec` of a pod: a command in one of its containers, run by its node's agent; through `node_proxy`.

use serde_json::Value;

use super::{ConnectionOptions, Responder, Subresource, attach};
use crate::{api::request::Call, request::pod_stream::PodStream};

/// The declaration of this subresource.
pub static EXEC: Subresource = Subresource {
    segment: PodStream::Exec.segment(),
    verbs: &["create", "get"],
    connection: Some(&ConnectionOptions { kinds: &[("pods", "PodExecOptions")], set_options }),
    responder: Responder::Node(|nodes, info, request| Box::pin(nodes.pod_stream(PodStream::Exec, info, request))),
    ..Subresource::PLAIN
};

/// Those of an attachment, and the command.
fn set_options(call: &Call, options: &mut Value) {
    attach::set_options(call, options);
    let command = call.query.parameters.iter().filter(|(key, _)| key == "command").map(|(_, value)| value);
    options["command"] = command.cloned().collect();
}
