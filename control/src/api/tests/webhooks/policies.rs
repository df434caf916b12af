//! Mutating policies through the API: served and evaluated only where that is asked for.

use serde_json::{Value, json};

use super::{CONFIGURATIONS, MAPS, PODS, Server, hook, hooks, patch};
use crate::{
    api::tests::{config_map, pod},
    kinds::{Kind, admissionregistration},
};

const BETA: &str = "/apis/admissionregistration.k8s.io/v1beta1";
const ALPHA: &str = "/apis/admissionregistration.k8s.io/v1alpha1";

impl Server {
    /// Serves mutating policies, and evaluates them.
    pub(in crate::api::tests) fn with_mutating_policies(self) -> Self {
        for kind in admissionregistration::BETA.into_iter().chain(admissionregistration::ALPHA) {
            self.api.kinds().add(Kind::from(kind)).unwrap();
        }
        self.api.evaluate_mutating_policies();
        self
    }

    /// Stores a policy about ConfigMaps and Pods, and its binding.
    pub(in crate::api::tests) async fn mutated_by(&self, name: &str, mutation: Value, changes: Value) {
        let mut policy = json!({"metadata": {"name": name}, "spec": {"reinvocationPolicy": "IfNeeded",
            "mutations": [mutation], "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["configmaps", "pods", "pods/status"]}]}}});
        for (field, value) in changes.as_object().unwrap() {
            policy["spec"][field] = value.clone();
        }
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
        for (plural, object) in [("mutatingadmissionpolicies", policy), ("mutatingadmissionpolicybindings", binding)] {
            let made = self.post(&format!("{BETA}/{plural}"), object).await;
            assert_eq!(made.code, 201, "{}", made.text);
        }
    }
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn json_patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

#[tokio::test]
async fn a_policy_changes_what_is_created_and_its_fields_are_nobodys() {
    let server = Server::start().await.with_mutating_policies();
    let sidecar = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'mesh', image: 'mesh:1'}]}}";
    server
        .mutated_by(
            "sidecar",
            apply(sidecar),
            json!({"matchConditions": [{"name": "pods",
        "expression": "object.kind == 'Pod' && !object.spec.containers.exists(c, c.name == 'mesh')"}]}),
        )
        .await;
    let label = "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a.b'), value: request.operation}]";
    server
        .mutated_by(
            "label",
            json_patch(label),
            json!({"matchConditions": [{"name": "maps",
        "expression": "object.kind == 'ConfigMap'"}]}),
        )
        .await;
    let made = server.post(PODS, pod("p")).await;
    let names: Vec<&Value> = made.json["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert!(names.contains(&&json!("mesh")) && names.len() == 2, "{}", made.text);
    assert!(!made.json["metadata"]["managedFields"].to_string().contains("mesh"), "{}", made.text);
    assert_eq!(server.get(&format!("{PODS}/p")).await.json["spec"], made.json["spec"]);
    let created = server.post(MAPS, config_map("a", json!({}))).await.json;
    assert_eq!(created["data"], json!({"k": "v", "a.b": "CREATE"}));
    let updated = server.merge(&format!("{MAPS}/a"), json!({"data": {"k": "w"}})).await.json;
    assert_eq!(updated["data"], json!({"k": "w", "a.b": "UPDATE"}));
    assert_eq!(server.delete(&format!("{MAPS}/a"), json!({})).await.code, 200);
}

#[tokio::test]
async fn policies_come_before_webhooks_and_again_after_them() {
    let (server, webhook) = hooks(|_, request| {
        let seen = request["object"]["data"]["policy"].as_str().unwrap_or("nothing").to_owned();
        patch(json!([{"op": "add", "path": "/data/webhook", "value": seen}]))
    })
    .await;
    let server = server.with_mutating_policies();
    server.configured("Mutating", "w", vec![hook(&webhook, "/w", json!({}))]).await;
    let count = "[JSONPatch{op: 'add', path: '/data/policy', value: (has(object.data.policy) ? object.data.policy : '') + 'x'}]";
    server.mutated_by("p", json_patch(count), json!({})).await;
    let created = server.post(MAPS, config_map("a", json!({}))).await;
    assert_eq!(created.json["data"], json!({"k": "v", "policy": "xx", "webhook": "x"}), "{}", created.text);
    assert_eq!(webhook.bodies("/w").len(), 1, "the webhook does not want to be asked again");
}

#[tokio::test]
async fn what_a_policy_cannot_make_is_refused() {
    let server = Server::start().await.with_mutating_policies();
    server.mutated_by("p", apply("Object{none: 1}"), json!({})).await;
    let refused = server.post(MAPS, config_map("a", json!({}))).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    assert_eq!(
        refused.message(),
        "policy 'p' with binding 'p' denied request: error applying patch: failed to convert patch object to typed \
         object: .none: field not declared in schema"
    );
    assert_eq!(server.delete(&format!("{BETA}/mutatingadmissionpolicies/p"), json!({})).await.code, 200);
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.code, 201);
    server.mutated_by("rename", apply("Object{metadata: Object.metadata{name: 'other'}}"), json!({})).await;
    assert_eq!(server.post(MAPS, config_map("b", json!({}))).await.code, 400);
}

#[tokio::test]
async fn the_kinds_are_served_in_both_versions_and_never_mutated() {
    let server = Server::start().await.with_mutating_policies();
    let every = json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"],
        "operations": ["*"], "resources": ["*"]}]}});
    server
        .mutated_by("all", apply("Object{metadata: Object.metadata{labels: Object.metadata.labels{a: 'b'}}}"), every)
        .await;
    let wrong = json!({"metadata": {"name": "x"}, "spec": {"mutations": [apply("Object{a: none}")],
        "reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["pods"]}]}}});
    let refused = server.post(&format!("{BETA}/mutatingadmissionpolicies"), wrong.clone()).await;
    assert_eq!(refused.reason(), (422, "Invalid"), "{}", refused.text);
    assert!(refused.message().contains("undeclared reference to 'none'"), "{}", refused.text);
    let mut good = wrong;
    good["spec"]["mutations"] = json!([apply("Object{}")]);
    let made = server.post(&format!("{ALPHA}/mutatingadmissionpolicies"), good).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(made.json["apiVersion"], "admissionregistration.k8s.io/v1alpha1");
    assert_eq!(made.json["spec"]["failurePolicy"], "Fail");
    assert_eq!(made.json["metadata"]["generation"], 1);
    assert!(made.json["metadata"]["labels"].is_null(), "it is exempt");
    let other = server.get(&format!("{BETA}/mutatingadmissionpolicies/x")).await.json;
    assert_eq!(other["apiVersion"], "admissionregistration.k8s.io/v1beta1");
    assert_eq!(other["spec"], made.json["spec"]);
    let labelled = server.post(MAPS, config_map("a", json!({}))).await.json;
    assert_eq!(labelled["metadata"]["labels"], json!({"a": "b"}));
}

#[tokio::test]
async fn without_being_asked_for_there_are_none() {
    let server = Server::start().await;
    assert_eq!(server.get(&format!("{BETA}/mutatingadmissionpolicies")).await.code, 404);
    for path in ["/apis", "/openapi/v3", "/openapi/v2", CONFIGURATIONS] {
        assert!(!server.get(path).await.text.to_lowercase().contains("mutatingadmissionpolic"), "{path}");
    }
    let server = server.with_mutating_policies();
    for path in ["/openapi/v2", BETA, ALPHA] {
        assert!(server.get(path).await.text.to_lowercase().contains("mutatingadmissionpolic"), "{path}");
    }
}
