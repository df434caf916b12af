//! Mirror pods: those that an agent runs from a file and only shows. They have no account.

use serde_json::Value;

use crate::kinds::{
    pod::all_containers,
    reading::{items, text},
};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a node's agent only shows the pod, which it runs from a file.
pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some_and(|mirror| !mirror.is_null())
}

/// Why a mirror pod is refused: it has no account, so it gets nothing that needs one.
pub fn violation(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    if !text(spec, "serviceAccountName").is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    if names_secrets(spec) {
        return Some("a mirror pod may not reference secrets");
    }
    let mut sources = items(&spec["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    let token = sources.any(|source| !source["serviceAccountToken"].is_null());
    token.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

fn names_secrets(spec: &Value) -> bool {
    if items(&spec["imagePullSecrets"]).any(|one| !text(one, "name").is_empty()) {
        return true;
    }
    let in_container = |container: &Value| {
        items(&container["envFrom"]).any(|from| !from["secretRef"].is_null())
            || items(&container["env"]).any(|env| !env["valueFrom"]["secretKeyRef"].is_null())
    };
    all_containers(spec).any(in_container)
        || items(&spec["volumes"]).any(|volume| {
            let Some(volume) = volume.as_object() else { return false };
            let projected = volume
                .get("projected")
                .is_some_and(|projected| items(&projected["sources"]).any(|source| !source["secret"].is_null()));
            let referenced = volume.values().any(|source| {
                ["secretRef", "nodePublishSecretRef"].iter().any(|field| source[*field].is_object())
                    || source["secretName"].is_string()
            });
            projected || referenced
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}})
    }

    #[test]
    fn a_mirror_pod_has_nothing_that_needs_an_account() {
        let mut mirror = pod();
        assert!(!is_mirror(&mirror));
        mirror["metadata"]["annotations"][MIRROR] = json!("x");
        assert!(is_mirror(&mirror));
        assert_eq!(violation(&mirror), None);
        let with = |field: &str, value: Value| {
            let mut pod = mirror.clone();
            pod["spec"][field] = value;
            violation(&pod).unwrap_or_default()
        };
        assert_eq!(with("serviceAccountName", json!("a")), "a mirror pod may not reference service accounts");
        let secrets = "a mirror pod may not reference secrets";
        assert_eq!(with("volumes", json!([{"name": "v", "secret": {"secretName": "s"}}])), secrets);
        assert_eq!(with("imagePullSecrets", json!([{"name": "s"}])), secrets);
        let env = json!([{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}]);
        assert_eq!(with("containers", env), secrets);
        let token = json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
        assert_eq!(with("volumes", token), "a mirror pod may not use ServiceAccountToken volume projections");
    }
}
