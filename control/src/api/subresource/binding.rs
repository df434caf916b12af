//! `/binding` of a pod, and a Binding of its name: assign it to a node. A pod is bound only once.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Effect, Subresource, SubresourceKind};
use crate::{
    api::{
        Api, Status, Subject,
        request::{Call, body, target::Target},
        response, write,
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
    by_agent: false,
    any_path: false,
    handle: |api, call, body| Box::pin(create(api, call, body)),
};

async fn create(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let body::Decoded { value: binding, .. } =
        body::form(&FORM, &call.content_type, text, call.query.field_validation)?;
    let binding = write::admit_form(api, call, &FORM, binding).await?;
    bind(api, call, &binding).await
}

/// `POST` of a Binding to a namespace: it binds the pod that has its name.
pub async fn create_named(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let kind = &call.target.kind;
    let body::Decoded { value: mut binding, .. } =
        body::object(kind, &call.content_type, text, call.query.field_validation)?;
    let namespace = call.target.namespace.clone();
    let namespace = namespace.ok_or_else(|| Status::bad_request("namespace is required"))?;
    let metadata = write::metadata_of(&mut binding)?;
    let said = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !said.is_empty() && said != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata.insert("namespace".into(), namespace.as_str().into());
    let binding = write::admit_unstored(api, call, binding).await?;
    let pods = api.kinds().snapshot().by_path("", "v1", "pods");
    let name = binding["metadata"]["name"].as_str().map(str::to_owned);
    let target = Target {
        kind: pods.ok_or_else(|| Status::internal("pods are not served"))?,
        namespace: Some(namespace),
        name: Some(name.unwrap_or_default()),
        subresource: Some(&BINDING),
    };
    let (info, identity, manager) = (call.info.clone(), call.identity.clone(), call.manager.clone());
    bind(api, &Call { info, target, identity, accepted: call.accepted, manager }, &binding).await
}

async fn bind(api: &Api, call: &Call, binding: &Value) -> Result<Response, Status> {
    let place = api.place(&call.target)?;
    let name = call.target.name.as_deref().unwrap_or_default();
    let make = |old: &Value| bound(old, binding, &rfc3339::now(), place.subject(name));
    let change = write::ObjectUpdate { subresource: Some(&BINDING), make: &make };
    write::change(api, call, &place, change).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(response::json(StatusCode::CREATED, answer.to_string()))
}

/// The pod on the node that the binding names.
fn bound(pod: &Value, binding: &Value, now: &str, subject: Subject) -> Result<Value, Status> {
    let target = &binding["target"];
    let node = target["name"].as_str().unwrap_or_default();
    if node.is_empty() || !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
        return Err(Status::bad_request("target: a binding names a Node"));
    }
    let uid = binding["metadata"]["uid"].as_str().unwrap_or_default();
    let stored = pod["metadata"]["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != stored {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return Err(Status::conflict(subject, &why));
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        let why = format!("pod {} is being deleted, cannot be assigned to a host", subject.name);
        return Err(Status::conflict(subject, &why));
    }
    if let Some(already) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        let why = format!("pod {} is already assigned to node \"{already}\"", subject.name);
        return Err(Status::conflict(subject, &why));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        let why = format!("pod {} has non-empty .spec.schedulingGates", subject.name);
        return Err(Status::conflict(subject, &why));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = node.into();
    // Where the scheduler meant to place it says nothing any more.
    if let Some(status) = new["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
        new["metadata"]["annotations"][key] = value.clone();
    }
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let conditions = &mut new["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(condition);
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject = Subject { group: "", resource: "pods", name: "p" };

    #[test]
    fn a_pod_is_bound_once() {
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {}, "status": {"phase": "Pending"}});
        let binding = json!({"target": {"kind": "Node", "name": "n"}});
        let new = bound(&pod, &binding, "2024-01-01T00:00:00Z", SUBJECT).unwrap();
        assert_eq!(new["spec"]["nodeName"], "n");
        assert_eq!(new["status"]["conditions"][0]["type"], "PodScheduled");
        assert_eq!(bound(&new, &binding, "", SUBJECT).unwrap_err().code, 409);
        assert_eq!(bound(&pod, &json!({"target": {}}), "", SUBJECT).unwrap_err().code, 400);
        let gated = json!({"spec": {"schedulingGates": [{"name": "g"}]}});
        assert_eq!(bound(&gated, &binding, "", SUBJECT).unwrap_err().code, 409);
        let nominated = json!({"status": {"phase": "Pending", "nominatedNodeName": "m"}});
        assert!(bound(&nominated, &binding, "", SUBJECT).unwrap()["status"]["nominatedNodeName"].is_null());
        let other = json!({"metadata": {"uid": "v"}, "target": {"name": "n"}});
        assert_eq!(bound(&pod, &other, "", SUBJECT).unwrap_err().code, 409);
    }
}
