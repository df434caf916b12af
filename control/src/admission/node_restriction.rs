//! NodeRestriction: what the agent of a node may write, as a pure function of old and new object.
//!
//! [`crate::auth::node`] has let the request through by its path; here the object itself is looked at. Labels in
//! `node-restriction.kubernetes.io/` and Kubernetes' own are not the node's to choose, since they decide where pods go
//! (KEP 279); nor are a pod's labels, since they decide which Services send it their clients.

use std::collections::BTreeSet;

use serde_json::Value;

use super::plugins::{AdmissionContext, Mutate, Plugin};
use crate::{
    admission_plugins::PluginName,
    request::Verb,
    status::{Status, Subject},
};

/// Holds the writes of nodes, deletions included, against [`check`]. As in Kubernetes it sees what the node sent,
/// before later plugins and the cluster's webhooks change it: a node does not answer for what these add.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(|context, object| restrict(context, object))),
    delete: Some(restrict),
    ..Plugin::named(PluginName::NodeRestriction)
};

fn restrict(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    let request = context.request;
    let Some(node) = request.identity.node() else { return Ok(()) };
    let stored = request.snapshot.get("nodes", node);
    let write = NodeWrite {
        node,
        node_uid: stored.map(|stored| stored.header().uid()),
        operation: request.operation,
        group: &request.kind.group,
        resource: &request.kind.plural,
        subresource: request.subresource.unwrap_or_default(),
        old: request.old,
        new: object,
    };
    check(&write).map_err(|violation| context.forbidden(&violation.to_string()))?;
    if write.creates_pod() && write.node_uid.is_none() {
        return Err(Status::not_found(Subject { group: "", resource: "nodes", name: node }));
    }
    Ok(())
}

/// One write by a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeWrite<'a> {
    /// The node whose agent writes.
    pub node: &'a str,
    /// Of the stored Node of that name, if there is one.
    pub node_uid: Option<&'a str>,
    /// [`Verb::Create`], [`Verb::Update`] or [`Verb::Delete`].
    pub operation: Verb,
    /// The API group of what is written; empty for the core group.
    pub group: &'a str,
    /// The plural: `pods`.
    pub resource: &'a str,
    /// Empty where the object itself is written.
    pub subresource: &'a str,
    /// The stored object, where there is one.
    pub old: Option<&'a Value>,
    /// The object to be stored; on deletion the stored one.
    pub new: &'a Value,
}

impl NodeWrite<'_> {
    fn creates_pod(&self) -> bool {
        (self.group, self.resource, self.subresource, self.operation) == ("", "pods", "", Verb::Create)
    }
}

/// Why a write is refused, in the words of Kubernetes' admission plugin; they stand behind `is forbidden: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NodeViolation(String);

/// Refuses a write that no node may make.
pub fn check(write: &NodeWrite) -> Result<(), NodeViolation> {
    match (write.group, write.resource, write.operation) {
        // Asked again here, of the object that goes: the one that the path named may have been another node's since.
        ("", "pods", Verb::Delete) => own_pod(write, "delete"),
        (_, _, Verb::Delete) => Ok(()),
        ("", "nodes", _) => own_name(write).and_then(|()| own_node(write)),
        ("coordination.k8s.io", "leases", _) => own_name(write),
        _ if write.creates_pod() => mirror_pod(write),
        ("", "pods", Verb::Update) => pod_status(write),
        _ => Ok(()),
    }
}

fn own_name(write: &NodeWrite) -> Result<(), NodeViolation> {
    let name = write.new["metadata"]["name"].as_str().unwrap_or_default();
    if name == write.node {
        return Ok(());
    }
    Err(NodeViolation(format!("node {:?} is not allowed to modify {} {name:?}", write.node, write.resource)))
}

/// A node may register with taints, and afterwards neither lift nor add any; its pod subnet and owners were never its
/// to choose.
fn own_node(write: &NodeWrite) -> Result<(), NodeViolation> {
    let NodeWrite { node, old, new, .. } = write;
    for (part, field) in
        [("spec", "podCIDR"), ("spec", "podCIDRs"), ("spec", "taints"), ("metadata", "ownerReferences")]
    {
        let before = match old {
            None if field == "taints" => continue,
            None => &Value::Null,
            Some(old) => &old[part][field],
        };
        if !same(&new[part][field], before) {
            return Err(NodeViolation(format!("node {node:?} is not allowed to modify its {part}.{field}")));
        }
    }
    let labels = changed(old.map_or(&Value::Null, |old| &old["metadata"]["labels"]), &new["metadata"]["labels"]);
    let refused: Vec<&str> = labels.into_iter().filter(|label| !is_nodes_to_choose(label)).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let verb = if old.is_none() { "set" } else { "modify" };
    Err(NodeViolation(format!("node {node:?} is not allowed to {verb} the following labels: {}", refused.join(", "))))
}

/// Absent and empty are one.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |value: &Value| value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty);
    a == b || empty(a) && empty(b)
}

/// The keys of labels that are not alike, in order.
fn changed<'a>(old: &'a Value, new: &'a Value) -> BTreeSet<&'a str> {
    let keys = |labels: &'a Value| labels.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    keys(old).chain(keys(new)).filter(|key| old[*key] != new[*key]).collect()
}

/// Labels of Kubernetes' own that a node reports about itself.
const REPORTED: [&str; 12] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn is_nodes_to_choose(label: &str) -> bool {
    let Some((prefix, _)) = label.split_once('/') else { return true };
    let within = |domain: &str| prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    !kubernetes || REPORTED.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

const MIRROR: &str = "kubernetes.io/config.mirror";

/// A node makes known the pods of its own manifests, bound to itself, and nothing that would open Secrets to it.
fn mirror_pod(write: &NodeWrite) -> Result<(), NodeViolation> {
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
        return Err(NodeViolation(format!(
            "node {node:?} can only create pods with a single owner reference set to itself"
        )));
    };
    let is_self = owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == *node;
    if !is_self || owner["controller"] != true || owner["blockOwnerDeletion"] == true {
        return Err(NodeViolation(format!(
            "node {node:?} can only create pods with an owner reference set to itself as controller"
        )));
    }
    // An owner that is gone would have the garbage collector delete the pod, and one to come would inherit it.
    if let Some(uid) = node_uid.filter(|uid| owner["uid"] != **uid) {
        let named = owner["uid"].as_str().unwrap_or_default();
        return Err(NodeViolation(format!("node {node} UID mismatch: expected {named} got {uid}")));
    }
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Err(NodeViolation(format!("node {node:?} can not create pods that reference a service account")));
    }
    for (what, found) in [
        (
            "secrets",
            names_any(
                spec,
                &["secret", "secretRef", "secretKeyRef", "nodePublishSecretRef", "secretName", "imagePullSecrets"],
            ),
        ),
        ("configmaps", names_any(spec, &["configMap", "configMapRef", "configMapKeyRef"])),
        ("clustertrustbundles", names_any(spec, &["clusterTrustBundle"])),
        ("persistentvolumeclaims", names_any(spec, &["persistentVolumeClaim", "ephemeral"])),
        ("service account tokens", names_any(spec, &["serviceAccountToken"])),
        ("resource claims", names_any(spec, &["resourceClaims"])),
    ] {
        if found {
            return Err(NodeViolation(format!("node {node:?} can not create pods that reference {what}")));
        }
    }
    Ok(())
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

fn own_pod(write: &NodeWrite, verb: &str) -> Result<(), NodeViolation> {
    let NodeWrite { node, old, new, .. } = write;
    if old.unwrap_or(new)["spec"]["nodeName"] == *node {
        return Ok(());
    }
    Err(NodeViolation(format!("node {node:?} can only {verb} pods with spec.nodeName set to itself")))
}

/// Through `/status` a node reports on its own pods, and changes nothing by which others select them.
fn pod_status(write: &NodeWrite) -> Result<(), NodeViolation> {
    let NodeWrite { node, old, new, subresource, .. } = write;
    let Some(old) = old else { return Ok(()) };
    if *subresource != "status" {
        return Err(NodeViolation(format!("node {node:?} can only update the status of pods")));
    }
    if old["spec"]["nodeName"] != *node {
        return Err(NodeViolation(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        )));
    }
    if !changed(&old["metadata"]["labels"], &new["metadata"]["labels"]).is_empty() {
        return Err(NodeViolation(format!("node {node:?} cannot update labels through pod status")));
    }
    if !same(&old["status"]["resourceClaimStatuses"], &new["status"]["resourceClaimStatuses"]) {
        return Err(NodeViolation(format!("node {node:?} cannot update resource claim statuses")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write<'a>(resource: &'a str, subresource: &'a str, old: Option<&'a Value>, new: &'a Value) -> NodeWrite<'a> {
        let operation = if old.is_none() { Verb::Create } else { Verb::Update };
        let group = if resource == "leases" { "coordination.k8s.io" } else { "" };
        NodeWrite { node: "n1", node_uid: Some("u"), operation, group, resource, subresource, old, new }
    }

    fn node(labels: Value, spec: Value) -> Value {
        json!({"metadata": {"name": "n1", "labels": labels}, "spec": spec})
    }

    #[test]
    fn a_body_with_another_name_is_refused() {
        let other = json!({"metadata": {"name": "n2"}, "spec": {}});
        let own = node(json!({}), json!({}));
        assert!(check(&write("nodes", "", None, &own)).is_ok());
        assert!(check(&write("nodes", "", None, &other)).is_err());
        assert!(check(&write("leases", "", None, &other)).is_err());
    }

    #[test]
    fn a_node_may_not_lift_its_own_taints_nor_move_its_subnet() {
        let old =
            node(json!({}), json!({"taints": [{"key": "k", "effect": "NoSchedule"}], "podCIDR": "10.244.1.0/24"}));
        let update = |old: &Value, new: &Value| check(&write("nodes", "", Some(old), new));
        assert!(update(&old, &old).is_ok());
        assert!(update(&old, &node(json!({}), json!({"podCIDR": "10.244.1.0/24"}))).is_err());
        let mut moved = old.clone();
        moved["spec"]["podCIDR"] = "10.244.2.0/24".into();
        assert!(update(&old, &moved).is_err());
        assert!(update(&node(json!({}), json!({})), &moved).is_err());
        assert!(check(&write("nodes", "", None, &moved)).is_err());
        let tainted = node(json!({}), json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}));
        assert!(check(&write("nodes", "", None, &tainted)).is_ok());
        let mut owned = node(json!({}), json!({}));
        owned["metadata"]["ownerReferences"] = json!([{"kind": "Pod", "name": "p"}]);
        assert!(update(&node(json!({}), json!({})), &owned).is_err());
    }

    #[test]
    fn a_node_reports_some_labels_and_chooses_no_others_of_kubernetes() {
        let old = node(json!({"pool": "a"}), json!({}));
        for status in ["", "status"] {
            let update = |labels: Value| check(&write("nodes", status, Some(&old), &node(labels, json!({}))));
            for label in [
                "pool",
                "kubernetes.io/hostname",
                "topology.kubernetes.io/zone",
                "node.kubernetes.io/instance-type",
                "kubelet.kubernetes.io/x",
                "example.org/y",
                "notkubernetes.io/z",
            ] {
                assert!(update(json!({"pool": "a", label: "b"})).is_ok(), "{label}");
            }
            for label in [
                "node-restriction.kubernetes.io/tenant",
                "x.node-restriction.kubernetes.io/y",
                "k8s.io/x",
                "node-role.kubernetes.io/control-plane",
                "kubernetes.io/x",
                "a.k8s.io/b",
            ] {
                let why = update(json!({"pool": "a", label: "b"})).unwrap_err();
                assert!(why.to_string().contains(label), "{why}");
            }
        }
        let held = node(json!({"node-restriction.kubernetes.io/tenant": "a"}), json!({}));
        assert!(check(&write("nodes", "", Some(&held), &old)).is_err(), "taking one away is a change, too");
    }

    #[test]
    fn a_node_may_not_relabel_its_pods_through_their_status() {
        let pod = |labels: Value, node: &str| json!({"metadata": {"name": "p", "labels": labels}, "spec": {"nodeName": node}, "status": {}});
        let old = pod(json!({"app": "web"}), "n1");
        assert!(check(&write("pods", "status", Some(&old), &old)).is_ok());
        let why = check(&write("pods", "status", Some(&old), &pod(json!({"app": "db"}), "n1"))).unwrap_err();
        assert!(why.to_string().contains("cannot update labels through pod status"), "{why}");
        let other = pod(json!({}), "n2");
        assert!(check(&write("pods", "status", Some(&other), &other)).is_err());
    }

    #[test]
    fn a_node_deletes_only_pods_of_its_own() {
        let delete = |node: &str| {
            let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
            check(&NodeWrite { operation: Verb::Delete, ..write("pods", "", Some(&pod), &pod) })
        };
        assert_eq!(delete("n1"), Ok(()));
        for node in ["n2", ""] {
            assert!(delete(node).unwrap_err().to_string().contains("can only delete pods"), "{node}");
        }
    }

    #[test]
    fn a_node_creates_only_mirror_pods_of_its_own() {
        let good = json!({"metadata": {"name": "p-n1", "annotations": {MIRROR: "hash"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "x"}]}});
        assert_eq!(check(&write("pods", "", None, &good)), Ok(()));
        let refused: [fn(&mut Value); 9] = [
            |pod| pod["metadata"]["annotations"] = json!({}),
            |pod| pod["spec"]["nodeName"] = "n2".into(),
            |pod| pod["metadata"]["ownerReferences"] = json!([]),
            |pod| pod["metadata"]["ownerReferences"][0]["name"] = "n2".into(),
            |pod| pod["metadata"]["ownerReferences"][0]["uid"] = "earlier".into(),
            |pod| pod["spec"]["serviceAccountName"] = "admin".into(),
            |pod| pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]),
            |pod| pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "c"}}]),
            |pod| {
                let bundle = json!({"clusterTrustBundle": {"name": "b", "path": "p"}});
                pod["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": [bundle]}}]);
            },
        ];
        for change in refused {
            let mut pod = good.clone();
            change(&mut pod);
            assert!(check(&write("pods", "", None, &pod)).is_err(), "{pod}");
        }
    }
}
