//! Who may create by a `PUT` or an apply: the verb of the request alone is not enough.

use http::{Method, Request};
use serde_json::{Value, json};

use super::tests::{Cluster, RBAC, binding, namespace, reads, role, user};
use crate::identity::Identity;

/// A cluster where `jane` has these verbs on leases, config maps and roles.
async fn where_jane_may(verbs: &[&str]) -> Cluster {
    let cluster = Cluster::with_defaults().await;
    namespace(&cluster, "a").await;
    let rules = json!([{"verbs": verbs, "apiGroups": ["", "coordination.k8s.io", "rbac.authorization.k8s.io"],
        "resources": ["leases", "configmaps", "clusterroles"]}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "writer", rules)).await;
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    let bound = binding("ClusterRoleBinding", "writer", "ClusterRole/writer", subjects);
    cluster.post(&format!("{RBAC}/clusterrolebindings"), bound).await;
    cluster
}

async fn apply(cluster: &Cluster, user: Identity, object: &Value) -> (u16, Value) {
    let path = "/api/v1/namespaces/a/configmaps/m?fieldManager=test";
    let request = Request::patch(path).header("content-type", "application/apply-patch+yaml");
    let response = cluster.api.answer_as(user, request.body(object.to_string().into()).unwrap()).await;
    let code = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap())
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/a/leases/l";

fn lease(seconds: i32) -> Value {
    json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": seconds}})
}

#[tokio::test]
async fn to_create_by_a_put_or_an_apply_takes_the_verb_create() {
    let cluster = where_jane_may(&["get", "update", "patch"]).await;
    let jane = user("jane", &[]);
    let put = |path: &str, object: Value| {
        let (cluster, jane, path) = (&cluster, jane.clone(), path.to_owned());
        async move { cluster.call(jane, Method::PUT, &path, object).await }
    };
    let (code, answer) = put(LEASE, lease(5)).await;
    let why = "leases.coordination.k8s.io \"l\" is forbidden: User \"jane\" cannot create resource \"leases\" in API \
               group \"coordination.k8s.io\" in the namespace \"a\"";
    assert_eq!((code, &answer["message"]), (403, &json!(why)));
    assert_eq!(put(&format!("{LEASE}?dryRun=All"), lease(5)).await.0, 403, "a dry run, too");
    // As in Kubernetes, what is wrong with the object is told before.
    assert_eq!(put(LEASE, lease(-5)).await.0, 422);
    assert_eq!(put(&LEASE.replace("/a/", "/none/"), lease(5)).await.0, 404, "the namespace");
    assert_eq!(cluster.call(Identity::control("test"), Method::GET, LEASE, json!({})).await.0, 404);

    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let (code, answer) = apply(&cluster, jane.clone(), &map).await;
    assert!(code == 403 && answer["message"].as_str().unwrap().contains("cannot create"), "{answer}");
    let mut other = map.clone();
    other["metadata"]["uid"] = json!("u");
    assert_eq!(apply(&cluster, jane.clone(), &other).await.0, 409, "a uid is looked at before");

    // The update of what is there takes no more than its own verb.
    assert_eq!(cluster.call(Identity::control("test"), Method::PUT, LEASE, lease(5)).await.0, 201);
    let (_, mut stored) = cluster.call(jane.clone(), Method::GET, LEASE, json!({})).await;
    stored["spec"]["leaseDurationSeconds"] = json!(6);
    assert_eq!(cluster.call(jane, Method::PUT, LEASE, stored).await.0, 200);
}

#[tokio::test]
async fn who_may_create_creates_by_a_put_what_is_not_more_than_they_have() {
    let cluster = where_jane_may(&["get", "create", "update"]).await;
    let jane = user("jane", &[]);
    assert_eq!(cluster.call(jane.clone(), Method::PUT, LEASE, lease(5)).await.0, 201);
    let path = format!("{RBAC}/clusterroles/new");
    let put = |rules: Value| cluster.call(jane.clone(), Method::PUT, &path, role("ClusterRole", "new", rules));
    let (code, answer) = put(reads("secrets")).await;
    assert!(code == 403 && answer["message"].as_str().unwrap().contains("not currently held"), "{answer}");
    let own = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]}]);
    assert_eq!(put(own).await.0, 201);
}
