//! The roles and bindings that every cluster has: `default.policy`, read once, and what becomes of those that were
//! changed.

mod reconcile;

use serde_json::{Value, json};

pub use reconcile::reconcile;

use crate::{auth::rbac::Rule, kinds::rbac::GROUP};

/// While it is not `false`, what is missing in the object comes back at each start.
pub const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const TEXT: &str = include_str!("default.policy");

/// The roles and bindings, whole.
pub fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match (line.strip_prefix("  "), objects.last_mut()) {
            (Some(line), Some(object)) => add(object, &line.split(' ').collect::<Vec<_>>()),
            _ => objects.push(begin(line)),
        }
    }
    objects
}

/// `ClusterRole name`, `Role namespace/name`
fn begin(line: &str) -> Value {
    let (kind, name) = line.split_once(' ').unwrap_or((line, ""));
    let mut object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": {
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {AUTO_UPDATE: "true"}}});
    let (namespace, name) = match kind {
        "Role" | "RoleBinding" => name.split_once('/').unwrap_or(("", name)),
        _ => ("", name),
    };
    object["metadata"]["name"] = name.into();
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

/// Adds what a line says of an object.
fn add(object: &mut Value, words: &[&str]) {
    let aggregate = |name: &str| format!("{GROUP}/aggregate-to-{name}");
    let is_binding = object["kind"].as_str().is_some_and(|kind| kind.ends_with("Binding"));
    match words {
        ["part-of", name] => object["metadata"]["labels"][aggregate(name)] = "true".into(),
        ["gathers", name] => {
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {aggregate(name): "true"}}]});
        }
        [role, subjects @ ..] if is_binding => {
            let (kind, name) = role.split_once('/').unwrap_or(("", role));
            object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": name});
            let subjects: Vec<Value> = subjects.iter().map(|subject| to_subject(subject)).collect();
            if !subjects.is_empty() {
                object["subjects"] = subjects.into();
            }
        }
        words => {
            let rule = to_rule(words).to_json();
            match object.get_mut("rules").and_then(Value::as_array_mut) {
                Some(rules) => rules.push(rule),
                None => object["rules"] = json!([rule]),
            }
        }
    }
}

/// `verbs groups resources [names]`, or `verbs paths`
fn to_rule(words: &[&str]) -> Rule {
    let list = |at: usize| -> Vec<String> {
        let words = words.get(at).into_iter().flat_map(|word| word.split(','));
        words.map(|word| if word == "core" { String::new() } else { word.to_owned() }).collect()
    };
    match words.len() {
        ..3 => Rule { verbs: list(0), non_resource_urls: list(1), ..Rule::default() },
        _ => {
            Rule { verbs: list(0), api_groups: list(1), resources: list(2), resource_names: list(3), ..Rule::default() }
        }
    }
}

/// `User=name`, `Group=name`, `ServiceAccount=namespace/name`
fn to_subject(text: &str) -> Value {
    let (kind, name) = text.split_once('=').unwrap_or((text, ""));
    match (kind, name.split_once('/')) {
        ("ServiceAccount", Some((namespace, name))) => json!({"kind": kind, "name": name, "namespace": namespace}),
        _ => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{kinds::Kinds, schema::SentEmpties};

    #[test]
    fn every_object_is_valid_and_every_binding_has_its_role() {
        let all = objects();
        assert_eq!(all.len(), 131, "as many as in Kubernetes 1.35");
        let kinds = Kinds::built_in();
        let mut seen = BTreeSet::new();
        for object in &all {
            let kind = kinds.by_gvk(GROUP, "v1", object["kind"].as_str().unwrap()).unwrap();
            assert_eq!((kind.validate)(object, None, &SentEmpties::NONE), [], "{object}");
            let mut filled = object.clone();
            (kind.default)(&mut filled);
            assert_eq!(filled, *object, "nothing is left to be filled in");
            assert_eq!(object["metadata"]["namespace"].is_string(), kind.namespaced, "{object}");
            let metadata = &object["metadata"];
            seen.insert((object["kind"].to_string(), metadata["namespace"].to_string(), metadata["name"].to_string()));
        }
        assert_eq!(seen.len(), all.len());
        for binding in all.iter().filter(|object| object["roleRef"].is_object()) {
            let role = &binding["roleRef"];
            let namespace = if role["kind"] == "Role" { &binding["metadata"]["namespace"] } else { &Value::Null };
            assert!(seen.contains(&(role["kind"].to_string(), namespace.to_string(), role["name"].to_string())));
        }
    }

    #[test]
    fn lines_say_what_the_objects_are() {
        let all = objects();
        let find = |kind: &str, name: &str| {
            all.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
        };
        let admin = find("ClusterRole", "cluster-admin");
        assert_eq!(
            admin["rules"],
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}])
        );
        let edit = find("ClusterRole", "edit");
        let label = "rbac.authorization.k8s.io/aggregate-to-";
        assert_eq!(edit["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"][format!("{label}edit")], "true");
        assert_eq!(edit["metadata"]["labels"][format!("{label}admin")], "true");
        let discovery = find("ClusterRoleBinding", "system:discovery");
        assert_eq!(
            discovery["subjects"],
            json!([{"apiGroup": GROUP, "kind": "Group", "name": "system:authenticated"}])
        );
        let cleaner = find("RoleBinding", "system:controller:token-cleaner");
        assert_eq!(cleaner["metadata"]["namespace"], "kube-system");
        assert_eq!(
            cleaner["subjects"],
            json!([{"kind": "ServiceAccount", "name": "token-cleaner", "namespace": "kube-system"}])
        );
    }
}
