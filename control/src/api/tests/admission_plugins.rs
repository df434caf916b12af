//! Admission plugins that are off by default, switched on; and those that are on by default, switched off.

use http::Method;
use serde_json::{Value, json};

use super::{
    Answer, Server, config_map,
    custom_resources::{definition, version},
    pod,
};

const NAMESPACES: &str = "/api/v1/namespaces";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// Code and message.
fn told(answer: &Answer) -> (u16, &str) {
    (answer.code, answer.message())
}

/// A pod with one container, and this beside it in its spec.
fn pod_with(name: &str, more: &Value) -> Value {
    let mut pod = pod(name);
    for (field, value) in more.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// Lets jane do these verbs to these resources of a group, everywhere.
async fn allow(server: &Server, name: &str, group: &str, resources: &[&str], verbs: &[&str]) {
    let of =
        |kind: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}});
    let mut role = of("ClusterRole");
    role["rules"] = json!([{"apiGroups": [group], "resources": resources, "verbs": verbs}]);
    let mut binding = of("ClusterRoleBinding");
    binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    binding["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]);
    assert_eq!(server.post(&format!("{RBAC}/clusterroles"), role).await.code, 201);
    assert_eq!(server.post(&format!("{RBAC}/clusterrolebindings"), binding).await.code, 201);
}

fn owned(name: &str, owner: &Value) -> Value {
    let mut map = config_map(name, json!({}));
    map["metadata"]["ownerReferences"] = json!([owner]);
    map
}

#[tokio::test]
async fn who_may_not_finalize_an_owner_does_not_hold_up_its_deletion() {
    let plain = Server::with_definitions().await;
    plain.define(definition(json!([version("v1", true, json!({}))]))).await;
    let server = plain.with_plugins("OwnerReferencesPermissionEnforcement", "");
    let owner = |api_version: &str, kind: &str, blocks: bool| {
        json!({"apiVersion": api_version, "kind": kind,
        "name": "a", "uid": "u", "blockOwnerDeletion": blocks})
    };
    let create = async |name: &str, owner: Value| server.call_as("jane", Method::POST, MAPS, owned(name, &owner)).await;
    assert_eq!(create("free", owner("v1", "Nothing", false)).await.code, 201, "to create is to be free to name owners");
    let refused = create("a", owner("example.com/v1", "Widget", true)).await;
    let why = "configmaps \"a\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource \
        you can't set finalizers on: , <nil>";
    assert_eq!(told(&refused), (403, why));
    assert_eq!(create("a", owner("v1", "Node", true)).await.code, 403, "an owner without namespace");
    let unknown = create("a", owner("example.com/v2", "Widget", true)).await;
    let why = "configmaps \"a\" is forbidden: cannot set blockOwnerDeletion in this case because cannot find \
        RESTMapping for APIVersion example.com/v2 Kind Widget: no matches for kind \"Widget\" in version \
        \"example.com/v2\"";
    assert_eq!(told(&unknown), (403, why));
    allow(&plain, "widgets", "example.com", &["widgets/finalizers"], &["update"]).await;
    assert_eq!(create("a", owner("example.com/v1", "Widget", true)).await.code, 201);
    assert_eq!(create("b", owner("v1", "Node", true)).await.code, 403);
    allow(&plain, "all", "*", &["*/finalizers"], &["update"]).await;
    assert_eq!(create("b", owner("v1", "Node", true)).await.code, 201);
    assert_eq!(create("c", owner("example.com/v2", "Widget", true)).await.code, 201, "the wildcard is asked first");
}

#[tokio::test]
async fn who_may_not_delete_an_object_does_not_give_it_owners() {
    let plain = Server::start().await;
    let server = plain.with_plugins("OwnerReferencesPermissionEnforcement", "");
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u"});
    let update = async |path: &str, object: Value| server.call_as("jane", Method::PUT, path, object).await;
    assert_eq!(plain.post(MAPS, config_map("m", json!({}))).await.code, 201);
    let refused = update(&format!("{MAPS}/m"), owned("m", &owner)).await;
    let why = "configmaps \"m\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!(told(&refused), (403, why));
    let labelled = update(&format!("{MAPS}/m"), config_map("m", json!({"a": "b"}))).await;
    assert_eq!(labelled.code, 200, "what changes no owners is let be: {}", labelled.text);
    // The deletion through a subresource is another right than that of the object.
    let path = format!("{NAMESPACES}/default");
    let mut namespace = plain.get(&path).await.json;
    namespace["metadata"]["ownerReferences"] = json!([owner]);
    allow(&plain, "maps", "", &["configmaps", "namespaces"], &["delete"]).await;
    assert_eq!(update(&format!("{MAPS}/m"), owned("m", &owner)).await.code, 200);
    assert_eq!(update(&path, namespace).await.code, 200);
    // The status of a pod names no owners, whatever is sent.
    assert_eq!(plain.post(PODS, pod("p")).await.code, 201);
    let mut status = plain.get(&format!("{PODS}/p")).await.json;
    status["metadata"]["ownerReferences"] = json!([owner]);
    assert_eq!(update(&format!("{PODS}/p/status"), status).await.code, 200);
}

#[tokio::test]
async fn pods_pull_always_if_they_have_new_images() {
    let plain = Server::start().await;
    let never = json!({"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Never"}]});
    assert_eq!(plain.post(PODS, pod_with("before", &never)).await.code, 201);
    let server = plain.with_plugins("AlwaysPullImages", "");
    let init = json!([{"name": "i", "image": "j", "imagePullPolicy": "Never"}]);
    let made = server.post(PODS, pod_with("p", &json!({"initContainers": init}))).await.json;
    let policies = ["initContainers", "containers"].map(|list| made["spec"][list][0]["imagePullPolicy"].clone());
    assert_eq!(policies, ["Always", "Always"]);
    let path = format!("{PODS}/before");
    let labelled = server.merge(&path, json!({"metadata": {"labels": {"a": "b"}}})).await;
    let container = &labelled.json["spec"]["containers"][0];
    assert_eq!((labelled.code, &container["imagePullPolicy"]), (200, &json!("Never")), "it has no new image");
    // What pulls never may have no new image: its policy would change, which that of a pod may not.
    let mut newer = labelled.json.clone();
    newer["spec"]["containers"][0]["image"] = json!("j");
    let refused = server.put(&path, newer.clone()).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    assert!(refused.message().ends_with("changed: containers"), "{}", refused.text);
    assert_eq!(plain.put(&path, newer).await.code, 200);
    let mut always = server.get(&format!("{PODS}/p")).await.json;
    always["spec"]["containers"][0]["image"] = json!("j");
    let updated = server.put(&format!("{PODS}/p"), always).await;
    let container = &updated.json["spec"]["containers"][0];
    assert_eq!(
        (updated.code, &container["image"], &container["imagePullPolicy"]),
        (200, &json!("j"), &json!("Always"))
    );
}

#[tokio::test]
async fn a_policy_that_has_pods_pull_less_has_them_refused() {
    let plain = Server::start().await.with_mutating_policies();
    let patch = "[JSONPatch{op: 'replace', path: '/spec/containers/0/imagePullPolicy', value: 'Never'}]";
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": patch}});
    plain.mutated_by("never", mutation, json!({})).await;
    let server = plain.with_plugins("AlwaysPullImages", "");
    server.api.evaluate_mutating_policies();
    let refused = server.post(PODS, pod("p")).await;
    let why = "pods \"p\" is forbidden: spec.containers[0].imagePullPolicy: Unsupported value: \"Never\": supported \
        values: \"Always\"";
    assert_eq!(told(&refused), (500, why));
    assert_eq!(plain.post(PODS, pod("p")).await.json["spec"]["containers"][0]["imagePullPolicy"], "Never");
}

#[tokio::test]
async fn services_get_no_external_addresses() {
    let plain = Server::start().await;
    let server = plain.with_plugins("DenyServiceExternalIPs", "");
    let service = |name: &str, addresses: &[&str]| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}], "externalIPs": addresses}})
    };
    let refused = server.post(SERVICES, service("a", &["192.0.2.1"])).await;
    assert_eq!(
        told(&refused),
        (403, "services \"a\" is forbidden: Use of external IPs is denied by admission control")
    );
    assert_eq!(plain.post(SERVICES, service("a", &["192.0.2.1"])).await.code, 201);
    let merge = async |spec: Value| server.merge(&format!("{SERVICES}/a"), json!({"spec": spec})).await.code;
    assert_eq!(merge(json!({"type": "NodePort"})).await, 200, "what it has stays");
    assert_eq!(merge(json!({"externalIPs": ["192.0.2.1", "192.0.2.2"]})).await, 403);
    assert_eq!(merge(json!({"externalIPs": []})).await, 200);
}

#[tokio::test]
async fn pods_get_what_devices_and_namespaces_say_of_their_tolerations() {
    let plain = Server::start().await;
    let server = plain.with_plugins("ExtendedResourceToleration,PodTolerationRestriction", "DefaultTolerationSeconds");
    let annotate = async |given: Value, allowed: Value| {
        let annotations = json!({"scheduler.alpha.kubernetes.io/defaultTolerations": given,
            "scheduler.alpha.kubernetes.io/tolerationsWhitelist": allowed});
        let path = format!("{NAMESPACES}/default");
        assert_eq!(plain.merge(&path, json!({"metadata": {"annotations": annotations}})).await.code, 200);
    };
    let create = async |name: &str, spec: Value| server.post(PODS, pod_with(name, &spec)).await;
    let of = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
    let asks = json!({"containers": [{"name": "c", "image": "i",
        "resources": {"limits": {"example.com/gpu": "1", "cpu": "1"}}}]});
    let made = create("a", asks).await.json;
    let pressure = "node.kubernetes.io/memory-pressure";
    assert_eq!(made["spec"]["tolerations"], json!([of(pressure), of("example.com/gpu")]));
    annotate(json!(json!([of("a")]).to_string()), json!(json!([of("a"), of("b")]).to_string())).await;
    assert_eq!(create("b", json!({})).await.json["spec"]["tolerations"], json!([of("a")]));
    assert_eq!(
        create("c", json!({"tolerations": [of("b")]})).await.json["spec"]["tolerations"],
        json!([of("b"), of("a")])
    );
    let refused = create("d", json!({"tolerations": [of("c")]})).await;
    let why =
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist";
    assert_eq!(
        (told(&refused), refused.reason()),
        ((500, why), (500, "")),
        "an error without a reason, as in Kubernetes"
    );
    annotate(Value::Null, json!("{}")).await;
    let broken = create("e", json!({"tolerations": [of("c")]})).await;
    assert_eq!(told(&broken), (500, "json: cannot unmarshal object into Go value of type []v1.Toleration"));
    assert_eq!(create("f", json!({})).await.code, 201, "it has none to be looked at");
}

#[tokio::test]
async fn pods_go_where_their_namespace_says() {
    let plain = Server::start().await;
    let server = plain.with_plugins("PodNodeSelector", "");
    let annotate = async |text: &str| {
        let annotations = json!({"scheduler.alpha.kubernetes.io/node-selector": text});
        let path = format!("{NAMESPACES}/default");
        assert_eq!(plain.merge(&path, json!({"metadata": {"annotations": annotations}})).await.code, 200);
    };
    let create =
        async |name: &str, selector: Value| server.post(PODS, pod_with(name, &json!({"nodeSelector": selector}))).await;
    assert_eq!(create("a", json!({"x": "y"})).await.json["spec"]["nodeSelector"], json!({"x": "y"}));
    annotate("env=test").await;
    assert_eq!(create("b", json!({"x": "y"})).await.json["spec"]["nodeSelector"], json!({"env": "test", "x": "y"}));
    let refused = create("c", json!({"env": "live"})).await;
    let why = "pods \"c\" is forbidden: pod node label selector conflicts with its namespace node label selector";
    assert_eq!(told(&refused), (403, why));
    annotate("env").await;
    assert_eq!(told(&create("c", json!({})).await), (500, "invalid selector: [env]"));
}

#[tokio::test]
async fn pods_are_required_to_be_apart_by_host_alone() {
    let server = Server::start().await.with_plugins("LimitPodHardAntiAffinityTopology", "");
    let apart = |key: &str| {
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": key, "labelSelector": {"matchLabels": {"a": "b"}}}]}}})
    };
    assert_eq!(server.post(PODS, pod_with("a", &apart("kubernetes.io/hostname"))).await.code, 201);
    let refused = server.post(PODS, pod_with("b", &apart("zone"))).await;
    let why = "pods \"b\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but \
        only key kubernetes.io/hostname is allowed";
    assert_eq!(told(&refused), (403, why));
}

#[tokio::test]
async fn every_write_needs_its_namespace_where_that_is_asked_for() {
    let plain = Server::start().await;
    let free = plain.with_plugins("", "NamespaceLifecycle");
    let (maps, map) = ("/api/v1/namespaces/nowhere/configmaps", config_map("m", json!({})));
    assert_eq!(told(&plain.post(maps, map.clone()).await), (404, "namespaces \"nowhere\" not found"));
    assert_eq!(free.post(maps, map.clone()).await.code, 201);
    let server = plain.with_plugins("NamespaceExists", "NamespaceLifecycle");
    let missing = (404, "namespaces \"nowhere\" not found");
    assert_eq!(told(&server.post(maps, config_map("n", json!({}))).await), missing);
    assert_eq!(told(&server.put(&format!("{maps}/m"), config_map("m", json!({"a": "b"}))).await), missing);
    assert_eq!(told(&server.delete(&format!("{maps}/m"), json!({})).await), missing);
    assert_eq!(server.post(MAPS, map).await.code, 201);
    assert_eq!(plain.delete(&format!("{maps}/m"), json!({})).await.code, 200);
}

#[tokio::test]
async fn nothing_changes_where_all_is_denied() {
    let plain = Server::start().await;
    assert_eq!(plain.post(MAPS, config_map("m", json!({}))).await.code, 201);
    assert_eq!(plain.post(PODS, pod("p")).await.code, 201);
    let server = plain.with_plugins("AlwaysDeny,AlwaysAdmit", "");
    let why = |what: &str| format!("{what} is forbidden: admission control is denying all modifications");
    let map = format!("{MAPS}/m");
    let mut generated = config_map("", json!({}));
    generated["metadata"] = json!({"generateName": "g-"});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "v"}});
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}}});
    for (answer, what) in [
        (server.post(MAPS, config_map("n", json!({}))).await, "configmaps \"n\""),
        (server.post(MAPS, generated).await, "configmaps \"g-\""),
        (server.put(&map, config_map("m", json!({"a": "b"}))).await, "configmaps \"m\""),
        (server.merge(&map, json!({"data": {"a": "b"}})).await, "configmaps \"m\""),
        (server.delete(&map, json!({})).await, "configmaps \"m\""),
        (server.delete(MAPS, json!({})).await, "configmaps \"m\""),
        (
            server.post(&format!("{ADMISSION}/validatingadmissionpolicies"), policy).await,
            "validatingadmissionpolicies.admissionregistration.k8s.io \"v\"",
        ),
        (server.post(&format!("{PODS}/p/eviction"), eviction).await, "pods \"p\""),
        (
            server.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await,
            "selfsubjectaccessreviews.authorization.k8s.io \"Unknown\"",
        ),
    ] {
        assert_eq!(told(&answer), (403, why(what).as_str()));
    }
    assert_eq!(server.get(&map).await.code, 200);
}

#[tokio::test]
async fn pods_are_made_without_the_plugins_that_fill_them_in() {
    let all = [
        "ServiceAccount",
        "Priority",
        "DefaultTolerationSeconds",
        "LimitRanger",
        "RuntimeClass",
        "PodSecurity",
        "PodTopologyLabels",
        "NodeRestriction",
        "TaintNodesByCondition",
    ];
    let server = Server::start().await.with_plugins("", &all.join(","));
    let made = server.post(PODS, pod("p")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    for field in ["serviceAccountName", "serviceAccount", "priority", "preemptionPolicy", "tolerations", "volumes"] {
        assert!(made.json["spec"].get(field).is_none(), "{field}: {}", made.text);
    }
    let mut bound = server.get(&format!("{PODS}/p")).await.json;
    bound["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(server.put(&format!("{PODS}/p"), bound).await.code, 200);
    let status = json!({"status": {"phase": "Running"}});
    assert_eq!(server.merge(&format!("{PODS}/p/status"), status).await.code, 200);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    assert!(server.post("/api/v1/nodes", node).await.json["spec"].get("taints").is_none());
}

#[tokio::test]
async fn policies_webhooks_and_quotas_are_not_asked_where_their_plugins_are_off() {
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "a"},
        "spec": {"validations": [{"expression": "false"}], "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]}}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "a"}, "spec": {"policyName": "a", "validationActions": ["Deny"]}});
    // Nobody listens there, and what cannot be asked is denied.
    let webhook = |kind: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": "a"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]}]})
    };
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"configmaps": "0"}}});
    let status = json!({"status": {"hard": {"configmaps": "0"}, "used": {"configmaps": "0"}}});
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    // What cannot be made of an object is denied.
    let mutation = json!({"patchType": "JSONPatch",
        "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/data/nothing'}]"}});
    for plugin in [
        "MutatingAdmissionPolicy",
        "ValidatingAdmissionPolicy",
        "MutatingAdmissionWebhook",
        "ValidatingAdmissionWebhook",
        "ResourceQuota",
    ] {
        let mut plain = Server::start().await;
        let made = match plugin {
            "MutatingAdmissionPolicy" => {
                plain = plain.with_mutating_policies();
                plain.mutated_by("a", mutation.clone(), json!({})).await;
                plain.get("/apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicybindings/a").await
            }
            "ValidatingAdmissionPolicy" => {
                let made = plain.post(&format!("{ADMISSION}/validatingadmissionpolicies"), policy.clone()).await;
                assert_eq!(made.code, 201, "{}", made.text);
                plain.post(&format!("{ADMISSION}/validatingadmissionpolicybindings"), binding.clone()).await
            }
            "MutatingAdmissionWebhook" => {
                plain
                    .post(
                        &format!("{ADMISSION}/mutatingwebhookconfigurations"),
                        webhook("MutatingWebhookConfiguration"),
                    )
                    .await
            }
            "ValidatingAdmissionWebhook" => {
                plain
                    .post(
                        &format!("{ADMISSION}/validatingwebhookconfigurations"),
                        webhook("ValidatingWebhookConfiguration"),
                    )
                    .await
            }
            _ => {
                let made = plain.post(quotas, quota.clone()).await;
                assert_eq!(plain.merge(&format!("{quotas}/q/status"), status.clone()).await.code, 200);
                made
            }
        };
        assert!(matches!(made.code, 200 | 201), "{plugin}: {}", made.text);
        let map = config_map("m", json!({}));
        let denied = plain.post(MAPS, map.clone()).await;
        assert!(denied.code >= 400, "{plugin}");
        let (off, other) = (plain.with_plugins("", plugin), plain.with_plugins("", "Priority"));
        for server in [&off, &other] {
            server.api.evaluate_mutating_policies();
        }
        assert_eq!(other.post(MAPS, map.clone()).await.code, denied.code, "{plugin}");
        assert_eq!(off.post(MAPS, map).await.code, 201, "{plugin}");
    }
}
