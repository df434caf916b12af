//! A user of so many bindings that what they may do is indexed.

use http::Method;
use serde_json::json;

use super::{
    subject_index,
    tests::{Cluster, RBAC, binding, namespace, reads, role, user},
};
use crate::{auth::authorizer::Verdict, identity::Identity};

#[tokio::test]
async fn a_user_of_many_bindings_gains_and_loses_rights_as_others_do() {
    let cluster = Cluster::new();
    namespace(&cluster, "a").await;
    let (roles, bindings) = (format!("{RBAC}/namespaces/a/roles"), format!("{RBAC}/namespaces/a/rolebindings"));
    let jane = user("jane", &[]);
    let subjects = || json!([{"kind": "User", "name": "jane"}]);
    for number in 0..subject_index::FROM + 8 {
        let name = format!("r{number:03}");
        assert_eq!(cluster.post(&roles, role("Role", &name, reads(&format!("things{number}")))).await.0, 201);
        let made = cluster.post(&bindings, binding("RoleBinding", &name, &format!("Role/{name}"), subjects())).await;
        assert_eq!(made.0, 201, "{}", made.1);
    }
    let services = "/api/v1/namespaces/a/services";
    let reason = |verdict| match verdict {
        Verdict::Allowed { reason } | Verdict::Refused { reason, .. } => reason,
    };
    assert_eq!(reason(cluster.decide(&jane, "GET", services)), "");
    assert_eq!(
        reason(cluster.decide(&jane, "GET", "/api/v1/namespaces/a/things39")),
        "RBAC: allowed by RoleBinding \"r039/a\" of Role \"r039\" to User \"jane\""
    );
    let indexes = || cluster.api.authorizer().rbac().policy().indexes();
    assert_eq!(indexes(), 1);
    // Of others.
    assert_eq!(cluster.post(&roles, role("Role", "unbound", reads("things"))).await.0, 201);
    let others = json!([{"kind": "User", "name": "joe"}]);
    assert_eq!(cluster.post(&bindings, binding("RoleBinding", "joe", "Role/r001", others)).await.0, 201);
    assert_eq!(indexes(), 1, "what does not concern jane leaves her index");
    let path = format!("{roles}/r007");
    let test = || Identity::control("test");
    assert_eq!(cluster.call(test(), Method::PUT, &path, role("Role", "r007", reads("services"))).await.0, 200);
    assert!(cluster.allows(&jane, "GET", services) && !cluster.allows(&jane, "GET", "/api/v1/namespaces/a/things7"));
    assert_eq!(cluster.call(test(), Method::DELETE, &path, json!({})).await.0, 200);
    assert_eq!(
        reason(cluster.decide(&jane, "GET", services)),
        "RBAC: role.rbac.authorization.k8s.io \"r007\" not found"
    );
    assert!(!cluster.allows(&jane, "GET", "/api/v1/namespaces/b/things8"), "another namespace");
    assert!(!cluster.allows(&user("joe", &[]), "GET", "/api/v1/namespaces/a/things8"));
    let last = format!("{bindings}/r039");
    assert_eq!(cluster.call(test(), Method::DELETE, &last, json!({})).await.0, 200);
    assert_eq!(indexes(), 0, "her grants changed");
    assert!(!cluster.allows(&jane, "GET", "/api/v1/namespaces/a/things39"));
}
