//! Aggregated ClusterRoles.

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};

use super::{Cluster, PATIENCE};

fn role(value: Value) -> ClusterRole {
    serde_json::from_value(value).expect("a valid object")
}

async fn wait_for_rules(roles: &Api<ClusterRole>, count: usize) {
    let has =
        move |role: Option<&ClusterRole>| role.is_some_and(|role| role.rules.as_ref().map_or(0, Vec::len) == count);
    let wanted = await_condition(roles.clone(), "gathering", has);
    tokio::time::timeout(PATIENCE, wanted).await.expect("in time").expect("a watch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregated_role_follows_the_roles_that_it_gathers() {
    let cluster = Cluster::start(0).await;
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let params = PostParams::default();
    let gathering = json!({"metadata": {"name": "gathering"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "gathering"}}]}});
    roles.create(&params, &role(gathering)).await.expect("created");
    for resource in ["pods", "services"] {
        let part = json!({"metadata": {"name": resource, "labels": {"to": "gathering"}},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]});
        roles.create(&params, &role(part)).await.expect("created");
    }
    wait_for_rules(&roles, 2).await;
    roles.delete("pods", &DeleteParams::default()).await.expect("deleted");
    wait_for_rules(&roles, 1).await;
    cluster.stop().await;
}
