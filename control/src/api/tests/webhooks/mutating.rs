//! What mutating webhooks make of an object.

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use serde_json::{Value, json};

use super::{MAPS, PODS, deployment, hook, hooks, patch, rule};
use crate::{
    api::tests::custom_resources::{definition, version, widget},
    api::tests::{Server, config_map, pod},
};

#[tokio::test]
async fn mutating_webhooks_come_in_the_order_of_their_names_and_what_they_make_is_an_object_like_any() {
    let mutates = |path: &str, request: &Value| match path {
        "/first" => patch(json!([{"op": "add", "path": "/data/first", "value": "1"}])),
        "/second" => {
            let seen = request["object"]["data"]["first"].as_str().unwrap_or("nothing");
            patch(json!([{"op": "add", "path": "/data/second", "value": seen}]))
        }
        "/pods" => {
            patch(json!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": "i", "image": "x"}]}]))
        }
        "/unknown" => patch(json!([{"op": "add", "path": "/spec/none", "value": 1}])),
        "/invalid" => patch(json!([{"op": "add", "path": "/data/no good", "value": "x"}])),
        "/wrong" => patch(json!([{"op": "replace", "path": "/data", "value": 3}])),
        "/missing" => patch(json!([{"op": "remove", "path": "/data/none"}])),
        "/rename" => patch(json!([{"op": "replace", "path": "/metadata/name", "value": "other"}])),
        _ => patch(json!([{"op": "replace", "path": "/metadata/uid", "value": "u"},
            {"op": "add", "path": "/metadata/deletionTimestamp", "value": "2020-01-01T00:00:00Z"}])),
    };
    let (server, webhook) = hooks(mutates).await;
    server.configured("Mutating", "b", vec![hook(&webhook, "/second", json!({}))]).await;
    server.configured("Mutating", "a", vec![hook(&webhook, "/first", json!({}))]).await;
    let created = server.post(MAPS, config_map("a", json!({}))).await.json;
    assert_eq!(created["data"], json!({"k": "v", "first": "1", "second": "1"}));
    assert_eq!(server.get(&format!("{MAPS}/a")).await.json["data"], created["data"]);
    // What they add is nobody's.
    let fields = created["metadata"]["managedFields"].to_string();
    assert!(fields.contains("f:k") && !fields.contains("f:first"), "{fields}");

    let deleted = server.delete(&format!("{MAPS}/a"), json!({})).await;
    assert_eq!(
        deleted.message(),
        "Internal error occurred: admission webhook \"first.example.com\" attempted to modify the object, which is not \
         supported for this operation"
    );

    let pods = json!([rule(json!(["CREATE"]), "", "v1", json!(["pods"]))]);
    server.configured("Mutating", "pods", vec![hook(&webhook, "/pods", json!({"rules": pods}))]).await;
    server.configured("Mutating", "unknown", vec![hook(&webhook, "/unknown", json!({"rules": pods}))]).await;
    let made = server.post(PODS, pod("p")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let added = &made.json["spec"]["initContainers"][0];
    assert_eq!(added["terminationMessagePolicy"], "File", "it is defaulted");
    assert!(made.json["spec"]["none"].is_null(), "an unknown field is not stored");

    let only = |name: &str| {
        json!({"matchConditions": [{"name": "c", "expression":
        format!("object.metadata.name == '{name}'")}]})
    };
    let paths = ["/invalid", "/wrong", "/missing", "/rename", "/uid"];
    let one = |path: &&str| hook(&webhook, path, only(path.trim_start_matches('/')));
    server.configured("Mutating", "c", paths.iter().map(one).collect()).await;
    let invalid = server.post(MAPS, config_map("invalid", json!({}))).await;
    assert_eq!(invalid.reason(), (422, "Invalid"), "{}", invalid.text);
    for name in ["wrong", "missing"] {
        assert_eq!(server.post(MAPS, config_map(name, json!({}))).await.reason(), (500, "InternalError"), "{name}");
    }
    assert_eq!(server.post(MAPS, config_map("rename", json!({}))).await.code, 400);
    let held = server.post(MAPS, config_map("uid", json!({}))).await.json;
    assert_ne!(held["metadata"]["uid"], "u");
    assert!(held["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn a_webhook_sees_no_generated_name_and_counts_as_a_change_of_the_spec() {
    let mutates = |path: &str, request: &Value| match request["operation"].as_str() {
        Some("UPDATE") if path != "/v" => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 7}])),
        _ => json!({"allowed": true}),
    };
    let (server, webhook) = hooks(mutates).await;
    let rules = json!([rule(json!(["*"]), "*", "*", json!(["configmaps", "deployments"]))]);
    server.configured("Mutating", "m", vec![hook(&webhook, "/m", json!({"rules": rules}))]).await;
    server.configured("Validating", "v", vec![hook(&webhook, "/v", json!({"rules": rules}))]).await;
    let made = server.post(MAPS, json!({"metadata": {"generateName": "g-"}})).await;
    assert!(made.name().starts_with("g-"), "{}", made.text);
    let (before, after) = (webhook.bodies("/m").remove(0), webhook.bodies("/v").remove(0));
    assert!(before["request"]["name"].is_null() && before["request"]["object"]["metadata"]["name"].is_null());
    assert_eq!(after["request"]["name"], made.name());

    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let created = server.post(deployments, deployment()).await;
    assert_eq!(created.json["metadata"]["generation"], 1, "{}", created.text);
    let changed = server.merge(&format!("{deployments}/d"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(changed.json["spec"]["replicas"], 7, "{}", changed.text);
    assert_eq!(changed.json["metadata"]["generation"], 2);
    // A status lets nothing else through.
    let status = json!([rule(json!(["UPDATE"]), "apps", "v1", json!(["deployments/status"]))]);
    server.configured("Mutating", "s", vec![hook(&webhook, "/s", json!({"rules": status}))]).await;
    let rescaled = json!({"status": {"observedGeneration": 2}, "spec": {"replicas": 1}});
    let written = server.merge(&format!("{deployments}/d/status"), rescaled).await.json;
    assert_eq!((&written["spec"]["replicas"], &written["metadata"]["generation"]), (&json!(7), &json!(2)));
    assert_eq!(webhook.bodies("/s")[0]["request"]["subResource"], "status");
}

#[tokio::test]
async fn a_webhook_is_asked_again_once_if_others_changed_the_object_after_it() {
    let mutates = |path: &str, request: &Value| {
        let data = &request["object"]["data"];
        let count = |key: &str| data[key].as_str().and_then(|count| count.parse::<u8>().ok()).unwrap_or(0);
        match path {
            "/again" | "/once" => {
                let key = path.trim_start_matches('/');
                let path = format!("/data/{key}");
                patch(json!([{"op": "add", "path": path, "value": (count(key) + 1).to_string()}]))
            }
            _ => patch(json!([{"op": "add", "path": "/data/last", "value": "x"}])),
        }
    };
    let (server, webhook) = hooks(mutates).await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let all = vec![
        hook(&webhook, "/again", again),
        hook(&webhook, "/once", json!({})),
        hook(&webhook, "/last", json!({"reinvocationPolicy": "IfNeeded"})),
    ];
    server.configured("Mutating", "m", all).await;
    let created = server.post(MAPS, json!({"metadata": {"name": "a"}, "data": {"z": "z"}})).await.json;
    assert_eq!(created["data"], json!({"z": "z", "again": "2", "once": "1", "last": "x"}));
    let asked: Vec<String> = webhook.requests.lock().iter().map(|(path, _)| path.clone()).collect();
    // The second change of the first is one that the last has not seen.
    assert_eq!(asked, ["/again", "/once", "/last", "/again", "/last"].map(|path| format!("{path}?timeout=10s")));
}

#[tokio::test]
async fn managed_fields_that_a_webhook_breaks_stay_as_they_were() {
    let (server, webhook) = hooks(|_, request| match request["name"].as_str() {
        Some("broken") => {
            patch(json!([{"op": "replace", "path": "/metadata/managedFields/0/operation", "value": "Nothing"}]))
        }
        _ => patch(json!([{"op": "remove", "path": "/metadata/managedFields"}])),
    })
    .await;
    server.configured("Mutating", "m", vec![hook(&webhook, "/m", json!({}))]).await;
    let broken = server.post(MAPS, config_map("broken", json!({}))).await;
    assert_eq!(broken.json["metadata"]["managedFields"][0]["operation"], "Update", "{}", broken.text);
    let warning = broken.headers["warning"].to_str().unwrap();
    assert!(warning.contains(".metadata.managedFields was in an invalid state after admission"), "{warning}");
    let removed = server.post(MAPS, config_map("removed", json!({}))).await;
    assert!(removed.json["metadata"]["managedFields"].is_null(), "{}", removed.text);
}

#[tokio::test]
async fn custom_resources_are_pruned_after_mutation_and_denied_like_all() {
    let (mut server, webhook) = hooks(|path, request| match path {
        "/mutate" if request["operation"] == "CREATE" => patch(json!([{"op": "add", "path": "/spec/size", "value": 2},
            {"op": "add", "path": "/spec/unknown", "value": 2}])),
        _ => json!({"allowed": path == "/mutate" || request["operation"] != "DELETE"}),
    })
    .await;
    server.run_definitions();
    let size = json!({"size": {"type": "integer"}});
    server.define(definition(json!([version("v1", true, size.clone()), version("v2", false, size)]))).await;
    let rules = json!({"rules": [rule(json!(["*"]), "example.com", "v1", json!(["widgets"]))]});
    server.configured("Mutating", "m", vec![hook(&webhook, "/mutate", rules.clone())]).await;
    server.configured("Validating", "v", vec![hook(&webhook, "/v", rules)]).await;
    let mut newer = widget("a", json!({}));
    newer["apiVersion"] = "example.com/v2".into();
    let path = "/apis/example.com/v2/namespaces/default/widgets";
    let created = server.post(path, newer).await;
    assert_eq!((created.code, &created.json["spec"]), (201, &json!({"size": 2})), "{}", created.text);
    assert_eq!(webhook.bodies("/mutate")[0]["request"]["object"]["apiVersion"], "example.com/v1");
    let denied = server.call(Method::DELETE, &format!("{path}/a"), &[], Body::empty()).await;
    assert_eq!(denied.code, 400);
    assert!(denied.message().ends_with("denied the request without explanation"), "{}", denied.text);
}

#[tokio::test]
async fn a_webhook_changes_nothing_of_a_custom_resource_that_its_status_does_not_let_through() {
    let (mut server, webhook) = hooks(|path, _| match path {
        "/mutate" => patch(json!([{"op": "add", "path": "/spec/size", "value": 9},
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
            {"op": "add", "path": "/status/replicas", "value": 2}])),
        _ => json!({"allowed": true}),
    })
    .await;
    server.run_definitions();
    server.define(definition(json!([version("v1", true, json!({"size": {"type": "integer"}}))]))).await;
    let rules = json!({"rules": [rule(json!(["UPDATE"]), "example.com", "v1", json!(["widgets/status"]))]});
    server.configured("Mutating", "m", vec![hook(&webhook, "/mutate", rules.clone())]).await;
    server.configured("Validating", "v", vec![hook(&webhook, "/v", rules)]).await;
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    assert_eq!(server.post(path, widget("a", json!({"size": 1}))).await.code, 201);
    let sent = json!({"metadata": {"labels": {"c": "d"}}, "spec": {"size": 5}, "status": {"ready": true}});
    let written = server.merge(&format!("{path}/a/status"), sent).await;
    assert_eq!(written.code, 200, "{}", written.text);
    for object in
        [&written.json, &webhook.bodies("/v")[0]["request"]["object"], &server.get(&format!("{path}/a")).await.json]
    {
        assert_eq!((&object["spec"], &object["metadata"]["labels"]), (&json!({"size": 1}), &Value::Null), "{object}");
        assert_eq!(object["status"], json!({"ready": true, "replicas": 2}));
    }
    let seen = &webhook.bodies("/mutate")[0]["request"]["object"];
    assert_eq!((&seen["spec"]["size"], &seen["metadata"]["labels"]), (&json!(1), &Value::Null), "{seen}");
}

#[tokio::test]
async fn a_webhook_does_not_say_who_asks_for_a_certificate() {
    let forged = json!([{"op": "replace", "path": "/spec/groups", "value": ["system:masters"]},
        {"op": "replace", "path": "/spec/username", "value": "admin"},
        {"op": "add", "path": "/metadata/labels", "value": {"seen": "1"}}]);
    let (server, webhook) = hooks(move |_, _| patch(forged.clone())).await;
    let group = "certificates.k8s.io";
    let rules = json!([rule(json!(["CREATE"]), group, "v1", json!(["certificatesigningrequests"]))]);
    server.configured("Mutating", "m", vec![hook(&webhook, "/m", json!({"rules": rules}))]).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "r"}, "spec": {"request": BASE64_STANDARD.encode(pem), "usages": ["client auth"],
            "signerName": "example.com/signer"}});
    let made = server.post("/apis/certificates.k8s.io/v1/certificatesigningrequests", request.clone()).await;
    assert_eq!((made.code, &made.json["metadata"]["labels"]["seen"]), (201, &json!("1")), "{}", made.text);
    let plain = Server::start().await;
    let wanted = plain.post("/apis/certificates.k8s.io/v1/certificatesigningrequests", request).await.json;
    for field in ["username", "groups"] {
        assert_eq!(made.json["spec"][field], wanted["spec"][field], "{field}");
    }
    assert_ne!(made.json["spec"]["username"], "admin");
}
