//! The pods that a node makes known itself: those of its own manifests, with nothing of the API in them.

use serde_json::Value;

use super::{NodeViolation, NodeWrite, refuse};
use crate::kinds::reading::{items, text};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// A node makes known the pods of its own manifests, bound to itself, and nothing that would open Secrets to it.
pub fn check(write: &NodeWrite) -> Result<(), NodeViolation> {
    let NodeWrite { node, node_uid, new, .. } = write;
    let (metadata, spec) = (&new["metadata"], &new["spec"]);
    if !metadata["annotations"][MIRROR].is_string() {
        return Err(NodeViolation(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        )));
    }
    if spec["nodeName"] != *node {
        return Err(NodeViolation(format!("node {node:?} can only create pods with spec.nodeName set to itself")));
    }
    let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [owner] = owners else {
        let which = if owners.is_empty() { "an" } else { "a single" };
        return refuse(format!("node {node:?} can only create pods with {which} owner reference set to itself"));
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != *node {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    // An owner that is gone would have the garbage collector delete the pod, and one to come would inherit it.
    if let Some(uid) = node_uid.filter(|uid| owner["uid"] != **uid) {
        let named = owner["uid"].as_str().unwrap_or_default();
        return Err(NodeViolation(format!("node {node} UID mismatch: expected {named} got {uid}")));
    }
    referenced(spec).map_or(Ok(()), |what| refuse(format!("node {node:?} can not create pods that reference {what}")))
}

/// What a pod names that it would get from the API. Source: `HasAPIObjectReference` of `pkg/api/pod`.
fn referenced(spec: &Value) -> Option<&'static str> {
    let secrets = ["secret", "secretRef", "secretKeyRef", "nodePublishSecretRef", "secretName", "imagePullSecrets"];
    if !text(spec, "serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    if names_any(spec, &secrets) {
        return Some("secrets");
    }
    if names_any(spec, &["configMap", "configMapRef", "configMapKeyRef"]) {
        return Some("configmaps");
    }
    if items(&spec["resourceClaims"]).next().is_some() {
        return Some("resourceclaims");
    }
    let of_source = |source: &Value| {
        let kinds = [
            ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
            ("clusterTrustBundle", "clustertrustbundles"),
            ("podCertificate", "podcertificates"),
        ];
        kinds.into_iter().find(|(field, _)| !source[*field].is_null()).map(|(_, what)| what)
    };
    items(&spec["volumes"]).find_map(|volume| {
        let kinds = [
            ("csi", "csidrivers (via CSI volumes)"),
            ("glusterfs", "endpoints (via glusterFS volumes)"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ];
        let direct = kinds.into_iter().find(|(field, _)| !volume[*field].is_null()).map(|(_, what)| what);
        direct.or_else(|| items(&volume["projected"]["sources"]).find_map(of_source))
    })
}

/// Whether a field of one of these names, other than an empty one, stands anywhere in the value.
fn names_any(value: &Value, fields: &[&str]) -> bool {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(map) => {
            map.iter().any(|(key, value)| fields.contains(&key.as_str()) && !empty(value) || names_any(value, fields))
        }
        Value::Array(list) => list.iter().any(|value| names_any(value, fields)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::write, *};

    /// What the refusal says, and what is changed in a mirror pod that is allowed.
    type Refused = (&'static str, fn(&mut Value));

    #[test]
    fn a_node_creates_only_mirror_pods_of_its_own() {
        let good = json!({"metadata": {"name": "p-n1", "annotations": {MIRROR: "hash"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "x"}]}});
        assert_eq!(check(&write("pods", "", None, &good)), Ok(()));
        let refused: [Refused; 14] = [
            ("can only create mirror pods", |pod| pod["metadata"]["annotations"] = json!({})),
            ("with spec.nodeName set to itself", |pod| pod["spec"]["nodeName"] = "n2".into()),
            ("with an owner reference set to itself", |pod| pod["metadata"]["ownerReferences"] = json!([])),
            ("with an owner reference set to itself", |pod| {
                pod["metadata"]["ownerReferences"][0]["name"] = "n2".into();
            }),
            ("with a controller owner reference", |pod| {
                pod["metadata"]["ownerReferences"][0]["controller"] = false.into();
            }),
            ("must not set blockOwnerDeletion", |pod| {
                pod["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = true.into();
            }),
            ("UID mismatch", |pod| pod["metadata"]["ownerReferences"][0]["uid"] = "earlier".into()),
            ("reference serviceaccounts", |pod| pod["spec"]["serviceAccountName"] = "admin".into()),
            ("reference secrets", |pod| {
                pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
            }),
            ("reference configmaps", |pod| {
                pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "c"}}]);
            }),
            ("reference resourceclaims", |pod| pod["spec"]["resourceClaims"] = json!([{"name": "r"}])),
            ("reference csidrivers", |pod| pod["spec"]["volumes"] = json!([{"name": "v", "csi": {"driver": "d"}}])),
            ("reference persistentvolumeclaims", |pod| {
                pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
            }),
            ("serviceaccounts (via projected volumes)", |pod| {
                let sources = json!([{"serviceAccountToken": {"path": "t"}}]);
                pod["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": sources}}]);
            }),
        ];
        for (words, change) in refused {
            let mut pod = good.clone();
            change(&mut pod);
            let why = check(&write("pods", "", None, &pod)).unwrap_err().to_string();
            assert!(why.contains(words), "{why}");
        }
    }
}
