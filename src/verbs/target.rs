//! The resource path and namespace of a manifest's object.

use anyhow::bail;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, ResourceType},
    failure::ErrorWithHint,
    manifest::Manifest,
};

/// A manifest's object with the namespace it goes to filled in.
pub struct Target {
    /// Its type, as the server names it.
    pub kind: ResourceType,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    /// With `metadata.namespace` where its kind has namespaces.
    pub object: Value,
}

/// Finds the resource that serves the manifest's kind, and decides the namespace.
pub async fn target(cluster: &Cluster, manifest: &Manifest) -> anyhow::Result<Target> {
    let resources = cluster.resources().await?;
    let Some(kind) = resources.by_kind(manifest.api_version(), manifest.kind()) else {
        let known = resources.resolve(manifest.kind()).map(|kind| kind.api_version());
        let hint = match known {
            Ok(version) => format!("this cluster serves {} as `apiVersion: {version}`", manifest.kind()),
            Err(_) => "if it is a custom kind, create its CustomResourceDefinition first".into(),
        };
        return Err(ErrorWithHint::new(
            format!(
                "{}: no matches for kind \"{}\" in version \"{}\"",
                manifest.location,
                manifest.kind(),
                manifest.api_version()
            ),
            hint,
        )
        .into());
    };
    let mut object = manifest.object.clone();
    let namespace = match (kind.namespaced, manifest.namespace()) {
        (false, _) => String::new(),
        (true, Some(own)) if cluster.namespace_given() && own != cluster.namespace() => bail!(
            "{}: the namespace from the provided object \"{own}\" does not match the namespace \"{}\"; pass \
              '--namespace={own}' to perform this operation",
            manifest.location,
            cluster.namespace()
        ),
        (true, Some(own)) => own.to_owned(),
        (true, None) => {
            object["metadata"]["namespace"] = json!(cluster.namespace());
            cluster.namespace().to_owned()
        }
    };
    // Go's encoders write it for objects that were never stored.
    if let Some(metadata) = object["metadata"].as_object_mut()
        && metadata.get("creationTimestamp").is_some_and(Value::is_null)
    {
        metadata.shift_remove("creationTimestamp");
    }
    Ok(Target { kind: kind.clone(), namespace, object })
}
