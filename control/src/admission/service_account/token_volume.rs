//! The volume with the token of a pod's account, mounted into every container.

use rand::RngExt;
use serde_json::{Value, json};

use super::account::RESOURCE;
use crate::kinds::{
    Registry,
    reading::{items, text},
};

/// Where containers find their token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How the names of token volumes begin.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// An hour and seven seconds, by which Kubernetes tells the tokens of this plugin from others.
const TOKEN_SECONDS: i64 = 3607;

/// Whether nodes can ask for tokens of ServiceAccounts: a pod with a token that nobody gives would never start.
pub fn serves_tokens(kinds: &Registry) -> bool {
    let accounts = kinds.snapshot().by_path("", "v1", RESOURCE);
    accounts.is_some_and(|accounts| accounts.has("token"))
}

/// A name for a volume with a token.
pub fn volume_name() -> String {
    let mut random = rand::rng();
    let letter = |_| LETTERS[random.random_range(0..LETTERS.len())] as char;
    TOKEN_VOLUME.chars().chain((0..SUFFIX).map(letter)).collect()
}

/// Without vowels, so that they make no words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;

/// Mounts the token into every container that has nothing at its place.
pub fn mount(spec: &mut Value, volume: String) {
    let existing =
        items(&spec["volumes"]).map(|volume| text(volume, "name")).find(|name| name.starts_with(TOKEN_VOLUME));
    let (name, is_new) = existing.map_or((volume, true), |existing| (existing.to_owned(), false));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if items(&container["volumeMounts"]).any(|mount| text(mount, "mountPath") == TOKEN_PATH) {
                continue;
            }
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
            needed = true;
        }
    }
    if is_new && needed {
        // One literal: whatever is put into one as a variable is copied whole.
        push(
            spec,
            "volumes",
            json!({"name": name, "projected": {"sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ], "defaultMode": 0o644}}),
        );
    }
}

fn push(object: &mut Value, list: &str, item: Value) {
    match object[list].as_array_mut() {
        Some(items) => items.push(item),
        None => object[list] = Value::Array(vec![item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_finds_the_token_at_one_place() {
        let mut spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]});
        mount(&mut spec, "kube-api-access-abcde".into());
        let mounts = json!([{"name": "kube-api-access-abcde", "readOnly": true, "mountPath": TOKEN_PATH}]);
        for list in ["containers", "initContainers"] {
            assert_eq!(spec[list][0]["volumeMounts"], mounts);
        }
        let sources = &spec["volumes"][0]["projected"]["sources"];
        assert_eq!(sources[0]["serviceAccountToken"], json!({"expirationSeconds": 3607, "path": "token"}));
        assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
        assert_eq!(sources[2]["downwardAPI"]["items"][0]["path"], "namespace");
        let again = spec.clone();
        mount(&mut spec, "kube-api-access-other".into());
        assert_eq!(spec, again, "it has its token");
    }

    #[test]
    fn a_container_with_a_mount_of_its_own_needs_no_token() {
        let own = json!([{"name": "own", "mountPath": TOKEN_PATH}]);
        let mut spec = json!({"containers": [{"name": "c", "volumeMounts": own}]});
        let before = spec.clone();
        mount(&mut spec, "kube-api-access-abcde".into());
        assert_eq!(spec["containers"], before["containers"]);
        assert!(spec["volumes"].is_null());
    }
}
