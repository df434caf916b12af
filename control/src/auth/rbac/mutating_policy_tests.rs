//! Who may point mutating policies at parameters.

use http::Method;
use serde_json::{Value, json};

use super::tests::{Cluster, RBAC, binding, role, user};
use crate::kinds::{Kind, admissionregistration};

#[tokio::test]
async fn a_mutating_policy_points_only_at_what_its_writer_can_read() {
    let cluster = Cluster::with_defaults().await;
    for kind in admissionregistration::BETA {
        cluster.api.kinds().add(Kind::from(kind)).unwrap();
    }
    let group = "/apis/admissionregistration.k8s.io/v1beta1";
    let policy = json!({"metadata": {"name": "p"}, "spec": {"paramKind": {"apiVersion": "v1", "kind": "Secret"},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}],
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods"]}]}}});
    let bound = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p",
        "paramRef": {"name": "s", "namespace": "kube-system", "parameterNotFoundAction": "Deny"}}});
    let write = |plural: &str, object: &Value| {
        let (path, object) = (format!("{group}/{plural}"), object.clone());
        let cluster = &cluster;
        async move { cluster.call(user("jane", &[]), Method::POST, &path, object).await }
    };
    let (code, answer) = write("mutatingadmissionpolicies", &policy).await;
    assert_eq!(code, 422);
    assert!(answer["message"].as_str().unwrap().contains("on all objects of the referenced paramKind"), "{answer}");
    let (code, answer) = write("mutatingadmissionpolicybindings", &bound).await;
    assert_eq!(code, 422);
    assert!(answer["message"].as_str().unwrap().contains("unable to get policy p"), "{answer}");
    let secrets = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
    cluster.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "secrets", secrets)).await;
    let subjects = json!([{"kind": "User", "name": "jane"}]);
    let all = binding("ClusterRoleBinding", "s", "ClusterRole/secrets", subjects);
    cluster.post(&format!("{RBAC}/clusterrolebindings"), all).await;
    for (plural, object) in [("mutatingadmissionpolicies", policy), ("mutatingadmissionpolicybindings", bound)] {
        let (code, answer) = write(plural, &object).await;
        assert_eq!(code, 201, "{answer}");
    }
}
