//! `/eviction` of a pod: a deletion that a PodDisruptionBudget may refuse. What the budget loses by it and the deletion
//! are one transaction.

mod budget;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Responder, Subresource, SubresourceKind};
use crate::{
    api::{
        Api, Status, Subject,
        request::{Call, body},
        response,
        write::{self, Alongside, DeleteOptions},
    },
    encode,
    kinds::{
        Kind, label_selector,
        reading::{items, text},
    },
    rfc3339,
    store::{Change, Expect, Key, Object, Snapshot, Write},
};

const FORM: SubresourceKind =
    SubresourceKind { group: "policy", version: "v1", kind: "Eviction", schema: "io.k8s.api.policy.v1.Eviction" };

/// The declaration of this subresource.
pub static EVICTION: Subresource = Subresource {
    segment: "eviction",
    verbs: &["create"],
    form: Some(FORM),
    responder: Responder::Api(|api, call, body| Box::pin(create(api, call, body))),
    ..Subresource::PLAIN
};

async fn create(api: &Api, call: &Call, given: &[u8]) -> Result<Response, Status> {
    let body::Decoded { value: eviction, .. } =
        body::form(&FORM, &call.content_type, given, call.query.field_validation)?;
    let name = call.target.name.as_deref().unwrap_or_default();
    super::must_name_the_object(&FORM, &eviction, name)?;
    let eviction = write::admit_form(api, call, &FORM, eviction).await?;
    // Policies and webhooks may have changed it.
    super::must_name_the_object(&FORM, &eviction, name)?;
    let mut options = DeleteOptions::read(&eviction["deleteOptions"], None, None, None)?;
    options.dry_run |= call.query.dry_run;
    let budgets = api.kinds().snapshot().by_path("policy", "v1", "poddisruptionbudgets");
    let budgets = budgets.ok_or_else(|| Status::internal("PodDisruptionBudgets are not served"))?;
    let decide = |snapshot: &Snapshot, object: &Object, pod: &Value| {
        if let Some(node) = call.identity.node() {
            may_evict(node, name, pod)?;
        }
        let change = disrupted(&budgets, snapshot, object.header().namespace(), pod, &rfc3339::now())?;
        Ok(Alongside { mark: Some(mark_disrupted), writes: change.into_iter().collect(), is_admitted: true })
    };
    write::remove_with(api, call, &options, &decide).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(response::json(StatusCode::CREATED, answer.to_string()))
}

/// The agent of a node evicts its own pods alone. Source: NodeRestriction's `admitPodEviction`.
fn may_evict(node: &str, name: &str, pod: &Value) -> Result<(), Status> {
    if pod["spec"]["nodeName"] == *node {
        return Ok(());
    }
    let why = format!("node {node} can only evict pods with spec.nodeName set to itself");
    Err(Status::forbidden(Subject { group: "", resource: "pods", name }, &why))
}

/// What becomes of the budget of a pod that is evicted. Nothing, where it has none or is not counted by it.
fn disrupted(
    budgets: &Kind,
    snapshot: &Snapshot,
    namespace: &str,
    pod: &Value,
    now: &str,
) -> Result<Option<Write>, Status> {
    if is_over(pod) {
        return Ok(None);
    }
    let resource = budgets.resource();
    let prefix = format!("{namespace}/");
    let mut found: Option<(&Object, Value)> = None;
    for (_, object) in snapshot.list(&resource, &prefix, None) {
        let budget = write::parse(object)?;
        if !selects(&budget["spec"]["selector"], &pod["metadata"]["labels"]) {
            continue;
        }
        if found.is_some() {
            return Err(budget::several());
        }
        found = Some((object, budget));
    }
    let Some((object, budget)) = found else { return Ok(None) };
    let Some(changed) = budget::decremented(&budget, pod, now)? else { return Ok(None) };
    let key = Key { resource: resource.into(), name: format!("{namespace}/{}", object.header().name()).into() };
    let change = Change::Put(encode::managed_draft(budgets, &changed, &object.managers()));
    Ok(Some(Write { key, expect: Expect::At(object.revision), change }))
}

/// Whether the pod has already ceased to serve, or never began to.
fn is_over(pod: &Value) -> bool {
    matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed" | "Pending")
        || pod["metadata"]["deletionTimestamp"].is_string()
}

/// No selector selects no pod; an empty one selects all.
fn selects(selector: &Value, labels: &Value) -> bool {
    !selector.is_null() && label_selector::selects(selector, labels)
}

/// Says, in the status of a pod that stays until its containers have ended, why they end.
fn mark_disrupted(pod: &mut Value) {
    const TYPE: &str = "DisruptionTarget";
    let known = items(&pod["status"]["conditions"]).find(|known| known["type"] == TYPE);
    let since = known.filter(|known| known["status"] == "True").map(|known| known["lastTransitionTime"].clone());
    let condition = json!({"type": TYPE, "status": "True", "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| rfc3339::now().into()),
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|known| known["type"] != TYPE);
        conditions.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_without_a_selector_guards_no_pod() {
        let labels = json!({"app": "a"});
        assert!(!selects(&Value::Null, &labels));
        assert!(selects(&json!({}), &labels));
        assert!(selects(&json!({"matchLabels": {"app": "a"}}), &labels));
        assert!(!selects(&json!({"matchLabels": {"app": "b"}}), &labels));
    }

    #[test]
    fn a_node_evicts_its_own_pods_alone() {
        let pod = json!({"spec": {"nodeName": "n1"}});
        assert!(may_evict("n1", "p", &pod).is_ok());
        for pod in [json!({"spec": {"nodeName": "n2"}}), json!({"spec": {}})] {
            let refused = may_evict("n1", "p", &pod).unwrap_err();
            let words = "pods \"p\" is forbidden: node n1 can only evict pods with spec.nodeName set to itself";
            assert_eq!((refused.code, &*refused.message), (403, words));
        }
    }

    #[test]
    fn an_evicted_pod_tells_why_it_ends() {
        let mut pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        mark_disrupted(&mut pod);
        mark_disrupted(&mut pod);
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 2);
        assert_eq!((&conditions[1]["type"], &conditions[1]["status"]), (&json!("DisruptionTarget"), &json!("True")));
    }
}
