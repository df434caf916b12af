//! The objects that both servers get before anything is asked: roles and bindings, pods on nodes and what they name.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    exchange::Request,
    kit::Result,
    servers::{Actor, Servers, Side},
};

pub const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
/// Where roles are bound, and where they are not.
pub const NAMESPACES: [&str; 2] = ["team-a", "team-b"];

/// A role that is bound to the user of its name.
pub struct MadeRole {
    pub name: &'static str,
    pub rules: Value,
    /// Bound there; everywhere if `None`.
    pub namespace: Option<&'static str>,
}

/// Roles that use every form of a rule, and those of who tries to get more.
pub fn made_roles() -> Vec<MadeRole> {
    let everywhere = |name, rules| MadeRole { name, rules, namespace: None };
    let within = |name, rules| MadeRole { name, rules, namespace: Some("team-a") };
    let writes_roles = json!({"verbs": ["get", "create", "update", "patch", "delete"],
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "rolebindings", "clusterroles", "clusterrolebindings"]});
    let reads_maps = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]});
    let csr = "certificates.k8s.io";
    let approval = json!({"verbs": ["get", "update", "patch"], "apiGroups": [csr],
        "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]});
    vec![
        within(
            "named",
            json!([{"verbs": ["get", "update", "delete", "list", "watch", "create"], "apiGroups": [""],
                "resources": ["configmaps"], "resourceNames": ["app", "made"]}]),
        ),
        everywhere(
            "subresources",
            json!([{"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods/log", "pods/exec"]},
                {"verbs": ["update"], "apiGroups": ["apps"], "resources": ["deployments/scale"]}]),
        ),
        everywhere("every-scale", json!([{"verbs": ["get", "update"], "apiGroups": ["*"], "resources": ["*/scale"]}])),
        everywhere("group", json!([{"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]}])),
        within("resource-of-any-group", json!([{"verbs": ["get"], "apiGroups": ["*"], "resources": ["events"]}])),
        everywhere("all-resources", json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])),
        within("all-within", json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])),
        everywhere(
            "paths",
            json!([{"verbs": ["get", "head"], "nonResourceURLs": ["/made/*", "/logs", "/metrics"]},
                {"verbs": ["post"], "nonResourceURLs": ["/other*"]}]),
        ),
        everywhere("all-paths", json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}])),
        everywhere(
            "several",
            json!([{"verbs": ["get"], "apiGroups": ["", "apps"], "resources": ["pods", "deployments"]},
                {"verbs": ["list"], "apiGroups": [""], "resources": ["pods", "secrets"], "resourceNames": ["one"]}]),
        ),
        everywhere("role-writer", json!([writes_roles, reads_maps])),
        everywhere(
            "updater",
            json!([{"verbs": ["get", "update", "patch"], "resources": ["*"],
                "apiGroups": ["", "rbac.authorization.k8s.io", "coordination.k8s.io"]}]),
        ),
        everywhere(
            "escalator",
            json!([writes_roles, reads_maps, {"verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"],
                "resources": ["clusterroles", "roles"], "resourceNames": ["made-up"]}]),
        ),
        everywhere(
            "escalator-of-any",
            json!([writes_roles, {"verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"],
                "resources": ["clusterroles", "roles"]}]),
        ),
        everywhere(
            "binder",
            json!([writes_roles, {"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"],
                "resources": ["clusterroles"], "resourceNames": ["view"]}]),
        ),
        within("role-writer-within", json!([writes_roles, reads_maps])),
        everywhere(
            "impersonator",
            json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"]},
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
                {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"],
                    "resourceNames": ["view"]},
                {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["uids"],
                    "resourceNames": ["7"]}]),
        ),
        within(
            "account-impersonator",
            json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]}]),
        ),
        everywhere("csr-writer", json!([approval])),
        everywhere(
            "csr-approver",
            json!([approval, {"verbs": ["approve", "sign"], "apiGroups": [csr], "resources": ["signers"],
                "resourceNames": ["example.com/mine"]}]),
        ),
        everywhere(
            "csr-domain-approver",
            json!([approval, {"verbs": ["approve", "sign"], "apiGroups": [csr], "resources": ["signers"],
                "resourceNames": ["example.com/*"]}]),
        ),
        within("pod-reader", json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}])),
        within(
            "pod-debugger",
            json!([{"verbs": ["get", "patch", "update"], "apiGroups": [""],
                "resources": ["pods", "pods/ephemeralcontainers"]}]),
        ),
        within(
            "stream-reader",
            json!([{"verbs": ["get"], "apiGroups": [""],
                "resources": ["pods", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy"]}]),
        ),
        everywhere("node-reader", json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["nodes"]}])),
        within(
            "token-maker",
            json!([{"verbs": ["create"], "apiGroups": [""], "resources": ["serviceaccounts/token"],
                "resourceNames": ["robot"]}]),
        ),
        everywhere(
            "reviewer",
            json!([{"verbs": ["create"], "apiGroups": ["authorization.k8s.io", "authentication.k8s.io"],
                "resources": ["subjectaccessreviews", "tokenreviews"]}]),
        ),
    ]
}

/// Makes everything, and waits until both decide by it.
pub async fn make(servers: &Servers) -> Result {
    for side in [&servers.ours, &servers.theirs] {
        make_on(servers, side).await?;
    }
    for side in [&servers.ours, &servers.theirs] {
        wait_until_gathered(servers, side).await?;
        wait_until_related(servers, side).await?;
    }
    Ok(())
}

async fn make_on(servers: &Servers, side: &Side) -> Result {
    for namespace in NAMESPACES.into_iter().chain(["kube-node-lease"]) {
        create(servers, side, "/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await?;
    }
    for namespace in NAMESPACES.into_iter().chain(["kube-system"]) {
        for name in ["default", "robot"] {
            let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
            create(servers, side, &accounts, json!({"metadata": {"name": name}})).await?;
        }
    }
    let read = side.send(&servers.credentials, &Actor::Admin, &Request::get(format!("{RBAC}/clusterroles"))).await?;
    let defaults = read.body["items"].as_array().into_iter().flatten();
    for name in defaults.filter_map(|role| role["metadata"]["name"].as_str()) {
        let role = format!("ClusterRole/{name}");
        bind(servers, side, None, &format!("m:{name}"), &role, &format!("everywhere:{name}")).await?;
        bind(servers, side, Some("team-a"), &format!("m:{name}"), &role, &format!("within:{name}")).await?;
    }
    for role in made_roles() {
        let name = format!("made:{}", role.name);
        create(
            servers,
            side,
            &format!("{RBAC}/clusterroles"),
            json!({"metadata": {"name": name}, "rules": role.rules}),
        )
        .await?;
        bind(servers, side, role.namespace, &name, &format!("ClusterRole/{name}"), role.name).await?;
    }
    for (name, labels, rules) in [
        ("made:part-1", json!({"team": "made"}), json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])),
        ("made:part-2", json!({"team": "made"}), json!([{"verbs": ["get"], "nonResourceURLs": ["/made/gathered"]}])),
        ("made:no-part", json!({}), json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}])),
    ] {
        let role = json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
        create(servers, side, &format!("{RBAC}/clusterroles"), role).await?;
    }
    let gathered = json!({"metadata": {"name": "made:gathered"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"team": "made"}}]}});
    create(servers, side, &format!("{RBAC}/clusterroles"), gathered).await?;
    bind(servers, side, None, "made:gathered", "ClusterRole/made:gathered", "gathered").await?;
    bind(servers, side, None, "made:dangling", "ClusterRole/made:missing", "dangling").await?;
    bind(servers, side, Some("team-a"), "made:dangling", "Role/missing", "dangling").await?;
    let pods = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
    let local = json!({"metadata": {"name": "local"}, "rules": pods});
    create(servers, side, &format!("{RBAC}/namespaces/team-a/roles"), local).await?;
    let subjects = json!([{"kind": "Group", "name": "devs", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "robot", "namespace": "team-a"},
        {"kind": "ServiceAccount", "name": "robot", "namespace": "team-b"}]);
    let binding = json!({"metadata": {"name": "local"}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "local"}});
    create(servers, side, &format!("{RBAC}/namespaces/team-a/rolebindings"), binding).await?;
    make_workloads(servers, side).await
}

/// Two nodes with a pod each, and what the pods name.
async fn make_workloads(servers: &Servers, side: &Side) -> Result {
    for node in ["n1", "n2"] {
        create(servers, side, "/api/v1/nodes", json!({"metadata": {"name": node}})).await?;
        let lease = json!({"metadata": {"name": node}, "spec": {"holderIdentity": node, "leaseDurationSeconds": 40}});
        create(servers, side, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await?;
        let csi = json!({"metadata": {"name": node}, "spec": {"drivers": []}});
        create(servers, side, "/apis/storage.k8s.io/v1/csinodes", csi).await?;
    }
    let in_a = |plural: &str| format!("/api/v1/namespaces/team-a/{plural}");
    for of in ["of-n1", "of-n2", "of-none"] {
        create(servers, side, &in_a("secrets"), json!({"metadata": {"name": of}})).await?;
        create(servers, side, &in_a("configmaps"), json!({"metadata": {"name": of}})).await?;
        create(servers, side, &in_a("serviceaccounts"), json!({"metadata": {"name": of}})).await?;
        create(servers, side, &in_a("secrets"), json!({"metadata": {"name": format!("volume-{of}")}})).await?;
        let volume = json!({"metadata": {"name": of}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "claimRef": {"namespace": "team-a", "name": of},
            "csi": {"driver": "example.com", "volumeHandle": of,
                "nodePublishSecretRef": {"name": format!("volume-{of}"), "namespace": "team-a"}}}});
        create(servers, side, "/api/v1/persistentvolumes", volume).await?;
        let claim = json!({"metadata": {"name": of}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": of,
            "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
        create(servers, side, &in_a("persistentvolumeclaims"), claim).await?;
    }
    for node in ["n1", "n2"] {
        let of = format!("of-{node}");
        let attachment = json!({"metadata": {"name": of}, "spec": {"attacher": "example.com", "nodeName": node,
            "source": {"persistentVolumeName": of}}});
        create(servers, side, "/apis/storage.k8s.io/v1/volumeattachments", attachment).await?;
        create(servers, side, &in_a("pods"), pod(&of, node)).await?;
    }
    create(servers, side, &in_a("pods"), pod("of-none", "")).await?;
    create(servers, side, &in_a("configmaps"), json!({"metadata": {"name": "app"}})).await
}

/// A pod that names the Secret, ConfigMap, account and claim of its own name.
pub fn pod(name: &str, node: &str) -> Value {
    let mut pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {
        "serviceAccountName": name, "containers": [{"name": "c", "image": "example.com/c"}],
        "volumes": [{"name": "s", "secret": {"secretName": name}}, {"name": "m", "configMap": {"name": name}},
            {"name": "p", "persistentVolumeClaim": {"claimName": name}}]}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

/// Creates an object; it may be there.
async fn create(servers: &Servers, side: &Side, path: &str, object: Value) -> Result {
    let answer = side.send(&servers.credentials, &Actor::Admin, &Request::post(path, object)).await?;
    match answer.code {
        201 | 409 => Ok(()),
        code => Err(format!("POST {path}: {code} {}", answer.body).into()),
    }
}

/// Binds a role (`ClusterRole/NAME`) to a user.
async fn bind(servers: &Servers, side: &Side, namespace: Option<&str>, name: &str, role: &str, user: &str) -> Result {
    let (kind, role) = role.split_once('/').ok_or("a role without a kind")?;
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]});
    let path = match namespace {
        Some(namespace) => format!("{RBAC}/namespaces/{namespace}/rolebindings"),
        None => format!("{RBAC}/clusterrolebindings"),
    };
    create(servers, side, &path, binding).await
}

/// How often and how long a condition is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS: usize = 1200;

/// Waits until every role that gathers others has what they have.
async fn wait_until_gathered(servers: &Servers, side: &Side) -> Result {
    let mut lacking = String::new();
    for _ in 0..LOOKS {
        let get = Request::get(format!("{RBAC}/clusterroles"));
        let roles = side.send(&servers.credentials, &Actor::Admin, &get).await?;
        match roles.body["items"].as_array().and_then(|roles| roles.iter().find(|role| !is_gathered(role, roles))) {
            None => return Ok(()),
            Some(role) => lacking = role["metadata"]["name"].to_string(),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(format!("the role {lacking} lacks rules of others").into())
}

fn is_gathered(role: &Value, all: &[Value]) -> bool {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    let selects = |other: &Value| {
        let mut labels = selectors.into_iter().flatten().flat_map(|one| one["matchLabels"].as_object());
        other["metadata"]["name"] != role["metadata"]["name"]
            && labels.any(|labels| labels.iter().all(|(key, value)| other["metadata"]["labels"][key] == *value))
    };
    let rules = |role: &Value| role["rules"].as_array().cloned().unwrap_or_default();
    let own = rules(role);
    all.iter().filter(|other| selects(other)).flat_map(rules).all(|rule| own.contains(&rule))
}

/// Waits until the last binding and the last pod count.
async fn wait_until_related(servers: &Servers, side: &Side) -> Result {
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    for spec in [
        json!({"groups": ["devs"], "user": "x",
            "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "team-a"}}),
        json!({"user": "system:node:n2", "groups": ["system:nodes"], "resourceAttributes":
            {"verb": "get", "resource": "secrets", "namespace": "team-a", "name": "of-n2"}}),
    ] {
        let ask = Request::post(reviews, json!({"spec": spec}));
        let mut is_allowed = false;
        for _ in 0..LOOKS {
            let answer = side.send(&servers.credentials, &Actor::Admin, &ask).await?;
            is_allowed = answer.body["status"]["allowed"] == true;
            if is_allowed {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if !is_allowed {
            return Err(format!("never allowed: {spec}").into());
        }
    }
    Ok(())
}
