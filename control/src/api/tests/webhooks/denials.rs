//! What a denial is to the client, and a webhook that cannot be asked.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{CONFIGURATIONS, MAPS, PODS, hook, hooks, patch, rule};
use crate::{
    api::tests::{Server, config_map, pod},
    webhook::tests::{Answering, TestServer},
};

#[tokio::test]
async fn a_validating_webhook_is_asked_about_every_verb_and_its_denial_is_told() {
    let denies = |_: &str, request: &Value| {
        let bad = |object: &str| request[object]["data"]["k"] == "bad";
        let denied = bad("object") || request["operation"] == "DELETE" && bad("oldObject");
        json!({"allowed": !denied, "warnings": ["looked at"],
            "status": {"reason": "it is not liked", "message": "bad map", "code": 409}})
    };
    let (server, webhook) = hooks(denies).await;
    assert_eq!(server.post(MAPS, json!({"metadata": {"name": "old"}, "data": {"k": "bad"}})).await.code, 201);
    server.configured("Validating", "deny", vec![hook(&webhook, "/deny", json!({}))]).await;

    let created = server.post(&format!("{MAPS}?fieldManager=me"), config_map("a", json!({}))).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.headers["warning"], "299 - \"looked at\"");
    let asked = webhook.bodies("/deny").pop().unwrap();
    assert_eq!((&asked["kind"], &asked["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    let request = &asked["request"];
    let gvk = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let gvr = json!({"group": "", "version": "v1", "resource": "configmaps"});
    for (field, expected) in [
        ("kind", &gvk),
        ("requestKind", &gvk),
        ("resource", &gvr),
        ("requestResource", &gvr),
        ("name", &json!("a")),
        ("namespace", &json!("default")),
        ("operation", &json!("CREATE")),
        ("dryRun", &json!(false)),
        ("oldObject", &Value::Null),
        ("options", &json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"})),
    ] {
        assert_eq!(request[field], *expected, "{field}");
    }
    assert_eq!(request["userInfo"]["username"], "system:test");
    assert_eq!(request["object"]["metadata"]["managedFields"][0]["manager"], "me");
    assert!(request["object"]["metadata"]["uid"].is_string() && request["subResource"].is_null());

    let denied = "admission webhook \"deny.example.com\" denied the request: bad map";
    let bad = json!({"data": {"k": "bad"}});
    let mut whole = config_map("a", json!({}));
    whole["data"]["k"] = "bad".into();
    for answer in [
        server.post(MAPS, json!({"metadata": {"name": "b"}, "data": {"k": "bad"}})).await,
        server.put(&format!("{MAPS}/a"), whole).await,
        server.merge(&format!("{MAPS}/a"), bad).await,
        server.delete(&format!("{MAPS}/old"), json!({})).await,
    ] {
        assert_eq!((answer.reason(), answer.message()), ((409, "it is not liked"), denied));
    }
    let deletion = webhook.bodies("/deny").pop().unwrap()["request"].clone();
    assert_eq!((&deletion["operation"], &deletion["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(deletion["options"]["kind"], "DeleteOptions");
    assert_eq!(server.get(&format!("{MAPS}/old")).await.code, 200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.json["data"]["k"], "v");
    let update = webhook.bodies("/deny").into_iter().find(|body| body["request"]["operation"] == "UPDATE").unwrap();
    assert_eq!(update["request"]["oldObject"]["data"]["k"], "v");
    assert_eq!(update["request"]["options"]["kind"], "UpdateOptions");
    assert_eq!(webhook.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "the connection is kept");
    let metrics = server.get("/metrics").await.text;
    let counted = r#"apiserver_admission_webhook_rejection_count{name="deny.example.com",type="validating",operation="DELETE",error_type="no_error",rejection_code="409"} 1"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_is_as_its_failure_policy_says() {
    let (server, webhook) = hooks(|path, _| match path {
        "/uid" => json!({"allowed": true, "uid": "other"}),
        "/patch" => patch(json!([{"op": "add", "path": "/data/x", "value": "y"}])),
        _ => json!({"allowed": true}),
    })
    .await;
    let only = |name: &str, mut changes: Value| {
        changes["matchConditions"] = json!([{"name": "c", "expression": format!("object.metadata.name == '{name}'")}]);
        hook(&webhook, &format!("/{name}"), changes)
    };
    let gone = json!({"service": {"namespace": "default", "name": "none", "path": "/x"}});
    let some = json!({"sideEffects": "NoneOnDryRun"});
    let all = vec![
        only("uid", json!({})),
        only("patch", json!({})),
        only("gone", json!({"clientConfig": gone})),
        only("ignored", json!({"clientConfig": gone, "failurePolicy": "Ignore"})),
        only("dry", some),
    ];
    server.configured("Validating", "v", all).await;
    let failed = "Internal error occurred: failed calling webhook";
    for (name, why) in [
        ("uid", format!("{failed} \"uid.example.com\": received invalid webhook response: expected response.uid=")),
        (
            "patch",
            format!(
                "{failed} \"patch.example.com\": received invalid webhook response: validating webhook may not return \
                 response.patch"
            ),
        ),
        (
            "gone",
            format!(
                "{failed} \"gone.example.com\": failed to call webhook: Post \
                 \"https://none.default.svc:443/x?timeout=10s\": service \"none\" not found"
            ),
        ),
    ] {
        let answer = server.post(MAPS, config_map(name, json!({}))).await;
        assert_eq!(answer.reason(), (500, "InternalError"), "{name}");
        assert!(answer.message().starts_with(&why), "{}", answer.message());
    }
    assert_eq!(server.post(MAPS, config_map("ignored", json!({}))).await.code, 201);
    let dry = server.post(&format!("{MAPS}?dryRun=All"), config_map("dry", json!({}))).await;
    assert_eq!(dry.code, 201, "{}", dry.text);
    let asked = webhook.bodies("/dry").pop().unwrap();
    assert_eq!((&asked["request"]["dryRun"], &asked["request"]["options"]["dryRun"]), (&json!(true), &json!(["All"])));
}

#[tokio::test]
async fn a_webhook_with_effects_is_not_asked_about_a_dry_run() {
    let (server, webhook) = hooks(|_, _| json!({"allowed": true})).await;
    // No new configuration may say so: one that was stored before these had to say.
    let mut old = hook(&webhook, "/some", json!({}));
    old["sideEffects"] = "Some".into();
    let configuration = json!({"metadata": {"name": "old"}, "webhooks": [old]});
    server.store_as_it_is("validatingwebhookconfigurations.admissionregistration.k8s.io", "old", &configuration).await;
    let refused = server.post(&format!("{MAPS}?dryRun=All"), config_map("a", json!({}))).await;
    assert_eq!(refused.reason(), (400, "BadRequest"));
    assert_eq!(refused.message(), "admission webhook \"some.example.com\" does not support dry run");
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.code, 201);
    assert_eq!(webhook.bodies("/some").len(), 1);
}

#[tokio::test]
async fn a_webhook_that_hangs_harms_only_its_own_requests() {
    let asked = Arc::new(Notify::new());
    let notify = asked.clone();
    let answering: Answering = Arc::new(move |_, _| {
        notify.notify_one();
        Box::pin(std::future::pending())
    });
    let (server, webhook) = (Server::start().await, TestServer::start(&["localhost"], answering).await);
    server.configured("Validating", "v", vec![hook(&webhook, "/hang", json!({"timeoutSeconds": 1}))]).await;
    let hung = async {
        let answers = (0..20).map(|n| server.post(MAPS, config_map(&format!("m{n}"), json!({})))).collect::<Vec<_>>();
        futures::future::join_all(answers).await
    };
    let others = async {
        asked.notified().await;
        tokio::time::timeout(Duration::from_millis(900), server.post(PODS, pod("p"))).await.unwrap()
    };
    let (hung, other) = tokio::join!(hung, others);
    assert_eq!(other.code, 201);
    for answer in hung {
        assert_eq!(answer.code, 500);
        let why = "/hang?timeout=1s\": context deadline exceeded";
        assert!(answer.message().ends_with(why), "{}", answer.message());
    }
}

#[tokio::test]
async fn configurations_take_effect_at_once_and_are_not_asked_about_themselves() {
    let (server, webhook) = hooks(|_, _| json!({"allowed": false})).await;
    let everything = json!({"rules": [rule(json!(["*"]), "*", "*", json!(["*/*"]))]});
    server.configured("Validating", "v", vec![hook(&webhook, "/v", everything.clone())]).await;
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.code, 400);
    server.configured("Mutating", "m", vec![hook(&webhook, "/m", everything)]).await;
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v");
    let narrowed = json!({"webhooks": [hook(&webhook, "/v", json!({"rules":
        [rule(json!(["DELETE"]), "", "v1", json!(["configmaps"]))]}))]});
    let merged = server.merge(&path, narrowed).await;
    assert_eq!(merged.code, 200, "{}", merged.text);
    assert_eq!(server.delete(&path.replace("validating", "mutating").replace("/v", "/m"), json!({})).await.code, 404);
    let mutating = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/m");
    assert_eq!(server.delete(&mutating, json!({})).await.code, 200);
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.code, 201);
    assert_eq!(server.delete(&format!("{MAPS}/a"), json!({})).await.code, 400);
    assert_eq!(server.delete(&path, json!({})).await.code, 200);
    assert_eq!(server.delete(&format!("{MAPS}/a"), json!({})).await.code, 200);
}
