//! Status, scale, eviction, finalize; superseded versions; reviews.

use http::Method;
use serde_json::{Value, json};

use super::{Server, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(api_version: &str) -> Value {
    json!({"apiVersion": api_version, "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = Server::start().await;
    let mut sent = deployment("apps/v1");
    sent["status"] = json!({"replicas": 9});
    let created = server.post(DEPLOYMENTS, sent).await;
    assert_eq!(created.code, 201, "{}", created.json);
    assert_eq!(created.json["status"].get("replicas"), None);
    assert_eq!(created.json["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/web");
    let patch = json!({"status": {"replicas": 2}, "spec": {"replicas": 7}});
    let status = server.merge(&format!("{path}/status"), patch).await;
    assert_eq!((&status.json["status"]["replicas"], &status.json["spec"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!(status.json["metadata"]["generation"], 1, "the spec is the same");
    let spec = server.merge(&path, json!({"status": {"replicas": 5}, "spec": {"replicas": 3}})).await;
    assert_eq!((&spec.json["status"]["replicas"], &spec.json["spec"]["replicas"]), (&json!(2), &json!(3)));
    assert_eq!(spec.json["metadata"]["generation"], 2);
}

#[tokio::test]
async fn replicas_are_set_through_scale() {
    let server = Server::start().await;
    server.post(DEPLOYMENTS, deployment("apps/v1")).await;
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scale = server.get(&path).await;
    assert_eq!((&scale.json["kind"], &scale.json["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let mut wanted = scale.json.clone();
    wanted["spec"]["replicas"] = json!(4);
    let set = server.put(&path, wanted.clone()).await;
    assert_eq!((set.code, &set.json["spec"]["replicas"]), (200, &json!(4)));
    assert_eq!(server.put(&path, wanted).await.reason(), (409, "Conflict"), "it names an older version");
    let patched = server.merge(&path, json!({"spec": {"replicas": 1}})).await;
    assert_eq!(patched.json["spec"]["replicas"], 1);
    assert_eq!(server.merge(&path, json!({"spec": {"replicas": -1}})).await.reason(), (422, "Invalid"));
    let refused = server.merge(&path, json!({"spec": {"replicas": "x"}})).await;
    assert_eq!(refused.reason(), (422, "Invalid"));
    assert_eq!(refused.json["details"]["causes"][0]["field"], "patch");
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/web")).await.json["spec"]["replicas"], 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_template_is_told_when_it_is_scaled() {
    let server = Server::start().await;
    let mut web = deployment("apps/v1");
    let port = json!({"containerPort": 80});
    web["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([port, port]);
    server.post(DEPLOYMENTS, web).await;
    let scaled = server.merge(&format!("{DEPLOYMENTS}/web/scale"), json!({"spec": {"replicas": 0}})).await;
    let warning = scaled.headers["warning"].to_str().unwrap();
    assert!(warning.contains("ports[1]: duplicate port definition"), "{warning}");
}

#[tokio::test]
async fn an_eviction_is_a_deletion() {
    let server = Server::start().await;
    server.post("/api/v1/namespaces/default/pods", pod("p")).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let path = "/api/v1/namespaces/default/pods/p";
    let mut dry = eviction.clone();
    dry["deleteOptions"] = json!({"dryRun": ["All"]});
    assert_eq!(server.post(&format!("{path}/eviction"), dry).await.code, 201);
    assert_eq!(server.get(path).await.code, 200);
    let other = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}});
    assert_eq!(server.post(&format!("{path}/eviction"), other).await.reason(), (400, "BadRequest"));
    assert_eq!(server.post(&format!("{path}/eviction"), eviction).await.code, 201);
    assert_eq!(server.get(path).await.code, 404);
}

#[tokio::test]
async fn a_budget_bounds_evictions() {
    const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let server = Server::start().await;
    let path = |name: &str| format!("/api/v1/namespaces/default/pods/{name}");
    for name in ["p", "q"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({"app": "a"});
        pod["spec"]["nodeName"] = json!("n");
        assert_eq!(server.post("/api/v1/namespaces/default/pods", pod).await.code, 201);
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"status": {"phase": "Running", "conditions": ready}});
        assert_eq!(server.merge(&format!("{}/status", path(name)), status).await.code, 200);
    }
    let budget = |name: &str| {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}})
    };
    assert_eq!(server.post(BUDGETS, budget("b")).await.code, 201);
    let evict = |name: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        (format!("{}/eviction", path(name)), eviction)
    };
    let (p, eviction) = evict("p");
    assert_eq!(server.post(&p, eviction.clone()).await.reason(), (429, "TooManyRequests"), "nobody saw the budget yet");
    let status = json!({"status": {"disruptionsAllowed": 1, "observedGeneration": 1, "desiredHealthy": 1,
        "currentHealthy": 2, "expectedPods": 2}});
    assert_eq!(server.merge(&format!("{BUDGETS}/b/status"), status).await.code, 200);
    assert_eq!(server.post(&format!("{p}?dryRun=All"), eviction.clone()).await.code, 201);
    assert_eq!(server.get(&format!("{BUDGETS}/b")).await.json["status"]["disruptionsAllowed"], 1, "a dry run");
    assert_eq!(server.post(&p, eviction).await.code, 201);
    let left = server.get(&format!("{BUDGETS}/b")).await.json["status"].clone();
    assert_eq!(left["disruptionsAllowed"], 0);
    assert!(left["disruptedPods"]["p"].is_string(), "{left}");
    let marked = server.get(&path("p")).await.json;
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    assert_eq!(marked["status"]["conditions"][1]["type"], "DisruptionTarget");
    let (q, eviction) = evict("q");
    assert_eq!(server.post(&q, eviction.clone()).await.reason(), (429, "TooManyRequests"));
    assert_eq!(server.post(BUDGETS, budget("c")).await.code, 201);
    assert_eq!(server.post(&q, eviction).await.code, 500, "two budgets");
}

#[tokio::test]
async fn parts_of_a_running_pod_change_through_their_subresources_alone() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/pods/p";
    assert_eq!(server.post("/api/v1/namespaces/default/pods", pod("p")).await.code, 201);
    let ephemeral = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}});
    assert_eq!(server.merge(path, ephemeral.clone()).await.reason(), (422, "Invalid"));
    let added = server.merge(&format!("{path}/ephemeralcontainers"), ephemeral).await;
    assert_eq!((added.code, &added.json["spec"]["ephemeralContainers"][0]["name"]), (200, &json!("debug")));
    assert_eq!(added.json["metadata"]["generation"], 2);
    let none = json!({"spec": {"ephemeralContainers": null}});
    let removed = server.merge(&format!("{path}/ephemeralcontainers"), none).await;
    assert_eq!(removed.reason(), (422, "Invalid"));
    let mut larger = server.get(path).await.json;
    larger["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    assert_eq!(server.put(path, larger.clone()).await.reason(), (422, "Invalid"));
    larger["spec"]["containers"][0]["resources"] = json!({});
    larger["spec"]["nodeName"] = json!("elsewhere");
    let resized = server.put(&format!("{path}/resize"), larger).await;
    assert_eq!((resized.code, &resized.json["spec"]["nodeName"]), (200, &serde_json::Value::Null), "{}", resized.json);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let server = Server::start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    server.post("/api/v1/namespaces", namespace).await;
    let deleted = server.delete("/api/v1/namespaces/n", json!({})).await;
    assert_eq!(deleted.json["status"]["phase"], "Terminating", "{}", deleted.json);
    let map = super::config_map("a", json!({}));
    let refused = server.post("/api/v1/namespaces/n/configmaps", map).await;
    assert_eq!(refused.reason(), (403, "Forbidden"));
    let mut finalized = deleted.json.clone();
    finalized["spec"]["finalizers"] = json!([]);
    assert_eq!(server.put("/api/v1/namespaces/n/finalize", finalized).await.code, 200);
    assert_eq!(server.get("/api/v1/namespaces/n").await.code, 404);
    assert_eq!(server.delete("/api/v1/namespaces/default", json!({})).await.reason(), (403, "Forbidden"));
    assert_eq!(server.delete("/api/v1/namespaces", json!({})).await.reason(), (405, "MethodNotAllowed"));
}

#[tokio::test]
async fn a_superseded_version_is_the_same_object_under_a_warning() {
    let server = Server::start().await;
    let old = "/apis/apps/v1beta2/namespaces/default/deployments";
    let created = server.post(old, deployment("apps/v1beta2")).await;
    assert_eq!((created.code, &created.json["apiVersion"]), (201, &json!("apps/v1beta2")), "{}", created.json);
    assert!(created.headers["warning"].to_str().unwrap().contains("use apps/v1 Deployment"));
    let current = server.get(&format!("{DEPLOYMENTS}/web")).await;
    assert_eq!((&current.json["apiVersion"], &current.json["spec"]["replicas"]), (&json!("apps/v1"), &json!(2)));
    assert_eq!(server.get(old).await.json["items"][0]["apiVersion"], "apps/v1beta2");
    let patched = server.merge(&format!("{old}/web"), json!({"spec": {"replicas": 10}})).await;
    assert_eq!((&patched.json["apiVersion"], &patched.json["spec"]["replicas"]), (&json!("apps/v1beta2"), &json!(10)));
}

#[tokio::test]
async fn a_request_that_reaches_a_kind_is_warned_of_its_age_though_its_options_cannot_be_read() {
    const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
    let server = Server::start().await;
    for option in ["limit=x", "labelSelector=a%3D%3D%3Db%3D", "timeoutSeconds=x"] {
        let refused = server.get(&format!("{ENDPOINTS}?{option}")).await;
        assert_eq!(refused.reason(), (400, "BadRequest"), "{option}");
        assert!(refused.headers["warning"].to_str().unwrap().contains("v1 Endpoints is deprecated"), "{option}");
    }
    let plain = [("content-type", "text/plain")];
    let refused = server.call(Method::PATCH, &format!("{ENDPOINTS}/e"), &plain, "x").await;
    assert_eq!((refused.code, refused.headers.get("warning")), (415, None));
    // What the options mean is not guessed: nothing is deleted.
    server.post(DEPLOYMENTS, deployment("apps/v1")).await;
    let refused = server.call(Method::DELETE, &format!("{DEPLOYMENTS}?labelSelector=%3D"), &[], "").await;
    assert_eq!(refused.code, 400);
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/web")).await.code, 200);
}

#[tokio::test]
async fn who_asks_is_told_who_they_are() {
    let server = Server::start().await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = server.post(path, review).await;
    assert_eq!(answer.json["status"]["userInfo"]["username"], "system:test", "{}", answer.json);
    assert_eq!(server.get(path).await.reason(), (405, "MethodNotAllowed"));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = server.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await;
    assert_eq!(answer.json["status"]["allowed"], true);
}

#[tokio::test]
async fn a_request_without_an_identity_is_refused() {
    let server = Server::start().await;
    let request = http::Request::builder().method(Method::GET).uri("/api/v1/pods");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let (parts, body) = request.into_parts();
    let info = crate::request::RequestInfo::of(&parts).unwrap();
    let response = crate::auth::gate::Handler::answer(&server.api, info, http::Request::from_parts(parts, body)).await;
    assert_eq!(response.status(), 401);
}

#[tokio::test]
async fn openapi_documents_are_sent_once() {
    let server = Server::start().await;
    let index = server.get("/openapi/v3").await;
    let url = index.json["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = server.get(url).await;
    assert_eq!(document.code, 200);
    let tag = document.headers["etag"].to_str().unwrap().to_owned();
    let again = server.call(Method::GET, url, &[("if-none-match", &tag)], "").await;
    assert_eq!((again.code, again.json), (304, Value::Null));
}
