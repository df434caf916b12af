//! `/binding` of a pod, and a Binding of its name: assign it to a node. A pod is bound only once.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Effect, Responder, Subresource, SubresourceKind};
use crate::{
    api::{
        Api, Status, Subject,
        request::{Call, body, target::RequestTarget},
        response, write,
    },
    kinds::{
        FieldError,
        reading::{items, text},
    },
    rfc3339,
};

const FORM: SubresourceKind =
    SubresourceKind { group: "", version: "v1", kind: "Binding", schema: "io.k8s.api.core.v1.Binding" };

/// The declaration of this subresource.
pub static BINDING: Subresource = Subresource {
    segment: "binding",
    verbs: &["create"],
    form: Some(FORM),
    effect: Effect::SetImmutable,
    form_is_admitted: true,
    post_form: Some(|api, call, body| Box::pin(create_named(api, call, body))),
    responder: Responder::Api(|api, call, body| Box::pin(create(api, call, body))),
    ..Subresource::PLAIN
};

async fn create(api: &Api, call: &Call, given: &[u8]) -> Result<Response, Status> {
    let body::Decoded { value: mut binding, .. } =
        body::form(&FORM, &call.content_type, given, call.query.field_validation)?;
    in_namespace(&mut binding, call.target.namespace.as_deref().unwrap_or_default())?;
    let binding = write::admit_form(api, call, &FORM, binding).await?;
    bind(api, call, &binding).await
}

/// `POST` of a Binding to a namespace: it binds the pod that has its name. As in Kubernetes it is an object that is
/// created, which has no UID yet: only a Binding to `pods/NAME/binding` binds the pod of its own UID alone.
async fn create_named(api: &Api, call: &Call, given: &[u8]) -> Result<Response, Status> {
    let kind = &call.target.kind;
    let body::Decoded { value: mut binding, .. } =
        body::object(kind, &call.content_type, given, call.query.field_validation)?;
    let namespace = call.target.namespace.clone();
    let namespace = namespace.ok_or_else(|| Status::bad_request("namespace is required"))?;
    write::wipe_metadata(write::metadata_of(&mut binding)?);
    in_namespace(&mut binding, &namespace)?;
    let binding = write::admit_unstored(api, call, binding).await?;
    let pods = api.kinds().snapshot().by_path("", "v1", "pods");
    let name = binding["metadata"]["name"].as_str().map(str::to_owned);
    let target = RequestTarget {
        kind: pods.ok_or_else(|| Status::internal("pods are not served"))?,
        namespace: Some(namespace),
        name: Some(name.unwrap_or_default()),
        subresource: Some(&BINDING),
    };
    let (info, identity, manager) = (call.info.clone(), call.identity.clone(), call.manager.clone());
    bind(api, &Call { info, target, identity, accepted: call.accepted, manager }, &binding).await
}

/// A Binding is in the namespace of its path, and of no other.
fn in_namespace(binding: &mut Value, namespace: &str) -> Result<(), Status> {
    let metadata = write::metadata_of(binding)?;
    let said = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !said.is_empty() && said != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata.insert("namespace".into(), namespace.into());
    Ok(())
}

async fn bind(api: &Api, call: &Call, binding: &Value) -> Result<Response, Status> {
    let place = api.place(&call.target)?;
    let name = call.target.name.as_deref().unwrap_or_default();
    must_be_valid(binding, name)?;
    let make = |old: &Value| bound(old, binding, &rfc3339::now(), name).map(write::Made::from);
    let change = write::ObjectUpdate { subresource: Some(&BINDING), make: &make };
    write::change(api, call, &place, change).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(response::json(StatusCode::CREATED, answer.to_string()))
}

/// A Binding names the pod of its path, and a Node.
fn must_be_valid(binding: &Value, pod: &str) -> Result<(), Status> {
    super::must_name_the_object(&FORM, binding, pod)?;
    let target = &binding["target"];
    let mut errors = Vec::new();
    if !matches!(text(target, "kind"), "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", &target["kind"], &["Node", "<empty>"]));
    }
    if text(target, "name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    let words: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
    match &words[..] {
        [] => Ok(()),
        [one] => Err(Status::bad_request(one.clone())),
        more => Err(Status::bad_request(format!("[{}]", more.join(", ")))),
    }
}

/// The pod on the node that the binding names.
fn bound(pod: &Value, binding: &Value, now: &str, name: &str) -> Result<Value, Status> {
    for (field, of_binding) in [("UID", "uid"), ("ResourceVersion", "resourceVersion")] {
        let (wanted, stored) = (text(&binding["metadata"], of_binding), text(&pod["metadata"], of_binding));
        if !wanted.is_empty() && wanted != stored {
            let why =
                format!("Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {stored}");
            return Err(Status::conflict(Subject { group: "", resource: "pods", name }, &why));
        }
    }
    let node = text(&pod["spec"], "nodeName");
    let why = if pod["metadata"]["deletionTimestamp"].is_string() {
        format!("pod {name} is being deleted, cannot be assigned to a host")
    } else if !node.is_empty() {
        format!("pod {name} is already assigned to node {node:?}")
    } else if items(&pod["spec"]["schedulingGates"]).next().is_some() {
        format!("pod {name} has non-empty .spec.schedulingGates")
    } else {
        return Ok(on_node(pod, binding, now));
    };
    Err(Status::conflict(Subject { group: "", resource: "pods/binding", name }, &why))
}

fn on_node(pod: &Value, binding: &Value, now: &str) -> Value {
    const TYPE: &str = "PodScheduled";
    let mut new = pod.clone();
    new["spec"]["nodeName"] = binding["target"]["name"].clone();
    for map in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][map].as_object().into_iter().flatten() {
            new["metadata"][map][key] = value.clone();
        }
    }
    if let Some(status) = new["status"].as_object_mut() {
        // It was a hint to other programs, which would now be wrong.
        status.shift_remove("nominatedNodeName");
    }
    let known = items(&pod["status"]["conditions"]).find(|known| known["type"] == TYPE);
    let since = known.filter(|known| known["status"] == "True").map(|known| known["lastTransitionTime"].clone());
    let condition = json!({"type": TYPE, "status": "True", "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| now.into())});
    let conditions = &mut new["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        match conditions.iter_mut().find(|known| known["type"] == TYPE) {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Value {
        json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}})
    }

    #[test]
    fn a_pod_is_bound_once() {
        let pod = json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "4", "labels": {"a": "1"}},
            "spec": {}, "status": {"phase": "Pending", "nominatedNodeName": "n", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}, {"type": "Other"}]}});
        let mut labelled = binding();
        labelled["metadata"]["labels"] = json!({"zone": "z"});
        let new = bound(&pod, &labelled, "2024-01-01T00:00:00Z", "p").unwrap();
        assert_eq!(new["spec"]["nodeName"], "n");
        assert_eq!(new["metadata"]["labels"], json!({"a": "1", "zone": "z"}));
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": "2024-01-01T00:00:00Z"});
        assert_eq!(new["status"], json!({"phase": "Pending", "conditions": [scheduled, {"type": "Other"}]}));
        let refused = |pod: &Value, binding: Value| bound(pod, &binding, "", "p").unwrap_err().message;
        let on = "Operation cannot be fulfilled on pods";
        let words = format!("{on}/binding \"p\": pod p is already assigned to node \"n\"");
        assert_eq!(refused(&new, binding()), words);
        let gated = json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}});
        let words = format!("{on}/binding \"p\": pod p has non-empty .spec.schedulingGates");
        assert_eq!(refused(&gated, binding()), words);
        for (field, name, stored) in [("uid", "UID", "u"), ("resourceVersion", "ResourceVersion", "4")] {
            let mut other = binding();
            other["metadata"][field] = "9".into();
            let words = format!("{on} \"p\": Precondition failed: {name} in precondition: 9, {name} in object meta: ");
            assert_eq!(refused(&pod, other), words + stored);
        }
    }

    #[test]
    fn a_binding_names_its_pod_and_a_node() {
        assert!(must_be_valid(&binding(), "p").is_ok());
        assert!(must_be_valid(&json!({"metadata": {"name": "p"}, "target": {"name": "n"}}), "p").is_ok());
        let unnamed = "name in URL does not match name in Binding object";
        for (binding, words) in [
            (json!({"metadata": {"name": "other"}, "target": {"name": "n"}}), unnamed),
            (json!({"target": {"name": "n"}}), unnamed),
            (json!({"metadata": {"name": "p"}, "target": {"kind": "Node"}}), "target.name: Required value"),
            (
                json!({"metadata": {"name": "p"}, "target": {"kind": "X"}}),
                "[target.kind: Unsupported value: \"X\": supported values: \"Node\", \"<empty>\", target.name: \
                 Required value]",
            ),
        ] {
            let refused = must_be_valid(&binding, "p").unwrap_err();
            assert_eq!((refused.code, &*refused.message), (400, words), "{binding}");
        }
    }
}
