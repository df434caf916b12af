//! Admission webhooks over TLS: what they are asked, and what becomes of their answers.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    Answer, Server, config_map,
    custom_resources::{definition, version, widget},
    pod,
};
use crate::{
    api::{request::Call, write},
    auth::Identity,
    request::tests::info,
    webhook::tests::{Answering, TestServer},
};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server whose webhooks answer with what `respond` makes of path and request.
pub async fn hooks(respond: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> (Server, TestServer) {
    let respond = Arc::new(respond);
    let answering: Answering = Arc::new(move |path, review| {
        let respond = respond.clone();
        Box::pin(async move {
            let path = path.split('?').next().unwrap_or_default();
            let mut response = respond(path, &review["request"]);
            if response["uid"].is_null() {
                response["uid"] = review["request"]["uid"].clone();
            }
            (200, json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response}))
        })
    });
    (Server::start().await, TestServer::start(&["localhost"], answering).await)
}

/// An answer that patches the object.
pub fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(operations.to_string())})
}

fn rule(operations: Value, group: &str, version: &str, resources: Value) -> Value {
    json!({"operations": operations, "apiGroups": [group], "apiVersions": [version], "resources": resources})
}

/// A webhook at a path, about ConfigMaps unless `changes` say otherwise.
pub fn hook(at: &TestServer, path: &str, changes: Value) -> Value {
    let name = format!("{}.example.com", path.trim_start_matches('/'));
    let mut hook = json!({"name": name, "clientConfig": at.client_config(path), "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [rule(json!(["*"]), "", "v1", json!(["configmaps"]))]});
    for (field, value) in changes.as_object().unwrap() {
        hook[field] = value.clone();
    }
    hook
}

impl Server {
    /// Stores a configuration: `Mutating` or `Validating`.
    pub async fn configure(&self, kind: &str, name: &str, webhooks: Vec<Value>) -> Answer {
        let path = format!("{CONFIGURATIONS}/{}webhookconfigurations", kind.to_lowercase());
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": name}, "webhooks": webhooks});
        self.post(&path, configuration).await
    }

    async fn configured(&self, kind: &str, name: &str, webhooks: Vec<Value>) {
        let answer = self.configure(kind, name, webhooks).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
    }
}

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
        server.delete(MAPS, json!({})).await,
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
}

#[tokio::test]
async fn selectors_and_conditions_narrow_what_a_webhook_is_asked() {
    let (server, webhook) = hooks(|path, _| json!({"allowed": path == "/allow"})).await;
    let labelled = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b", "labels": {"env": "b"}}});
    assert_eq!(server.post("/api/v1/namespaces", labelled).await.code, 201);
    let no = |path: &str, changes: Value| hook(&webhook, path, changes);
    let conditions = json!([{"name": "not-me", "expression": "object.metadata.name != 'me'"},
        {"name": "created", "expression": "request.operation == 'CREATE' && oldObject == null"}]);
    server
        .configured(
            "Validating",
            "narrow",
            vec![
                no("/namespace", json!({"namespaceSelector": {"matchLabels": {"env": "b"}}})),
                no("/object", json!({"objectSelector": {"matchLabels": {"app": "x"}}})),
                no(
                    "/conditions",
                    json!({"matchConditions": conditions,
                    "namespaceSelector": {"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}}),
                ),
            ],
        )
        .await;
    let by = |answer: Answer| match answer.message().split('"').nth(1) {
        Some(name) if answer.code == 400 => name.trim_end_matches(".example.com").to_owned(),
        _ => format!("{} {}", answer.code, answer.message()),
    };
    let other = MAPS.replace("default", "b");
    assert_eq!(by(server.post(&other, config_map("a", json!({}))).await), "namespace");
    assert_eq!(by(server.post(MAPS, config_map("me", json!({"app": "x"}))).await), "object");
    assert_eq!(by(server.post(MAPS, config_map("a", json!({}))).await), "conditions");
    assert_eq!(server.post(MAPS, config_map("me", json!({}))).await.code, 201);
    // The old object counts as well, and another condition is false now.
    assert_eq!(server.merge(&format!("{MAPS}/me"), json!({"data": {"b": "c"}})).await.code, 200);
    assert_eq!(by(server.merge(&format!("{MAPS}/me"), json!({"metadata": {"labels": {"app": "x"}}})).await), "object");
}

#[tokio::test]
async fn a_condition_that_fails_is_as_the_failure_policy_says() {
    let (server, webhook) = hooks(|_, _| json!({"allowed": false})).await;
    let condition = |expression: &str| json!([{"name": "c", "expression": expression}]);
    for (policy, code) in [("Ignore", 201), ("Fail", 403)] {
        let changes = json!({"failurePolicy": policy, "matchConditions": condition("object.data.none == 'x'")});
        server.configured("Validating", &policy.to_lowercase(), vec![hook(&webhook, "/x", changes)]).await;
        let answer = server.post(MAPS, config_map(&policy.to_lowercase(), json!({}))).await;
        assert_eq!(answer.code, code, "{}", answer.text);
    }
    assert!(webhook.bodies("/").is_empty());
    let answer = server
        .configure("Mutating", "bad", vec![hook(&webhook, "/x", json!({"matchConditions": condition("object.a ==")}))])
        .await;
    assert_eq!(answer.reason(), (422, "Invalid"));
    let path = "webhooks[0].matchConditions[0].expression: Invalid value";
    assert!(answer.message().contains(path) && answer.message().contains("compilation failed"), "{}", answer.text);
}

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

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
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
    let created = server.post(MAPS, json!({"metadata": {"name": "a"}, "data": {}})).await.json;
    assert_eq!(created["data"], json!({"again": "2", "once": "1", "last": "x"}));
    let asked: Vec<String> = webhook.requests.lock().iter().map(|(path, _)| path.clone()).collect();
    // The second change of the first is one that the last has not seen.
    assert_eq!(asked, ["/again", "/once", "/last", "/again", "/last"].map(|path| format!("{path}?timeout=10s")));
}

#[tokio::test]
async fn a_rule_takes_other_versions_of_its_resource_unless_it_is_exact() {
    let (server, webhook) = hooks(|path, request| match path {
        "/equivalent" if request["object"]["apiVersion"] == "apps/v1" => {
            patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "v1"}}]))
        }
        _ => json!({"allowed": false}),
    })
    .await;
    let rules = json!([rule(json!(["CREATE"]), "apps", "v1", json!(["deployments"]))]);
    let exact = json!({"rules": rules, "matchPolicy": "Exact"});
    let both = vec![hook(&webhook, "/equivalent", json!({"rules": rules})), hook(&webhook, "/exact", exact)];
    server.configured("Mutating", "m", both).await;
    let mut old = deployment();
    old["apiVersion"] = "extensions/v1beta1".into();
    let created = server.post("/apis/extensions/v1beta1/namespaces/default/deployments", old).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.json["metadata"]["labels"], json!({"seen": "v1"}));
    assert_eq!(created.json["apiVersion"], "extensions/v1beta1");
    let request = webhook.bodies("/").remove(0)["request"].clone();
    assert_eq!(request["kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    assert_eq!(request["requestKind"]["group"], "extensions");
    assert_eq!(request["requestResource"]["version"], "v1beta1");
}

#[tokio::test]
async fn subresources_are_asked_about_in_the_form_that_is_sent() {
    let (server, webhook) = hooks(|path, request| match path {
        "/scale" => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 5}])),
        "/no" => json!({"allowed": request["name"] != "p", "status": {"message": "stays"}}),
        _ => json!({"allowed": true}),
    })
    .await;
    let rules = |group: &str, resources: Value| json!({"rules": [rule(json!(["*"]), group, "v1", resources)]});
    server.configured("Mutating", "m", vec![hook(&webhook, "/scale", rules("apps", json!(["*/scale"])))]).await;
    server.post("/apis/apps/v1/namespaces/default/deployments", deployment()).await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d/scale";
    let scaled = server.merge(path, json!({"spec": {"replicas": 3}})).await;
    assert_eq!((scaled.code, &scaled.json["spec"]["replicas"]), (200, &json!(5)), "{}", scaled.text);
    let request = webhook.bodies("/scale").remove(0)["request"].clone();
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["resource"]["resource"], "deployments");
    assert_eq!(
        (&request["object"]["spec"]["replicas"], &request["oldObject"]["spec"]["replicas"]),
        (&json!(3), &json!(2))
    );

    for name in ["p", "q"] {
        assert_eq!(server.post(PODS, pod(name)).await.code, 201);
    }
    let both = json!(["pods/eviction", "pods/binding"]);
    server.configured("Validating", "v", vec![hook(&webhook, "/no", rules("", both))]).await;
    server.configured("Validating", "all", vec![hook(&webhook, "/all", rules("", json!(["pods/*"])))]).await;
    let binding = |name: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}});
    let denied = server.post(&format!("{PODS}/p/binding"), binding("p")).await;
    assert!(denied.message().ends_with("denied the request: stays"), "{}", denied.text);
    assert_eq!(server.post(&format!("{PODS}/p/eviction"), eviction("p")).await.code, 400);
    assert!(server.get(&format!("{PODS}/p")).await.json["spec"]["nodeName"].is_null());
    assert_eq!(server.post(&format!("{PODS}/q/binding"), binding("q")).await.code, 201);
    assert_eq!(server.post(&format!("{PODS}/q/eviction"), eviction("q")).await.code, 201);
    let seen: Vec<(String, String)> = webhook
        .bodies("/all")
        .iter()
        .map(|body| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&body["request"]["operation"]), text(&body["request"]["object"]["kind"]))
        })
        .collect();
    let create = |kind: &str| ("CREATE".to_owned(), kind.to_owned());
    assert_eq!(seen[seen.len() - 2..], [create("Binding"), create("Eviction")]);
}

#[tokio::test]
async fn connections_are_asked_about() {
    let (server, webhook) = hooks(|_, _| json!({"allowed": false, "status": {"message": "not there"}})).await;
    let rules = json!([rule(json!(["CONNECT"]), "", "v1", json!(["nodes/proxy"]))]);
    server.configured("Validating", "v", vec![hook(&webhook, "/connect", json!({"rules": rules}))]).await;
    let call = |path: &str| {
        let mut info = info("GET", path);
        info.user = Some(Identity::control("test"));
        Call::of(Arc::new(info), &server.api.kinds().snapshot()).unwrap()
    };
    let denied = write::admit_connection(&server.api, &call("/api/v1/nodes/n/proxy/metrics")).await.unwrap_err();
    assert!(denied.message.ends_with("denied the request: not there"), "{}", denied.message);
    let request = webhook.bodies("/connect").remove(0)["request"].clone();
    assert_eq!((&request["operation"], &request["name"]), (&json!("CONNECT"), &json!("n")));
    assert_eq!(request["object"], json!({"kind": "NodeProxyOptions", "apiVersion": "v1", "path": "/metrics"}));
    let log = call("/api/v1/namespaces/default/pods/p/log");
    assert!(write::admit_connection(&server.api, &log).await.is_ok(), "a log is read");
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
        let why = format!("/hang?timeout=1s\": context deadline exceeded");
        assert!(answer.message().ends_with(&why), "{}", answer.message());
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
async fn a_condition_may_ask_what_the_user_may_do() {
    let (server, webhook) = hooks(|_, _| json!({"allowed": false})).await;
    let breakglass = "!authorizer.group('admissionregistration.k8s.io').resource('validatingwebhookconfigurations')\
        .name('v').check('breakglass').allowed()";
    let changes = json!({"matchConditions": [{"name": "c", "expression": breakglass}]});
    server.configured("Validating", "v", vec![hook(&webhook, "/v", changes)]).await;
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.code, 201, "an administrator may do everything");
    assert!(webhook.bodies("/v").is_empty());
}

#[tokio::test]
async fn policies_see_the_forms_of_subresources() {
    let server = Server::start().await;
    let rules = [rule(json!(["CREATE"]), "", "v1", json!(["pods/eviction", "pods/binding"]))];
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "object.kind == 'Binding' && object.target.name != 'bad'",
            "message": "not like this"}]}});
    let bound = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    for (plural, object) in [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", bound)] {
        let made = server.post(&format!("{CONFIGURATIONS}/{plural}"), object).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }
    assert_eq!(server.post(PODS, pod("p")).await.code, 201);
    let binding = |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let denied = server.post(&format!("{PODS}/p/binding"), binding("bad")).await;
    assert_eq!(denied.reason(), (422, "Invalid"), "{}", denied.text);
    assert_eq!(
        denied.message(),
        "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: not like this"
    );
    let evicted = server.post(&format!("{PODS}/p/eviction"), json!({"metadata": {"name": "p"}})).await;
    assert_eq!(evicted.code, 422, "{}", evicted.text);
    assert_eq!(server.post(&format!("{PODS}/p/binding"), binding("good")).await.code, 201);
    let path = format!("{CONFIGURATIONS}/validatingadmissionpolicies/p");
    assert_eq!(server.delete(&path, json!({})).await.code, 200);
    let evicted = server.post(&format!("{PODS}/p/eviction"), json!({"metadata": {"name": "p"}})).await;
    assert_eq!(evicted.code, 201, "a policy that is gone denies nothing: {}", evicted.text);
}
