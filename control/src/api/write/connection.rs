//! Asks the policies and webhooks of the cluster about connections: streams to containers, proxied requests. They
//! change nothing that is stored, and are asked about with their options in the place of an object.

use serde_json::{Value, json};

use super::inquiry::{ask, attributes};
use crate::{
    admission::attributes::{Attributes, Form, Operation},
    api::{Api, Status, node_proxy::forwarded_ports, request::Call, subresource::connection_kind},
    deadline, warnings,
};

/// Asks about a connection: a stream or a proxied request. Answers with what the client is to be warned of.
pub async fn admit_connection(api: &Api, call: &Call) -> Result<Vec<String>, Status> {
    let snapshot = api.store().snapshot();
    let segment = call.target.subresource.map(|subresource| subresource.segment).unwrap_or_default();
    let Some(kind) = connection_kind(&call.target.kind.plural, segment) else { return Ok(Vec::new()) };
    if !api.admission().asks(&snapshot) {
        return Ok(Vec::new());
    }
    let form = Form { group: "", version: "v1", kind };
    let attributes = Attributes { form: Some(form), ..attributes(api, call, &snapshot, Operation::Connect) };
    let object = connection_options(kind, call);
    let asked = Box::pin(ask(api, &attributes, object, &Value::Null, None));
    let (answer, warnings) = warnings::collect(deadline::bound(asked)).await;
    answer.map(|_| warnings)
}

/// The options of a connection, which stand in its query and path.
fn connection_options(kind: &str, call: &Call) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    let all = |name: &str| -> Vec<&str> {
        let parameters = call.query.parameters.iter().filter(|(key, _)| key == name);
        parameters.map(|(_, value)| value.as_str()).collect()
    };
    match kind {
        "PodAttachOptions" | "PodExecOptions" => {
            for stream in ["stdin", "stdout", "stderr", "tty"] {
                if call.query.is_set(stream) {
                    options[stream] = true.into();
                }
            }
            if let Some(container) = all("container").first().filter(|container| !container.is_empty()) {
                options["container"] = (*container).into();
            }
            if kind == "PodExecOptions" {
                options["command"] = json!(all("command"));
            }
        }
        "PodPortForwardOptions" => {
            // What is no port is refused once this is allowed.
            options["ports"] = json!(forwarded_ports(&call.query).unwrap_or_default());
        }
        _ => {
            let rest = call.info.resource().map(|resource| resource.rest.as_str()).unwrap_or_default();
            options["path"] = rest.into();
        }
    }
    options
}
