//! Whether a namespace takes new objects, and whether it may be deleted at all.

use serde_json::json;

use crate::api::{Status, Subject};

use super::Request;

/// What the store says of the namespace of a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    Active,
    Terminating,
    Absent,
}

/// Objects are created in namespaces that are there and are to stay.
pub fn takes_new_objects(request: &Request) -> Result<(), Status> {
    // Told about what goes on in a namespace until its end.
    let is_event = request.kind.kind == "Event";
    let namespace = request.namespace.unwrap_or_default();
    match request.namespace_state {
        NamespaceState::Active => Ok(()),
        NamespaceState::Terminating if is_event => Ok(()),
        NamespaceState::Terminating => {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let mut status = Status::forbidden(request.subject(), &why);
            let cause = json!({"reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated")});
            if let Some(details) = &mut status.details {
                details["causes"] = json!([cause]);
            }
            Err(status)
        }
        NamespaceState::Absent => {
            Err(Status::not_found(Subject { group: "", resource: "namespaces", name: namespace }))
        }
    }
}

/// The cluster itself lives in these.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub fn may_be_deleted(request: &Request) -> Result<(), Status> {
    if request.kind.kind == "Namespace" && IMMORTAL.contains(&request.name) {
        return Err(Status::forbidden(request.subject(), "this namespace may not be deleted"));
    }
    Ok(())
}
