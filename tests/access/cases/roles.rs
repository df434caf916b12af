//! Who gives more than they have: roles and bindings.

use serde_json::{Value, json};

use super::{Act, Acts, ask, keep, prepare};
use crate::{exchange::Request, objects::RBAC};

/// Writers of roles, from none to all rights to.
const WRITERS: [&str; 8] = [
    "joe",
    "role-writer",
    "role-writer-within",
    "escalator",
    "escalator-of-any",
    "binder",
    "all-within",
    "all-resources",
];

pub fn acts() -> Acts {
    let mut acts = vec![
        keep("held", post("clusterroles", role("held", rule(&["get"], "", "secrets")))),
        keep("held-role", post("namespaces/team-a/roles", role("held", rule(&["get"], "", "secrets")))),
        prepare(post("clusterroles", role("empty", json!([])))),
        prepare(post("clusterrolebindings", binding("held", "ClusterRole", "empty"))),
    ];
    acts.extend(creations_by_other_verbs());
    for writer in WRITERS {
        acts.extend(creations(writer));
        acts.extend(updates(writer));
        acts.extend(bindings(writer));
    }
    acts
}

fn creations(writer: &'static str) -> Vec<Act> {
    let roles = [
        role("made-up", rule(&["get"], "", "configmaps")),
        role("made-up", rule(&["get"], "", "secrets")),
        role("made-up", rule(&["get", "list", "delete", "create"], "apps", "deployments")),
        role("made-up", rule(&["*"], "*", "*")),
        role("made-up", rule(&["get"], "", "pods/exec")),
        role("made-up", rule(&["get"], "", "*/scale")),
        role(
            "other-name",
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"],
            "resourceNames": ["b", "a"]}]),
        ),
        role(
            "other-name",
            json!([
            {"verbs": ["get", "watch"], "apiGroups": ["", "apps"], "resources": ["pods", "secrets"],
                "resourceNames": ["z", "y"]},
            {"verbs": ["list"], "apiGroups": [""], "resources": ["nodes"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]),
        ),
        role("other-name", json!([{"verbs": [], "apiGroups": [""], "resources": ["configmaps"]}])),
        role("other-name", json!([{"verbs": ["get"], "apiGroups": [""]}])),
        role("other-name", json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["a\"quote", "tab\t"]}])),
    ];
    let mut acts = Vec::new();
    for role in roles {
        acts.push(ask(writer, dry(post("clusterroles", role.clone()))));
        acts.push(ask(writer, dry(post("namespaces/team-a/roles", role))));
    }
    let paths = json!([{"verbs": ["get", "post"], "nonResourceURLs": ["/metrics", "/x/*"]}]);
    acts.push(ask(writer, dry(post("clusterroles", role("other-name", paths.clone())))));
    acts.push(ask(writer, dry(post("namespaces/team-a/roles", role("other-name", paths)))));
    let mut gathers = role("other-name", json!([]));
    gathers["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    acts.push(ask(writer, dry(post("clusterroles", gathers))));
    acts.push(ask(
        writer,
        dry(post(
            "clusterroles",
            json!({"metadata": {"generateName": "made-"},
        "rules": rule(&["get"], "", "secrets")}),
        )),
    ));
    acts
}

/// What a `PUT` or an apply creates takes the right to create, too, and gives no more than its writer has.
fn creations_by_other_verbs() -> Vec<Act> {
    let mut acts = Vec::new();
    for writer in WRITERS.into_iter().chain(["updater"]) {
        for (plural, kind) in [("clusterroles", "ClusterRole"), ("namespaces/team-a/roles", "Role")] {
            for rules in [rule(&["get"], "", "configmaps"), rule(&["get"], "", "secrets"), json!([{"verbs": []}])] {
                let put = Request::put(format!("{RBAC}/{plural}/made-up"), role("made-up", rules.clone()));
                acts.push(ask(writer, dry(put)));
                let mut applied = role("made-up", rules);
                applied["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
                applied["kind"] = json!(kind);
                let apply = Request::patch(format!("{RBAC}/{plural}/made-up?fieldManager=m"), applied);
                acts.push(ask(writer, dry(apply.header("content-type", "application/apply-patch+yaml"))));
            }
            let other = Request::put(format!("{RBAC}/{plural}/made-up"), role("other-name", json!([])));
            acts.push(ask(writer, dry(other)));
        }
        for role in ["view", "cluster-admin"] {
            let bound = binding("made-up", "ClusterRole", role);
            let path = format!("{RBAC}/namespaces/team-a/rolebindings/made-up");
            acts.push(ask(writer, dry(Request::put(path, bound))));
        }
        for namespace in ["team-a", "none"] {
            let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/l");
            let lease = json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 5}});
            acts.push(ask(writer, dry(Request::put(path, lease))));
        }
        let map = json!({"metadata": {"name": "absent"}});
        acts.push(ask(writer, dry(Request::put("/api/v1/namespaces/team-a/configmaps/absent", map))));
    }
    acts
}

fn updates(writer: &'static str) -> Vec<Act> {
    let mut acts = Vec::new();
    for path in ["clusterroles/held", "namespaces/team-a/roles/held"] {
        let more = role("held", rule(&["get", "list"], "", "secrets"));
        acts.push(ask(writer, dry(Request::put(format!("{RBAC}/{path}"), more))));
        acts.push(ask(writer, dry(Request::put(format!("{RBAC}/{path}"), role("held", json!([]))))));
        let labelled = json!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-admin": "true"}}});
        acts.push(ask(writer, dry(Request::patch(format!("{RBAC}/{path}"), labelled))));
        let owned = json!({"metadata": {"finalizers": ["example.com/kept"]}});
        acts.push(ask(writer, dry(Request::patch(format!("{RBAC}/{path}"), owned))));
        acts.push(ask(writer, dry(Request::delete(format!("{RBAC}/{path}")))));
        let applied = json!({"apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": if path.starts_with('c') { "ClusterRole" } else { "Role" }, "metadata": {"name": "made-up"},
            "rules": rule(&["get"], "", "secrets")});
        let url = format!("{RBAC}/{}?fieldManager=m", path.replace("held", "made-up"));
        let apply = Request::patch(url, applied).header("content-type", "application/apply-patch+yaml");
        acts.push(ask(writer, dry(apply)));
    }
    for name in ["view", "made:gathered"] {
        let patch = json!({"rules": rule(&["get"], "", "secrets")});
        acts.push(ask(writer, dry(Request::patch(format!("{RBAC}/clusterroles/{name}"), patch))));
        let none = json!({"aggregationRule": null});
        acts.push(ask(writer, dry(Request::patch(format!("{RBAC}/clusterroles/{name}"), none))));
    }
    acts
}

fn bindings(writer: &'static str) -> Vec<Act> {
    let mut acts = Vec::new();
    for (kind, role) in [
        ("ClusterRole", "view"),
        ("ClusterRole", "cluster-admin"),
        ("ClusterRole", "held"),
        ("ClusterRole", "empty"),
        ("ClusterRole", "missing"),
        ("ClusterRole", "made:paths"),
        ("Role", "held"),
        ("Role", "missing"),
        ("Pod", "held"),
    ] {
        acts.push(ask(writer, dry(post("clusterrolebindings", binding("new", kind, role)))));
        acts.push(ask(writer, dry(post("namespaces/team-a/rolebindings", binding("new", kind, role)))));
        acts.push(ask(writer, dry(post("namespaces/team-b/rolebindings", binding("new", kind, role)))));
    }
    let more = json!({"subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": writer}]});
    acts.push(ask(writer, dry(Request::patch(format!("{RBAC}/clusterrolebindings/cluster-admin"), more.clone()))));
    acts.push(ask(writer, dry(Request::patch(format!("{RBAC}/clusterrolebindings/held"), more))));
    let other = binding("held", "ClusterRole", "held");
    acts.push(ask(writer, dry(Request::put(format!("{RBAC}/clusterrolebindings/held"), other))));
    acts
}

/// A request that stores nothing.
pub fn dry(mut request: Request) -> Request {
    let mark = if request.path.contains('?') { '&' } else { '?' };
    request.path.push_str(&format!("{mark}dryRun=All"));
    request
}

fn post(path: &str, object: Value) -> Request {
    Request::post(format!("{RBAC}/{path}"), object)
}

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn rule(verbs: &[&str], group: &str, resource: &str) -> Value {
    json!([{"verbs": verbs, "apiGroups": [group], "resources": [resource]}])
}

fn binding(name: &str, kind: &str, role: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "mallory"}]})
}
