//! Asks the policies and webhooks of the cluster about connections: streams to containers, proxied requests. They
//! change nothing that is stored, and are asked about with their options in the place of an object.

use serde_json::{Value, json};

use super::inquiry::{ask, attributes};
use crate::{
    admission::attributes::{Attributes, Operation, RequestForm},
    api::{Api, Status, request::Call},
    deadline, warnings,
};

/// Asks about a connection: a stream or a proxied request. Answers with what the client is to be warned of.
pub async fn admit_connection(api: &Api, call: &Call) -> Result<Vec<String>, Status> {
    let snapshot = api.store().snapshot();
    let Some(subresource) = call.target.subresource else { return Ok(Vec::new()) };
    let (Some(connection), Some(kind)) = (subresource.connection, subresource.connection_kind(&call.target.kind))
    else {
        return Ok(Vec::new());
    };
    if !api.admission().asks(&snapshot) {
        return Ok(Vec::new());
    }
    let form = RequestForm { group: "", version: "v1", kind };
    let attributes = Attributes { form: Some(form), ..attributes(api, call, &snapshot, Operation::Connect) };
    // The options of a connection stand in its query and path.
    let mut object = json!({"kind": kind, "apiVersion": "v1"});
    (connection.set_options)(call, &mut object);
    let asked = Box::pin(ask(api, &attributes, object, &Value::Null, None));
    let (answer, warnings) = warnings::collect(deadline::bound(asked)).await;
    answer.map(|_| warnings)
}
