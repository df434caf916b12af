//! What admission and superseded kinds note in events.

use serde_json::{Value, json};

use super::{events, options};
use crate::{
    api::tests::{
        Server, config_map, pod,
        webhooks::{hook, hooks, patch},
    },
    audit::Audit,
};

/// Has requests to `server` audited at the level `Request`.
async fn audited(server: &Server, dir: &std::path::Path) {
    let rules = "- {level: Request, omitStages: [RequestReceived]}\n";
    server.api.audit_through(Audit::start(&options(dir, rules)).await.unwrap().unwrap());
}

/// The annotations of the last event, but for those of authorisation.
fn notes(dir: &std::path::Path) -> Value {
    let mut event = events(dir).pop().unwrap();
    let notes = event["annotations"].as_object_mut().unwrap();
    notes.retain(|key, _| !key.starts_with("authorization.") && !key.starts_with("apiserver.latency."));
    event["annotations"].take()
}

#[tokio::test]
async fn pod_security_and_superseded_kinds_are_noted() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    audited(&server, dir.path()).await;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}});
    assert_eq!(server.post("/api/v1/namespaces", namespace).await.code, 201);
    server.add_account("strict").await;
    assert_eq!(server.post("/api/v1/namespaces/strict/pods", pod("p")).await.code, 201);
    let noted = notes(dir.path());
    assert_eq!(noted["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let violations = noted["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
    assert!(violations.starts_with("would violate PodSecurity \"restricted:latest\": "), "{violations}");

    let deployments = "/apis/extensions/v1beta1/namespaces/default/deployments";
    assert_eq!(server.get(deployments).await.code, 200);
    assert_eq!(notes(dir.path()), json!({"k8s.io/deprecated": "true", "k8s.io/removed-release": "1.16"}));
}

#[tokio::test]
async fn policies_note_what_they_are_to_note() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["configmaps"]}]},
        "validations": [{"expression": "true"}, {"expression": "object.metadata.name != 'a'", "message": "not a"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "object.metadata.name"}]}});
    let binding =
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Audit", "Warn"]}});
    for (plural, object) in [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)] {
        let made = server.post(&format!("{group}/{plural}"), object).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }
    audited(&server, dir.path()).await;
    assert_eq!(server.post("/api/v1/namespaces/default/configmaps", config_map("a", json!({}))).await.code, 201);
    let noted = notes(dir.path());
    assert_eq!(noted["p/name"], "a");
    let failure = noted["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap();
    let expected = json!([{"message": "not a", "policy": "p", "binding": "b", "expressionIndex": 1,
        "validationActions": ["Audit", "Warn"]}]);
    assert_eq!(serde_json::from_str::<Value>(failure).unwrap(), expected);
}

#[tokio::test]
async fn webhooks_note_what_they_change_and_where_they_fail_open() {
    let (server, webhook) = hooks(|path, _| match path {
        "/change" => {
            let mut answer = patch(json!([{"op": "add", "path": "/data/x", "value": "y"}]));
            answer["auditAnnotations"] = json!({"seen": "yes"});
            answer
        }
        "/fail" => json!({"uid": "another", "allowed": true}),
        _ => json!({"allowed": true}),
    })
    .await;
    let ignored = json!({"failurePolicy": "Ignore"});
    let mutating = vec![hook(&webhook, "/look", json!({})), hook(&webhook, "/change", json!({}))];
    for (kind, all) in [("Mutating", mutating), ("Validating", vec![hook(&webhook, "/fail", ignored)])] {
        assert_eq!(server.configure(kind, "c", all).await.code, 201);
    }
    let dir = tempfile::tempdir().unwrap();
    audited(&server, dir.path()).await;
    assert_eq!(server.post("/api/v1/namespaces/default/configmaps", config_map("a", json!({}))).await.code, 201);
    let noted = notes(dir.path());
    let parsed = |key: &str| serde_json::from_str::<Value>(noted[key].as_str().unwrap()).unwrap();
    let of = |name: &str, mutated: bool| json!({"configuration": "c", "webhook": format!("{name}.example.com"), "mutated": mutated});
    assert_eq!(parsed("mutation.webhook.admission.k8s.io/round_0_index_0"), of("look", false));
    assert_eq!(parsed("mutation.webhook.admission.k8s.io/round_0_index_1"), of("change", true));
    let patch = json!({"configuration": "c", "webhook": "change.example.com", "patchType": "JSONPatch",
        "patch": [{"op": "add", "path": "/data/x", "value": "y"}]});
    assert_eq!(parsed("patch.webhook.admission.k8s.io/round_0_index_1"), patch);
    assert_eq!(noted["change.example.com/seen"], "yes");
    assert_eq!(noted["failed-open.validating.webhook.admission.k8s.io/round_0_index_0"], "fail.example.com");
    assert_eq!(noted.as_object().unwrap().len(), 5);
}
