//! Objects that a `PUT` creates, as the real kube-apiserver creates them: of a few kinds, and by no subresource.

use serde_json::{Value, json};

use super::{Server, config_map};
use crate::kinds::Kinds;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

fn lease(name: &str, changes: Value) -> Value {
    let mut lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": "h", "leaseDurationSeconds": 5}});
    for (field, value) in changes.as_object().unwrap() {
        lease["metadata"][field] = value.clone();
    }
    lease
}

#[test]
fn the_kinds_that_an_update_creates_are_those_of_kubernetes() {
    let kinds = Kinds::built_in();
    let mut created: Vec<String> = kinds
        .iter()
        .filter(|kind| kind.stored().is_some_and(|stored| stored.creates_on_update))
        .map(|kind| kind.resource())
        .collect();
    created.sort();
    created.dedup();
    let rbac = ["clusterrolebindings", "clusterroles", "rolebindings", "roles"];
    let mut expected: Vec<String> = rbac.iter().map(|plural| format!("{plural}.rbac.authorization.k8s.io")).collect();
    let others = ["endpoints", "events", "events.events.k8s.io", "leases.coordination.k8s.io", "limitranges"];
    expected.extend(others.into_iter().chain(["runtimeclasses.node.k8s.io", "services"]).map(str::to_owned));
    expected.sort();
    assert_eq!(created, expected);
}

#[tokio::test]
async fn a_put_creates_what_is_not_there_and_changes_what_is() {
    let server = Server::start().await;
    let path = format!("{LEASES}/l");
    let created = server.put(&path, lease("l", json!({"resourceVersion": "5", "generateName": "x-"}))).await;
    assert_eq!((created.code, created.name()), (201, "l"), "{}", created.text);
    let metadata = &created.json["metadata"];
    assert!(metadata["uid"].is_string() && metadata["creationTimestamp"].is_string(), "{metadata}");
    assert_ne!(metadata["resourceVersion"], "5", "which says nothing of what is not there");
    assert_eq!((&metadata["namespace"], &metadata["generateName"]), (&json!("default"), &json!("x-")));
    assert_eq!(metadata["managedFields"][0]["operation"], "Update");
    let mut changed = created.json.clone();
    changed["spec"]["holderIdentity"] = json!("other");
    let updated = server.put(&path, changed).await;
    assert_eq!((updated.code, &updated.json["metadata"]["uid"]), (200, &metadata["uid"]), "{}", updated.text);

    let event = json!({"metadata": {"name": "e"}, "regarding": {"namespace": "default", "name": "p", "kind": "Pod"},
        "eventTime": "2024-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "i",
        "action": "A", "reason": "R", "type": "Normal"});
    let event = server.put("/apis/events.k8s.io/v1/namespaces/default/events/e", event).await;
    assert_eq!((event.code, &event.json["apiVersion"]), (201, &json!("events.k8s.io/v1")), "{}", event.text);
}

#[tokio::test]
async fn what_a_put_creates_has_all_that_a_new_object_gets() {
    let server = Server::start().await;
    let service = json!({"metadata": {"name": "web", "deletionTimestamp": "2020-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 5, "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"ports": [{"port": 80}]}});
    let created = server.put(&format!("{SERVICES}/web"), service).await;
    let address = created.json["spec"]["clusterIP"].as_str().unwrap_or_default();
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(server.get(&format!("/apis/networking.k8s.io/v1/ipaddresses/{address}")).await.code, 200);
    let metadata = &created.json["metadata"];
    assert!(metadata.get("deletionTimestamp").is_none() && metadata["creationTimestamp"] != "2020-01-01T00:00:00Z");

    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [
        {"apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["leases"]}]}, "validations": [{"expression": "false",
        "messageExpression": "request.operation + ', ' + (oldObject == null ? 'new' : 'known')"}]}});
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    for (plural, object) in [("policies", policy), ("policybindings", binding)] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/validatingadmission{plural}");
        let made = server.post(&path, object).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }
    let denied = server.put(&format!("{LEASES}/l"), lease("l", json!({}))).await;
    assert!(denied.code == 422 && denied.message().ends_with("CREATE, new"), "{}", denied.text);
}

#[tokio::test]
async fn what_cannot_be_created_by_a_put_is_refused_as_in_kubernetes() {
    let server = Server::start().await;
    let path = format!("{LEASES}/l");
    let uid = json!({"uid": "5f0e1d2c-0000-4000-8000-000000000000"});
    let mut invalid = lease("l", json!({}));
    invalid["spec"]["leaseDurationSeconds"] = json!(-5);
    let elsewhere = path.replace("default", "none");
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    for (path, object, expected) in [
        ("/api/v1/namespaces/default/configmaps/a", config_map("a", json!({})), (404, "configmaps \"a\" not found")),
        (&path, invalid, (422, "spec.leaseDurationSeconds: Invalid value: -5: must be greater than 0")),
        (&path, lease("l", uid.clone()), (409, "Precondition failed: UID in precondition: ")),
        (&format!("{path}?dryRun=All"), lease("l", uid), (409, "Precondition failed: UID in precondition: ")),
        (&path, lease("m", json!({})), (400, "the name of the object (m) does not match the name on the URL (l)")),
        (&path, lease("", json!({"generateName": "l"})), (400, "name must be provided")),
        (&elsewhere, lease("l", json!({})), (404, "namespaces \"none\" not found")),
        (&format!("{SERVICES}/s/status"), service, (404, "services \"s\" not found")),
        ("/api/v1/namespaces/default/configmaps/a", config_map("b", json!({})), (400, "does not match the name on")),
    ] {
        let refused = server.put(path, object).await;
        assert!(refused.code == expected.0 && refused.message().contains(expected.1), "{path}: {}", refused.text);
    }
    let dry = server.put(&format!("{path}?dryRun=All"), lease("l", json!({"resourceVersion": "5"}))).await;
    assert_eq!((dry.code, dry.name()), (201, "l"), "{}", dry.text);
    assert!(dry.json["metadata"]["uid"].is_string() && dry.json["metadata"].get("resourceVersion").is_none());
    assert_eq!(server.get(&path).await.code, 404, "a dry run");
}

#[tokio::test]
async fn of_many_puts_at_once_one_creates_and_the_others_change() {
    let server = Server::start().await;
    let path = format!("{SERVICES}/s");
    let put = |port: u16| {
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": port}]}});
        server.put(&path, service)
    };
    let answers = futures::future::join_all((1..=8).map(put)).await;
    let mut codes: Vec<u16> = answers.iter().map(|answer| answer.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 200, 200, 200, 200, 200, 200, 201]);
}
