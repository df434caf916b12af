//! What clients see of how Go holds objects: empty lists, shared maps, points in time that nobody set.

use http::{Method, header};
use serde_json::{Value, json};

use super::{Answer, Server, pod};

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

impl Server {
    async fn json_patch(&self, path: &str, operations: Value) -> Answer {
        let json_patch = [(header::CONTENT_TYPE.as_str(), "application/json-patch+json")];
        self.call(Method::PATCH, path, &json_patch, operations.to_string()).await
    }
}

#[tokio::test]
async fn an_empty_list_is_a_change_and_is_not_stored() {
    let server = Server::start().await;
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
    let created = server.post(POLICIES, policy).await;
    assert_eq!((created.code, &created.json["metadata"]["generation"]), (201, &json!(1)), "{}", created.json);
    let path = format!("{POLICIES}/p");
    let mut same = created.json.clone();
    assert_eq!(server.put(&path, same.clone()).await.json["metadata"]["generation"], 1);
    same["spec"]["ingress"] = json!([]);
    let changed = server.put(&path, same).await.json;
    assert_eq!((&changed["metadata"]["generation"], changed["spec"].get("ingress")), (&json!(2), None), "{changed}");

    let hook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://example.com"}});
    let hooks = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "h"}, "webhooks": [hook]});
    let mut hooks = server.post(HOOKS, hooks).await.json;
    hooks["webhooks"][0]["objectSelector"] = json!({"matchExpressions": []});
    let changed = server.put(&format!("{HOOKS}/h?dryRun=All"), hooks).await.json;
    assert_eq!(changed["metadata"]["generation"], 2, "{changed}");
    assert_eq!(changed["webhooks"][0]["objectSelector"], json!({}));
}

#[tokio::test]
async fn a_refusal_tells_an_empty_list_from_none() {
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let server = Server::start().await;
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "r"},
        "spec": {"cidrs": ["10.200.0.0/24"]}});
    let created = server.post(RANGES, range).await;
    assert_eq!(created.code, 201, "{}", created.json);
    for (spec, shown) in [(json!({"cidrs": []}), "[]"), (json!({}), "null")] {
        let mut changed = created.json.clone();
        changed["spec"] = spec;
        let refused = server.put(&format!("{RANGES}/r"), changed).await;
        assert!(
            refused.message().ends_with(&format!("spec.cidrs: Invalid value: {shown}: field is immutable")),
            "{}",
            refused.json
        );
    }
    let claim = json!({"devices": {"requests": [{"name": "g", "exactly": {"deviceClassName": "g"}}]}});
    let template = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "t"},
        "spec": {"metadata": {"labels": {"a": "b"}, "finalizers": []}, "spec": claim}});
    let refused = server.post("/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates", template).await;
    assert_eq!(refused.code, 422, "{}", refused.json);
    assert!(refused.message().ends_with("is invalid: spec.metadata.finalizers: Forbidden: cannot be set"));
}

#[tokio::test]
async fn what_may_not_change_may_not_be_sent_empty() {
    const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let server = Server::start().await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "c"},
        "provisioner": "example.com/disk"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "immutable": true});
    for (path, name, object, field, why) in [
        (CLASSES, "c", class, "parameters", "parameters: Forbidden: updates to parameters are forbidden."),
        (MAPS, "m", map, "data", "data: Forbidden: field is immutable when `immutable` is set"),
    ] {
        let created = server.post(path, object).await;
        assert_eq!(created.code, 201, "{}", created.json);
        let path = format!("{path}/{name}");
        let mut changed = created.json.clone();
        changed[field] = json!({});
        for refused in [server.put(&path, changed).await, server.merge(&path, json!({field: {}})).await] {
            assert_eq!(refused.code, 422, "{}", refused.json);
            assert!(refused.message().ends_with(&format!("is invalid: {why}")), "{}", refused.json);
        }
        assert_eq!(server.put(&path, created.json).await.code, 200, "the same object");
    }
}

#[tokio::test]
async fn an_ephemeral_container_may_not_have_even_empty_ports() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut sent = server.post(pods, pod("p")).await.json;
    sent["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i", "ports": []}]);
    let path = format!("{pods}/p/ephemeralcontainers?dryRun=All");
    let refused = server.put(&path, sent.clone()).await;
    let why = "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container";
    assert!(refused.message().ends_with(why), "{}", refused.json);
    sent["spec"]["ephemeralContainers"][0]["ports"] = Value::Null;
    assert_eq!(server.put(&path, sent).await.code, 200);
}

#[tokio::test]
async fn a_job_without_labels_has_one_map_with_its_template() {
    let server = Server::start().await;
    let job = |name: &str, labels: Value| {
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels},
            "spec": {"template": {"metadata": {"labels": {"app": "a"}}, "spec": spec}}})
    };
    let shared = server.post(JOBS, job("shared", json!({}))).await.json;
    let labels = &shared["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["app"], &labels["job-name"]), (&json!("a"), &json!("shared")), "{shared}");
    assert_eq!(&shared["metadata"]["labels"], labels);
    let apart = server.post(JOBS, job("apart", json!({"app": "a"}))).await.json;
    assert_eq!(apart["metadata"]["labels"], json!({"app": "a"}), "{apart}");
}

#[tokio::test]
async fn a_condition_without_a_time_has_a_null() {
    let server = Server::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}]}});
    assert_eq!(server.post(services, service).await.code, 201);
    let condition = json!({"type": "A", "status": "True", "reason": "R", "message": "", "lastTransitionTime": null});
    let status = json!({"status": {"conditions": [condition]}});
    let written = server.merge(&format!("{services}/s/status"), status).await;
    assert_eq!(written.code, 200, "{}", written.json);
    let read = server.get(&format!("{services}/s")).await.json;
    assert_eq!(read["status"]["conditions"][0], condition);
}

#[tokio::test]
async fn a_resize_owns_what_it_sent_although_it_changes_nothing() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/pods/p";
    let mut created = pod("p");
    created["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
    let mut sent = server.post("/api/v1/namespaces/default/pods", created).await.json;
    sent["spec"]["containers"][0]["env"][0]["value"] = json!("2");
    let resized = server.put(&format!("{path}/resize?fieldManager=resizer"), sent).await.json;
    assert_eq!(resized["spec"]["containers"][0]["env"][0]["value"], "1", "{resized}");
    let mut entries = resized["metadata"]["managedFields"].as_array().unwrap().iter();
    let entry = entries.find(|entry| entry["manager"] == "resizer").unwrap();
    assert_eq!((&entry["operation"], &entry["subresource"]), (&json!("Update"), &json!("resize")));
    let env = json!({"f:env": {"k:{\"name\":\"A\"}": {"f:value": {}}}});
    assert_eq!(entry["fieldsV1"], json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": env}}}));
}

#[tokio::test]
async fn what_is_not_there_is_copied_as_null() {
    let server = Server::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    assert_eq!(server.post(maps, map).await.code, 201);
    let copy = json!([{"op": "copy", "from": "/metadata/labels", "path": "/metadata/annotations"}]);
    let copied = server.json_patch(&format!("{maps}/m"), copy).await;
    assert_eq!((copied.code, copied.json["metadata"].get("annotations")), (200, None), "{}", copied.json);
}
