//! What has to do with a node: its pods, what these name, and what is about the node itself.
//!
//! ```text
//! node ◀─ pod ◀─ Secret, ConfigMap, ServiceAccount, ResourceClaim
//!             ◀─ PersistentVolumeClaim ◀─ PersistentVolume ◀─ Secret
//!      ◀─ VolumeAttachment, ResourceSlice
//! ```
//!
//! Source: the graph of Kubernetes' Node authoriser (`plugin/pkg/auth/authorizer/node/graph.go`). Here it is walked in
//! the stored objects when it is asked for: nothing lags behind.

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use serde_json::Value;

use super::{
    authorize::Related,
    pod_references::{claims, references, volume_secrets},
    stored_facts::{Unreadable, is_on, parse},
};
use crate::store::Snapshot;

const PODS: &str = "pods";
const VOLUMES: &str = "persistentvolumes";
const CLAIMS: &str = "persistentvolumeclaims";
/// A pod that a node made: it gives the node no rights.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Namespace and name of an object.
type Named<'a> = (&'a str, &'a str);

/// Whether an object has to do with `node`.
pub fn are_related(snapshot: &Snapshot, node: &str, kind: Related, object: Named<'_>) -> Result<bool, Unreadable> {
    let (namespace, name) = object;
    match kind {
        Related::Pod => Ok(snapshot.get(PODS, &key(object)).is_some_and(|pod| is_on(pod, node))),
        Related::VolumeAttachment => names_node(snapshot, "volumeattachments.storage.k8s.io", object, node),
        Related::ResourceSlice => names_node(snapshot, "resourceslices.resource.k8s.io", object, node),
        Related::Volume => {
            let Some(volume) = volume(snapshot, object)? else { return Ok(false) };
            match claim_of(&volume) {
                Some(claim) => are_related(snapshot, node, Related::Claim, claim),
                None => Ok(false),
            }
        }
        Related::Secret | Related::ConfigMap | Related::ServiceAccount | Related::Claim | Related::ResourceClaim => {
            let pods = pods(snapshot, node, &format!("{namespace}/"))?;
            if pods.iter().any(|pod| references(pod, kind, name)) {
                return Ok(true);
            }
            if kind == Related::Secret { is_secret_of_volume(snapshot, node, object) } else { Ok(false) }
        }
    }
}

/// The pods of a node whose keys begin so; none that it made itself.
fn pods(snapshot: &Snapshot, node: &str, prefix: &str) -> Result<Vec<Pod>, Unreadable> {
    let found = snapshot.list_by(PODS, ("spec.nodeName", node), prefix, None);
    let pods = found.into_iter().map(|(key, pod)| parse::<Pod>(PODS, key, pod));
    let is_mirror = |pod: &Pod| pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR));
    pods.filter(|pod| pod.as_ref().map_or(true, |pod| !is_mirror(pod))).collect()
}

/// Whether the volume of a claim of a pod of the node names the Secret.
fn is_secret_of_volume(snapshot: &Snapshot, node: &str, secret: Named<'_>) -> Result<bool, Unreadable> {
    for pod in pods(snapshot, node, "")? {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for claim in claims(&pod) {
            let claim = (namespace, &*claim);
            let Some(stored) = value(snapshot, CLAIMS, claim)? else { continue };
            let name = stored["spec"]["volumeName"].as_str().unwrap_or_default();
            let Some(volume) = volume(snapshot, ("", name))? else { continue };
            if claim_of(&volume) == Some(claim) && volume_secrets(&volume).contains(&secret) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn volume(snapshot: &Snapshot, object: Named<'_>) -> Result<Option<PersistentVolume>, Unreadable> {
    let key = key(object);
    snapshot.get(VOLUMES, &key).map(|volume| parse(VOLUMES, &key, volume)).transpose()
}

fn claim_of(volume: &PersistentVolume) -> Option<Named<'_>> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some((claim.namespace.as_deref()?, claim.name.as_deref()?))
}

fn names_node(snapshot: &Snapshot, resource: &'static str, object: Named<'_>, node: &str) -> Result<bool, Unreadable> {
    Ok(value(snapshot, resource, object)?.is_some_and(|value| value["spec"]["nodeName"] == *node))
}

fn value(snapshot: &Snapshot, resource: &'static str, object: Named<'_>) -> Result<Option<Value>, Unreadable> {
    let key = key(object);
    let Some(stored) = snapshot.get(resource, &key) else { return Ok(None) };
    serde_json::from_slice(&stored.json()).map(Some).map_err(|source| Unreadable { resource, key, source })
}

/// The key in the store; one of another scope names nothing.
fn key((namespace, name): Named<'_>) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        encode,
        kinds::Kinds,
        store::{EventType, Key, Object},
    };

    fn snapshot() -> Snapshot {
        let pod = |name: &str, node: &str| {
            json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": node, "containers": [],
                "serviceAccountName": name, "volumes": [{"name": "s", "secret": {"secretName": name}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": name}}, {"name": "e", "ephemeral": {}}]}})
        };
        let mut mirror = pod("mirror", "n1");
        mirror["metadata"]["annotations"] = json!({MIRROR: "x"});
        let claim = |name: &str| json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"volumeName": name}});
        let volume = |name: &str| {
            json!({"metadata": {"name": name}, "spec": {"claimRef": {"namespace": "a", "name": name},
                "csi": {"driver": "d", "volumeHandle": "h",
                    "nodePublishSecretRef": {"namespace": "b", "name": format!("of-{name}")},
                    "controllerPublishSecretRef": {"namespace": "b", "name": format!("hidden-{name}")}}}})
        };
        let of_node = |name: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": name}});
        let mut snapshot = Snapshot::default();
        for (group, plural, object) in [
            ("", "pods", pod("own", "n1")),
            ("", "pods", pod("other", "n2")),
            ("", "pods", mirror),
            ("", CLAIMS, claim("own")),
            ("", CLAIMS, claim("other")),
            ("", VOLUMES, volume("own")),
            ("", VOLUMES, volume("other")),
            ("storage.k8s.io", "volumeattachments", of_node("n1")),
            ("storage.k8s.io", "volumeattachments", of_node("n2")),
            ("resource.k8s.io", "resourceslices", of_node("n1")),
        ] {
            let kind = Kinds::built_in().by_path(group, "v1", plural).unwrap();
            let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            let name = key((text("namespace"), text("name")));
            let stored = Object::new(encode::draft(&kind, &object), 1, EventType::Added);
            snapshot.load(Key { resource: resource.into(), name: name.into() }, Arc::new(stored));
        }
        snapshot
    }

    #[test]
    fn a_node_has_what_its_pods_name_and_what_names_it() {
        let snapshot = snapshot();
        let related = |kind, object| are_related(&snapshot, "n1", kind, object).unwrap();
        for (kind, object) in [
            (Related::Pod, ("a", "own")),
            (Related::Secret, ("a", "own")),
            (Related::ServiceAccount, ("a", "own")),
            (Related::Claim, ("a", "own")),
            (Related::Claim, ("a", "own-e")),
            (Related::Volume, ("", "own")),
            (Related::Secret, ("b", "of-own")),
            (Related::VolumeAttachment, ("", "n1")),
            (Related::ResourceSlice, ("", "n1")),
        ] {
            assert!(related(kind, object), "{kind:?} {object:?}");
        }
        for (kind, object) in [
            (Related::Pod, ("a", "other")),
            (Related::Pod, ("a", "missing")),
            (Related::Secret, ("a", "other")),
            (Related::Secret, ("b", "own")),
            (Related::Secret, ("a", "mirror")),
            (Related::Secret, ("b", "of-other")),
            (Related::Secret, ("b", "hidden-own")),
            (Related::ConfigMap, ("a", "own")),
            (Related::ServiceAccount, ("a", "mirror")),
            (Related::Claim, ("a", "other")),
            (Related::Volume, ("", "other")),
            (Related::Volume, ("a", "own")),
            (Related::VolumeAttachment, ("", "n2")),
            (Related::VolumeAttachment, ("a", "n1")),
            (Related::ResourceSlice, ("", "n2")),
        ] {
            assert!(!related(kind, object), "{kind:?} {object:?}");
        }
    }
}
