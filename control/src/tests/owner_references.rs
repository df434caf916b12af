//! OwnerReferencesPermissionEnforcement in a running service, over TLS, for a user whom roles let through.

use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::admission_plugins::AdmissionPlugins;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

/// The answer's object, or code and message of a refusal.
async fn send(client: &Client, method: http::Method, path: &str, body: Value) -> Result<Value, (u16, String)> {
    let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(body.to_string().into_bytes()).expect("a request");
    match client.request(request).await {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
        Err(error) => panic!("no answer: {error}"),
    }
}

async fn post(client: &Client, path: &str, body: Value) -> Result<Value, (u16, String)> {
    send(client, http::Method::POST, path, body).await
}

async fn put(client: &Client, path: &str, body: Value) -> Result<Value, (u16, String)> {
    send(client, http::Method::PUT, path, body).await
}

/// A ConfigMap with these owners.
fn map(name: &str, owners: &[&Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": owners}})
}

/// What jane may do in the namespace `default`.
fn role(rules: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "jane"}, "rules": rules})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_rights_to_name_owners() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = crate::Config::new(dir.path());
    config.bind = ([127, 0, 0, 1], 0).into();
    config.api_only = true;
    let enabled = "OwnerReferencesPermissionEnforcement".parse().expect("a plugin");
    config.admission_plugins = AdmissionPlugins::of(&[enabled], &[]).expect("it is here");
    let running = crate::start(config).await.expect("a service");
    let admin = running.client();
    let kubeconfig = Kubeconfig::read_from(running.admin_kubeconfig()).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
    config.auth_info.impersonate = Some("jane".to_owned());
    let jane = Client::try_from(config).expect("a client");

    let mut rules = vec![json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]})];
    post(&admin, &format!("{ROLES}/roles"), role(&json!(rules))).await.expect("a role");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "jane"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    post(&admin, &format!("{ROLES}/rolebindings"), binding).await.expect("a binding");

    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u"});
    let mut blocking = owner.clone();
    blocking["blockOwnerDeletion"] = json!(true);
    post(&jane, MAPS, map("created", &[&owner])).await.expect("who creates may name owners");
    post(&jane, MAPS, map("free", &[])).await.expect("she may create");
    let free = format!("{MAPS}/free");
    let why = "configmaps \"free\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!(put(&jane, &free, map("free", &[&owner])).await, Err((403, why.to_owned())));
    let mut labelled = map("free", &[]);
    labelled["metadata"]["labels"] = json!({"a": "b"});
    put(&jane, &free, labelled).await.expect("she may update");
    let why = |name: &str| {
        format!(
            "configmaps \"{name}\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a \
             resource you can't set finalizers on: , <nil>"
        )
    };
    assert_eq!(post(&jane, MAPS, map("held", &[&blocking])).await, Err((403, why("held"))));

    rules.push(json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]}));
    let path = format!("{ROLES}/roles/jane");
    put(&admin, &path, role(&json!(rules))).await.expect("another role");
    put(&jane, &free, map("free", &[&owner])).await.expect("who may delete may name owners");
    assert_eq!(put(&jane, &free, map("free", &[&blocking])).await, Err((403, why("free"))));

    rules.push(json!({"apiGroups": ["apps"], "resources": ["deployments/finalizers"], "verbs": ["update"]}));
    put(&admin, &path, role(&json!(rules))).await.expect("another role");
    put(&jane, &free, map("free", &[&blocking])).await.expect("she may set finalizers on the owner");
    post(&jane, MAPS, map("held", &[&blocking])).await.expect("created");
    running.shutdown().await;
}
