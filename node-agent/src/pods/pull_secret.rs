//! Credentials for an image, from the pod's `imagePullSecrets`: pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::{
    image::registry,
    objects::{ObjectKey, ObjectKind, Payload},
    spec,
};
use crate::runtime::Credentials;

/// The pod's `imagePullSecrets`.
pub fn references(pod: &Pod) -> Vec<ObjectKey> {
    let namespace = spec::pod_ref(pod).namespace;
    let references = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let key = |name: &str| ObjectKey { kind: ObjectKind::Secret, namespace: namespace.clone(), name: name.to_owned() };
    references.map(|reference| key(&reference.name)).collect()
}

/// The first credentials in `secrets` for the registry of `image`.
pub fn credentials<'a>(image: &str, secrets: impl IntoIterator<Item = &'a Payload>) -> Option<Credentials> {
    let wanted = registry(image)?;
    secrets.into_iter().find_map(|secret| {
        let (key, nested) = match secret.type_.as_str() {
            "kubernetes.io/dockercfg" => (".dockercfg", false),
            _ => (".dockerconfigjson", true),
        };
        let file: Value = serde_json::from_slice(secret.data.get(key)?).ok()?;
        let entries = if nested { file.get("auths")? } else { &file };
        let (server, entry) = entries.as_object()?.iter().find(|(server, _)| host(server) == wanted)?;
        of_entry(server, entry)
    })
}

/// The host of an entry's key, which may be a URL; Docker Hub has a name of its own.
fn host(server: &str) -> &str {
    let server = server.trim_start_matches("https://").trim_start_matches("http://");
    match server.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

fn of_entry(server: &str, entry: &Value) -> Option<Credentials> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let (username, password) = match (text("username"), text("password"), text("auth")) {
        (Some(username), Some(password), _) => (username, password),
        (_, _, Some(auth)) => {
            let decoded = String::from_utf8(BASE64_STANDARD.decode(auth).ok()?).ok()?;
            let (username, password) = decoded.split_once(':')?;
            (username.to_owned(), password.to_owned())
        }
        _ => (String::new(), String::new()),
    };
    Some(Credentials { username, password, identity_token: text("identitytoken"), server: server.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_entry_of_the_images_registry_is_used_in_either_notation() {
        let file = r#"{"auths":{"other.example":{"auth":"eDp5"},"https://registry.example:5000/v1/":{"auth":"bWU6c2VjcmV0"}}}"#;
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), file.as_bytes().to_vec())]);
        let secret = Payload { data, type_: "kubernetes.io/dockerconfigjson".to_owned() };
        let found = credentials("registry.example:5000/a/b:1", [&secret]).unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("me", "secret"));
        assert_eq!(credentials("hello:v1", [&secret]), None);
    }
}
