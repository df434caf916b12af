//! Decisions about real objects in a real store, and how the index follows their changes.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::{
    allocation::Allocator,
    api::{Api, open_store},
    auth::{attributes::Attributes, authorizer::Verdict},
    bootstrap,
    identity::{AUTHENTICATED, Identity, MASTERS},
    kinds::Registry,
    request::tests::info,
    store::Store,
};

pub const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

pub struct Cluster {
    pub api: Api,
    store: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

pub fn user(name: &str, groups: &[&str]) -> Identity {
    Identity::authenticated(name.into(), groups.iter().map(|group| (*group).into()).collect())
}

impl Cluster {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kinds = Registry::default();
        let store: Arc<dyn Store> = Arc::new(open_store(&dir.path().join("store"), &kinds).unwrap());
        let allocator = Allocator::new("10.96.0.0/12".parse().unwrap(), 30000..=32767);
        Self { api: Api::new(store.clone(), kinds, allocator, "127.0.0.1:6443"), store, _dir: dir }
    }

    pub async fn with_defaults() -> Self {
        let cluster = Self::new();
        for name in ["kube-system", "kube-public"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            assert_eq!(cluster.post("/api/v1/namespaces", namespace).await.0, 201);
        }
        for object in bootstrap::rbac::objects() {
            let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
            let path = match object["metadata"]["namespace"].as_str() {
                Some(namespace) => format!("{RBAC}/namespaces/{namespace}/{plural}"),
                None => format!("{RBAC}/{plural}"),
            };
            let answer = cluster.post(&path, object).await;
            assert_eq!(answer.0, 201, "{}", answer.1);
        }
        cluster
    }

    pub async fn call(&self, identity: Identity, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = http::Request::builder().method(method).uri(path).body(body.to_string().into()).unwrap();
        let response = self.api.answer_as(identity, request).await;
        let code = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap())
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Identity::control("test"), Method::POST, path, body).await
    }

    pub fn decide(&self, identity: &Identity, method: &str, uri: &str) -> Verdict {
        self.api.authorizer().decide_here(identity, identity, &Attributes::of(&info(method, uri))).unwrap()
    }

    pub fn allows(&self, identity: &Identity, method: &str, uri: &str) -> bool {
        matches!(self.decide(identity, method, uri), Verdict::Allowed { .. })
    }
}

pub fn role(kind: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules})
}

pub fn binding(kind: &str, name: &str, role: &str, subjects: Value) -> Value {
    let (role_kind, role_name) = role.split_once('/').unwrap();
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role_name}, "subjects": subjects})
}

pub fn reads(resource: &str) -> Value {
    json!([{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": [resource]}])
}

pub async fn namespace(cluster: &Cluster, name: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    assert_eq!(cluster.post("/api/v1/namespaces", namespace).await.0, 201);
}

#[tokio::test]
async fn a_binding_counts_from_its_answer_on_and_until_it_is_deleted() {
    let cluster = Cluster::new();
    namespace(&cluster, "a").await;
    let jane = user("jane", &["devs"]);
    let pods = "/api/v1/namespaces/a/pods";
    assert!(!cluster.allows(&jane, "GET", pods));
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "pod-reader", reads("pods"))).await;
    let devs = json!([{"kind": "Group", "name": "devs"}]);
    let bindings = format!("{RBAC}/namespaces/a/rolebindings");
    let created = cluster.post(&bindings, binding("RoleBinding", "b", "ClusterRole/pod-reader", devs)).await;
    assert_eq!(created.0, 201, "{}", created.1);
    let reason = "RBAC: allowed by RoleBinding \"b/a\" of ClusterRole \"pod-reader\" to Group \"devs\"";
    assert_eq!(cluster.decide(&jane, "GET", pods), Verdict::Allowed { reason: reason.into() });
    assert!(!cluster.allows(&jane, "GET", "/api/v1/namespaces/b/pods"), "another namespace");
    assert!(!cluster.allows(&jane, "GET", "/api/v1/pods"), "all namespaces");
    assert!(!cluster.allows(&user("joe", &[]), "GET", pods));

    // The role takes effect through the binding.
    let wider = role("ClusterRole", "pod-reader", reads("*"));
    let path = format!("{RBAC}/clusterroles/pod-reader");
    assert_eq!(cluster.call(Identity::control("test"), Method::PUT, &path, wider).await.0, 200);
    assert!(cluster.allows(&jane, "GET", "/api/v1/namespaces/a/secrets"));
    assert_eq!(cluster.call(Identity::control("test"), Method::DELETE, &path, json!({})).await.0, 200);
    let reason = "RBAC: clusterrole.rbac.authorization.k8s.io \"pod-reader\" not found".to_owned();
    assert_eq!(cluster.decide(&jane, "GET", pods), Verdict::no_opinion(reason));

    let path = format!("{bindings}/b");
    assert_eq!(cluster.call(Identity::control("test"), Method::DELETE, &path, json!({})).await.0, 200);
    assert_eq!(cluster.decide(&jane, "GET", pods), Verdict::no_opinion(""));
}

#[tokio::test]
async fn subjects_that_leave_a_binding_lose_what_it_gave() {
    let cluster = Cluster::new();
    namespace(&cluster, "a").await;
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "r", reads("pods"))).await;
    let bind = |subjects: Value| binding("ClusterRoleBinding", "b", "ClusterRole/r", subjects);
    let account = json!({"kind": "ServiceAccount", "name": "ci", "namespace": "a"});
    let both = bind(json!([{"kind": "User", "name": "jane"}, account, account]));
    cluster.post(&format!("{RBAC}/clusterrolebindings"), both).await;
    let (jane, ci) = (user("jane", &[]), user("system:serviceaccount:a:ci", &[]));
    assert!(cluster.allows(&jane, "GET", "/api/v1/pods") && cluster.allows(&ci, "GET", "/api/v1/pods"));
    let path = format!("{RBAC}/clusterrolebindings/b");
    let answer = cluster.call(Identity::control("test"), Method::PUT, &path, bind(json!([account]))).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
    assert!(!cluster.allows(&jane, "GET", "/api/v1/pods") && cluster.allows(&ci, "GET", "/api/v1/pods"));
}

#[tokio::test]
async fn an_index_that_missed_changes_is_read_anew() {
    let cluster = Cluster::new();
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "r", reads("pods"))).await;
    let jane = user("jane", &[]);
    assert!(!cluster.allows(&jane, "GET", "/api/v1/pods"));
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    let bound = binding("ClusterRoleBinding", "b", "ClusterRole/r", subjects);
    cluster.post(&format!("{RBAC}/clusterrolebindings"), bound).await;
    cluster.store.compact(cluster.store.published());
    assert!(cluster.allows(&jane, "GET", "/api/v1/pods"));
}

#[tokio::test]
async fn default_roles_give_everyone_discovery_and_strangers_health() {
    let cluster = Cluster::with_defaults().await;
    let (joe, stranger) = (user("joe", &[]), Identity::anonymous());
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert!(cluster.allows(&joe, "GET", path) && cluster.allows(&stranger, "GET", path), "{path}");
    }
    for path in ["/api", "/apis", "/apis/apps/v1", "/openapi/v3", "/openapi/v3/api/v1", "/openapi/v2"] {
        assert!(cluster.allows(&joe, "GET", path), "{path}");
        assert!(!cluster.allows(&stranger, "GET", path), "{path}");
    }
    for path in ["/api/", "/apis//", "/version/", "/openapi/v2/"] {
        assert!(cluster.allows(&joe, "GET", path), "{path}");
    }
    for path in ["/healthz/", "/livez/", "/version//", "/"] {
        assert!(!cluster.allows(&joe, "GET", path) && !cluster.allows(&stranger, "GET", path), "{path}");
    }
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert!(cluster.allows(&joe, "POST", review) && !cluster.allows(&stranger, "POST", review));
    for (method, uri) in
        [("GET", "/api/v1/pods"), ("POST", "/api/v1/namespaces"), ("GET", "/metrics"), ("POST", "/api")]
    {
        assert!(!cluster.allows(&joe, method, uri) && !cluster.allows(&stranger, method, uri), "{method} {uri}");
    }
    assert!(cluster.allows(&user("root", &[MASTERS]), "DELETE", "/api/v1/nodes/n"));
    let monitoring = user("prometheus", &["system:monitoring"]);
    assert!(cluster.allows(&monitoring, "GET", "/metrics"));
}

#[tokio::test]
async fn an_aggregated_role_needs_an_administrator() {
    let cluster = Cluster::with_defaults().await;
    let rules =
        json!([{"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterrolebindings"]}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "some", rules)).await;
    let mut gathering = role("ClusterRole", "gathering", json!([]));
    gathering["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let path = format!("{RBAC}/clusterroles");
    let (code, answer) = cluster.call(user("jane", &[]), Method::POST, &path, gathering.clone()).await;
    assert_eq!(code, 403);
    assert!(
        answer["message"].as_str().unwrap().ends_with("must have cluster-admin privileges to use the aggregationRule")
    );
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    let all = binding("ClusterRoleBinding", "all", "ClusterRole/cluster-admin", subjects);
    cluster.post(&format!("{RBAC}/clusterrolebindings"), all).await;
    assert_eq!(cluster.call(user("jane", &[]), Method::POST, &path, gathering).await.0, 201);
}

#[tokio::test]
async fn reviews_answer_by_roles_and_bindings() {
    let cluster = Cluster::with_defaults().await;
    namespace(&cluster, "a").await;
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "pods", reads("pods"))).await;
    let bindings = format!("{RBAC}/namespaces/a/rolebindings");
    cluster.post(&bindings, binding("RoleBinding", "b", "ClusterRole/pods", subjects)).await;
    let asked = json!({"verb": "get", "resource": "pods", "namespace": "a"});
    let api_version = "authorization.k8s.io/v1";
    let review = json!({"apiVersion": api_version, "kind": "SubjectAccessReview",
        "spec": {"user": "jane", "resourceAttributes": asked}});
    let path = format!("/apis/{api_version}/subjectaccessreviews");
    let (code, answer) = cluster.post(&path, review.clone()).await;
    assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(true)), "{answer}");
    assert!(answer["status"]["reason"].as_str().unwrap().starts_with("RBAC: allowed by RoleBinding \"b/a\""));
    let mut nobody = review.clone();
    nobody["spec"]["user"] = json!("joe");
    assert_eq!(cluster.post(&path, nobody).await.1["status"], json!({"allowed": false}));
    let (code, answer) =
        cluster.post(&path, json!({"apiVersion": api_version, "kind": "SubjectAccessReview", "spec": {}})).await;
    assert_eq!((code, &answer["reason"]), (422, &json!("Invalid")));

    let mut local = review.clone();
    local["kind"] = json!("LocalSubjectAccessReview");
    let path = format!("/apis/{api_version}/namespaces/a/localsubjectaccessreviews");
    let (code, answer) = cluster.post(&path, local.clone()).await;
    assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(true)), "{answer}");
    local["spec"]["resourceAttributes"]["namespace"] = json!("b");
    assert_eq!(cluster.post(&path, local).await.0, 422);

    let own =
        json!({"apiVersion": api_version, "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": asked}});
    let path = format!("/apis/{api_version}/selfsubjectaccessreviews");
    let (_, answer) = cluster.call(user("jane", &[]), Method::POST, &path, own).await;
    assert_eq!(answer["status"]["allowed"], true);

    let rules = json!({"apiVersion": api_version, "kind": "SelfSubjectRulesReview", "spec": {"namespace": "a"}});
    let path = format!("/apis/{api_version}/selfsubjectrulesreviews");
    let (code, answer) = cluster.call(user("jane", &[]), Method::POST, &path, rules).await;
    let listed = answer["status"]["resourceRules"].as_array().unwrap();
    assert_eq!((code, &answer["status"]["incomplete"]), (201, &json!(false)));
    let pods = json!({"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]});
    assert!(listed.contains(&pods), "{answer}");
    assert!(!answer["status"]["nonResourceRules"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_policy_points_only_at_what_its_writer_can_read() {
    let cluster = Cluster::with_defaults().await;
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p.example.com"}, "spec": {"paramKind": {"apiVersion": "v1", "kind": "Secret"},
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["pods"]}]}, "validations": [{"expression": "true"}]}});
    let jane = user("jane", &[]);
    let (code, answer) = cluster.call(jane.clone(), Method::POST, path, policy.clone()).await;
    assert_eq!(code, 422);
    assert_eq!(
        answer["details"]["causes"][0]["message"],
        "Forbidden: user &{jane  [system:authenticated] map[]} must have \"get\" permission on all objects of the \
         referenced paramKind (kind=Secret, apiVersion=v1)"
    );
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    let bound = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "b"}, "spec": {"policyName": "p.example.com", "validationActions": ["Deny"],
            "paramRef": {"name": "s", "namespace": "kube-system", "parameterNotFoundAction": "Deny"}}});
    let refused = cluster.call(jane.clone(), Method::POST, bindings, bound.clone()).await;
    assert!(refused.1["message"].as_str().unwrap().contains("unable to get policy p.example.com"), "{}", refused.1);

    let secrets = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "secrets", secrets)).await;
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    let all = binding("ClusterRoleBinding", "s", "ClusterRole/secrets", subjects);
    cluster.post(&format!("{RBAC}/clusterrolebindings"), all).await;
    let (code, answer) = cluster.call(jane.clone(), Method::POST, path, policy).await;
    assert_eq!(code, 201, "{answer}");
    let (code, answer) = cluster.call(jane, Method::POST, bindings, bound).await;
    assert_eq!(code, 201, "{answer}");
}

#[tokio::test]
async fn a_refusal_names_so_many_rules_and_no_more() {
    let cluster = Cluster::with_defaults().await;
    let writes =
        json!([{"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "writes", writes)).await;
    let all = binding("ClusterRoleBinding", "w", "ClusterRole/writes", json!([{"kind": "User", "name": "jane"}]));
    cluster.post(&format!("{RBAC}/clusterrolebindings"), all).await;
    let resources: Vec<String> = (0..1000).map(|n| format!("r{n}")).collect();
    let many = json!([{"verbs": ["get"], "apiGroups": ["a.io"], "resources": resources}]);
    let path = format!("{RBAC}/clusterroles");
    let role = role("ClusterRole", "many", many);
    let (code, answer) = cluster.call(user("jane", &[]), Method::POST, &path, role).await;
    let message = answer["message"].as_str().unwrap();
    assert_eq!((code, message.lines().count()), (403, 202), "{message}");
    assert!(message.ends_with("and 800 more"), "{message}");
}

#[tokio::test]
async fn the_grants_of_others_cost_a_decision_nothing() {
    let cluster = Cluster::new();
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "r", reads("pods"))).await;
    for n in 0..50 {
        let subjects = json!([{"kind": "User", "name": format!("user-{n}")}, {"kind": "Group", "name": "others"}]);
        let bound = binding("ClusterRoleBinding", &format!("b{n}"), "ClusterRole/r", subjects);
        assert_eq!(cluster.post(&format!("{RBAC}/clusterrolebindings"), bound).await.0, 201);
    }
    let policy = cluster.api.authorizer().rbac().policy();
    let visited = |identity: &Identity| policy.rules_of(identity, "default").0.len();
    assert_eq!(visited(&user("user-7", &["devs"])), 1);
    assert_eq!(visited(&user("nobody", &[])), 0);
    assert_eq!(visited(&user("nobody", &["others"])), 50);
}

#[test]
fn everyone_authenticated_is_in_a_group() {
    assert!(user("joe", &[]).is_in(AUTHENTICATED));
    assert!(!Identity::anonymous().is_in(AUTHENTICATED));
}

#[tokio::test]
async fn an_extension_server_asks_about_its_users_and_reads_whom_to_trust() {
    let cluster = Cluster::with_defaults().await;
    let account = "system:serviceaccount:wardle:api";
    let server = user(account, &["system:serviceaccounts", "system:serviceaccounts:wardle"]);
    let subject = json!([{"kind": "ServiceAccount", "name": "api", "namespace": "wardle"}]);
    let (tokens, accesses) =
        ("/apis/authentication.k8s.io/v1/tokenreviews", "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    let token = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": "x"}});
    // As `k8s.io/apiserver` asks, with what the front proxy said about the user.
    let access = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "metadata": {"creationTimestamp": null}, "spec": {"user": "jane", "groups": ["dev", "system:authenticated"],
        "extra": {"scopes": ["a"]}, "uid": "1", "resourceAttributes": {"verb": "list", "namespace": "default",
            "group": "wardle.example.com", "version": "v1alpha1", "resource": "flunders"}},
        "status": {"allowed": false}});
    for (path, review) in [(tokens, &token), (accesses, &access)] {
        assert_eq!(cluster.decide(&server, "POST", path), Verdict::no_opinion(""), "{review}");
    }
    let delegator = binding("ClusterRoleBinding", "delegator", "ClusterRole/system:auth-delegator", subject.clone());
    assert_eq!(cluster.post(&format!("{RBAC}/clusterrolebindings"), delegator).await.0, 201);
    let reader = binding("RoleBinding", "reader", "Role/extension-apiserver-authentication-reader", subject);
    assert_eq!(cluster.post(&format!("{RBAC}/namespaces/kube-system/rolebindings"), reader).await.0, 201);

    assert!(cluster.allows(&server, "POST", tokens) && cluster.allows(&server, "POST", accesses));
    let (code, answer) = cluster.call(server.clone(), Method::POST, tokens, token).await;
    assert_eq!((code, &answer["status"]["error"]), (201, &json!("invalid bearer token")));
    let (code, answer) = cluster.call(server.clone(), Method::POST, accesses, access.clone()).await;
    assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(false)));
    let flunders = json!([{"verbs": ["list"], "apiGroups": ["wardle.example.com"], "resources": ["flunders"]}]);
    assert_eq!(cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "reads", flunders)).await.0, 201);
    let group = json!([{"kind": "Group", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"}]);
    let bound = binding("ClusterRoleBinding", "dev", "ClusterRole/reads", group);
    assert_eq!(cluster.post(&format!("{RBAC}/clusterrolebindings"), bound).await.0, 201);
    let (_, answer) = cluster.call(server.clone(), Method::POST, accesses, access).await;
    assert_eq!(answer["status"]["allowed"], true);

    let maps = "/api/v1/namespaces/kube-system/configmaps";
    let own = "extension-apiserver-authentication";
    assert!(cluster.allows(&server, "GET", &format!("{maps}/{own}")));
    assert!(cluster.allows(&server, "GET", &format!("{maps}?watch=1&fieldSelector=metadata.name%3D{own}")));
    assert!(!cluster.allows(&server, "GET", maps));
    assert!(!cluster.allows(&server, "GET", &format!("{maps}/other")));
}
