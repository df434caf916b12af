//! Objects that are not stored, which webhooks are asked about nevertheless: reviews and Bindings.

use serde_json::json;

use super::{PODS, hook, hooks, patch, rule};
use crate::api::tests::pod;

#[tokio::test]
async fn reviews_are_admitted_like_objects() {
    let (server, webhook) = hooks(|path, _| match path {
        "/deny" => json!({"allowed": false, "status": {"message": "ask me not"}}),
        _ => patch(json!([{"op": "add", "path": "/spec/user", "value": "jane"}])),
    })
    .await;
    let group = "authorization.k8s.io";
    let about = |resource: &str| json!({"rules": [rule(json!(["CREATE"]), group, "v1", json!([resource]))]});
    server.configured("Mutating", "m", vec![hook(&webhook, "/change", about("subjectaccessreviews"))]).await;
    server.configured("Validating", "v", vec![hook(&webhook, "/deny", about("selfsubjectaccessreviews"))]).await;
    let root = format!("/apis/{group}/v1");
    let spec = json!({"user": "joe", "resourceAttributes": {"verb": "get", "resource": "pods"}});
    let review = json!({"apiVersion": format!("{group}/v1"), "kind": "SubjectAccessReview", "spec": spec});
    let changed = server.post(&format!("{root}/subjectaccessreviews"), review).await;
    assert_eq!((changed.code, &changed.json["spec"]["user"]), (201, &json!("jane")), "{}", changed.text);
    let asked = webhook.bodies("/change").pop().unwrap()["request"].clone();
    assert_eq!((&asked["operation"], &asked["object"]["spec"]["user"]), (&json!("CREATE"), &json!("joe")));
    let spec = json!({"resourceAttributes": {"verb": "get", "resource": "pods"}});
    let review = json!({"apiVersion": format!("{group}/v1"), "kind": "SelfSubjectAccessReview", "spec": spec});
    let denied = server.post(&format!("{root}/selfsubjectaccessreviews"), review).await;
    assert_eq!(denied.message(), "admission webhook \"deny.example.com\" denied the request: ask me not");
}

#[tokio::test]
async fn a_binding_binds_the_pod_of_its_name() {
    let (server, webhook) = hooks(|_, _| json!({"allowed": true})).await;
    let bindings = json!({"rules": [rule(json!(["CREATE"]), "", "v1", json!(["bindings"]))]});
    server.configured("Validating", "v", vec![hook(&webhook, "/seen", bindings)]).await;
    assert_eq!(server.post(PODS, pod("p")).await.code, 201);
    let path = "/api/v1/namespaces/default/bindings";
    let to = |pod: &str, namespace: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod, "namespace": namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}})
    };
    let bound = server.post(path, to("p", "default")).await;
    assert_eq!((bound.code, &bound.json["status"]), (201, &json!("Success")), "{}", bound.text);
    assert_eq!(server.get(&format!("{PODS}/p")).await.json["spec"]["nodeName"], "n1");
    assert_eq!(webhook.bodies("/seen")[0]["request"]["resource"]["resource"], "bindings");
    assert_eq!(server.post(path, to("p", "default")).await.code, 409, "it is bound");
    assert_eq!(server.post(path, to("none", "default")).await.message(), "pods \"none\" not found");
    assert_eq!(server.post(path, to("p", "other")).await.code, 400);
    assert_eq!(server.get(path).await.code, 405);
}
