//! What changes while a mutating webhook is asked: the object is judged by what there is afterwards.

use std::sync::Arc;

use http::{Method, Request};
use serde_json::{Value, json};

use super::{PODS, hook, rule};
use crate::{
    api::tests::{Answer, Server, pod},
    identity::Identity,
    webhook::tests::{Answering, TestServer},
};

/// What a pod's creation is answered, during which `method` sends `body` to `path`.
async fn create_pod_during(method: Method, path: &'static str, body: Value) -> Answer {
    let server = Server::start().await;
    // It is not in force before its status says so.
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}});
    assert_eq!(server.post("/api/v1/namespaces/default/resourcequotas", quota).await.code, 201);
    let api = server.api.clone();
    let answering: Answering = Arc::new(move |_, review| {
        let (api, method, body) = (api.clone(), method.clone(), body.to_string());
        Box::pin(async move {
            let request = Request::builder().method(method).uri(path);
            let request = request.header("content-type", "application/merge-patch+json").body(body.into()).unwrap();
            let answer = api.answer_as(Identity::control("meanwhile"), request).await;
            assert!(answer.status().is_success(), "{}", answer.status());
            let response = json!({"allowed": true, "uid": review["request"]["uid"]});
            (200, json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response}))
        })
    });
    let webhook = TestServer::start(&["localhost"], answering).await;
    let pods = json!({"rules": [rule(json!(["CREATE"]), "", "v1", json!(["pods"]))]});
    server.configured("Mutating", "m", vec![hook(&webhook, "/m", pods)]).await;
    server.post(PODS, pod("p")).await
}

#[tokio::test]
async fn a_pod_is_held_against_the_level_that_its_namespace_has_by_then() {
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let answer = create_pod_during(Method::PATCH, "/api/v1/namespaces/default", labels).await;
    assert_eq!(answer.reason(), (403, "Forbidden"));
    assert!(answer.message().contains("violates PodSecurity \"restricted:latest\""), "{}", answer.message());
}

#[tokio::test]
async fn a_pod_is_charged_to_the_quotas_that_are_in_force_by_then() {
    let status = json!({"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}});
    let answer = create_pod_during(Method::PATCH, "/api/v1/namespaces/default/resourcequotas/q/status", status).await;
    assert_eq!(answer.reason(), (403, "Forbidden"));
    assert!(answer.message().contains("exceeded quota: q, requested: pods=1"), "{}", answer.message());
}
