//! Who may write roles and bindings that give more than they have.

use http::Method;
use serde_json::{Value, json};

use super::tests::{Cluster, RBAC, binding, namespace, reads, role, user};
use crate::auth::authorizer::ChainLink;

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let cluster = Cluster::with_defaults().await;
    namespace(&cluster, "a").await;
    let jane = user("jane", &[]);
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "pods", reads("pods"))).await;
    let own = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
    cluster.post(&format!("{RBAC}/namespaces/a/roles"), role("Role", "own", own.clone())).await;
    let bindings = format!("{RBAC}/namespaces/a/rolebindings");
    cluster.post(&bindings, binding("RoleBinding", "own", "Role/own", subjects.clone())).await;

    let roles = format!("{RBAC}/namespaces/a/roles");
    let (code, answer) = cluster.call(jane.clone(), Method::POST, &roles, role("Role", "x", reads("pods"))).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
         Verbs:[\"watch\"]}"
    );
    let (code, answer) = cluster.call(jane.clone(), Method::POST, &roles, role("Role", "x", own)).await;
    assert_eq!(code, 201, "{answer}");

    let bind = |name: &str, role: &str| binding("RoleBinding", name, role, json!([{"kind": "User", "name": "joe"}]));
    let post = |object: Value| cluster.call(jane.clone(), Method::POST, &bindings, object);
    let (code, answer) = post(bind("y", "ClusterRole/pods")).await;
    assert_eq!(code, 403);
    assert!(answer["message"].as_str().unwrap().contains("attempting to grant RBAC permissions"), "{answer}");
    let (code, answer) = post(bind("y", "ClusterRole/none")).await;
    assert_eq!(code, 404);
    assert_eq!(answer["message"], "rolebindings.rbac.authorization.k8s.io \"none\" not found");
    let everywhere = binding("ClusterRoleBinding", "y", "Role/own", json!([{"kind": "User", "name": "joe"}]));
    let cluster_bindings = format!("{RBAC}/clusterrolebindings");
    let (code, answer) = cluster.call(jane.clone(), Method::POST, &cluster_bindings, everywhere).await;
    assert_eq!((code, &answer["message"]), (400, &json!("Namespace parameter required.")));
    let mut unnamed = role("Role", "", json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]));
    unnamed["metadata"] = json!({"generateName": "made-"});
    let (code, answer) = cluster.call(jane.clone(), Method::POST, &roles, unnamed).await;
    let begin = "roles.rbac.authorization.k8s.io is forbidden: user \"jane\"";
    assert_eq!(code, 403);
    assert!(answer["message"].as_str().unwrap().starts_with(begin), "{answer}");
    assert_eq!(post(bind("y", "Role/own")).await.0, 201);

    // Only a change of what is granted is compared: others may be deleted and let go.
    let path = format!("{RBAC}/clusterroles/pods");
    let finalizers = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let request = http::Request::builder()
        .method(Method::PATCH)
        .uri(&path)
        .header("content-type", "application/merge-patch+json")
        .body(finalizers.to_string().into())
        .unwrap();
    assert_eq!(cluster.api.answer_as(jane.clone(), request).await.status(), 200);
}

#[tokio::test]
async fn escalate_and_bind_allow_what_one_does_not_have() {
    let cluster = Cluster::with_defaults().await;
    namespace(&cluster, "a").await;
    let jane = user("jane", &[]);
    let rules = json!([
        {"verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"]},
        {"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
            "resourceNames": ["view"]}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "grantor", rules)).await;
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    let bindings = format!("{RBAC}/clusterrolebindings");
    cluster.post(&bindings, binding("ClusterRoleBinding", "g", "ClusterRole/grantor", subjects)).await;
    let post = |path: String, object: Value| {
        let (cluster, jane) = (&cluster, jane.clone());
        async move { cluster.call(jane, Method::POST, &path, object).await.0 }
    };
    assert_eq!(post(format!("{RBAC}/namespaces/a/roles"), role("Role", "x", reads("secrets"))).await, 201);
    assert_eq!(post(format!("{RBAC}/clusterroles"), role("ClusterRole", "x", reads("secrets"))).await, 403);
    let bind = |role: &str| binding("ClusterRoleBinding", &role.to_lowercase().replace('/', "-"), role, json!([]));
    assert_eq!(post(bindings.clone(), bind("ClusterRole/view")).await, 201);
    assert_eq!(post(bindings.clone(), bind("ClusterRole/edit")).await, 201, "it has no rules yet");
    assert_eq!(post(bindings, bind("ClusterRole/cluster-admin")).await, 403);
}

#[tokio::test]
async fn the_right_to_escalate_one_role_is_for_requests_whose_path_names_it() {
    let cluster = Cluster::with_defaults().await;
    namespace(&cluster, "a").await;
    let jane = user("jane", &[]);
    let rules = json!([
        {"verbs": ["create", "update", "patch", "escalate"], "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["roles"], "resourceNames": ["x"]}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "grantor", rules)).await;
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    let bindings = format!("{RBAC}/clusterrolebindings");
    cluster.post(&bindings, binding("ClusterRoleBinding", "g", "ClusterRole/grantor", subjects)).await;
    let roles = format!("{RBAC}/namespaces/a/roles");
    let apply = |name: &str| {
        let uri = format!("{roles}/{name}?fieldManager=test");
        let request = http::Request::patch(uri).header("content-type", "application/apply-patch+yaml");
        let request = request.body(role("Role", name, reads("secrets")).to_string().into()).unwrap();
        let (cluster, jane) = (&cluster, jane.clone());
        async move { cluster.api.answer_as(jane, request).await.status().as_u16() }
    };
    let (code, _) = cluster.call(jane.clone(), Method::POST, &roles, role("Role", "x", reads("secrets"))).await;
    assert_eq!(code, 403, "the path has no name");
    assert_eq!(apply("y").await, 403, "another role");
    assert_eq!(apply("x").await, 201);
    let wider = role("Role", "x", reads("*"));
    let (code, answer) = cluster.call(jane, Method::PUT, &format!("{roles}/x"), wider).await;
    assert_eq!(code, 200, "{answer}");
}

#[tokio::test]
async fn whoever_authorises_may_allow_to_escalate_and_bind() {
    let cluster = Cluster::with_defaults().await;
    cluster.api.authorizer().decide_by(vec![ChainLink::AlwaysAllow]);
    for (plural, object) in [
        ("clusterroles", role("ClusterRole", "x", reads("secrets"))),
        ("clusterrolebindings", binding("ClusterRoleBinding", "x", "ClusterRole/cluster-admin", json!([]))),
    ] {
        let (code, answer) = cluster.call(user("jane", &[]), Method::POST, &format!("{RBAC}/{plural}"), object).await;
        assert_eq!(code, 201, "{answer}");
    }
}
