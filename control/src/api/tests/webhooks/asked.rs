//! What webhooks and policies are asked about, and in which form.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{CONFIGURATIONS, MAPS, PODS, deployment, hook, hooks, patch, rule};
use crate::{
    api::request::Call,
    api::tests::{Answer, Server, config_map, pod},
    api::write,
    auth::Identity,
    request::tests::info,
};

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
