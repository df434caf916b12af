//! NodeRestriction: what the agent of a node may write, as a pure function of old and new object.
//!
//! [`crate::auth::node`] has let the request through by its path; here the object itself is looked at. Labels in
//! `node-restriction.kubernetes.io/` and Kubernetes' own are not the node's to choose, since they decide where pods go
//! (KEP 279); nor are a pod's labels, since they decide which Services send it their clients.

mod mirror_pod;
mod node_object;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    certificate_subject::common_name,
    plugins::{AdmissionContext, Mutate, Plugin},
};
use crate::{
    admission_plugins::PluginName,
    kinds::reading::text,
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
    if request.identity.is_nameless_node() {
        let why = format!("could not determine node from user {:?}", request.identity.name);
        return Err(context.forbidden(&why));
    }
    let Some(node) = request.identity.node() else { return Ok(()) };
    let stored = request.snapshot.get("nodes", node);
    let write = NodeWrite {
        node,
        node_uid: stored.map(|stored| stored.header().uid()),
        operation: request.operation,
        group: &request.kind.group,
        namespace: request.namespace.unwrap_or_default(),
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
    /// Of the object; empty for one without.
    pub namespace: &'a str,
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
        ("resource.k8s.io", "resourceslices", Verb::Create) => own_slice(write, "create"),
        ("resource.k8s.io", "resourceslices", Verb::Delete) => own_slice(write, "delete"),
        ("coordination.k8s.io", "leases", _) => own_lease(write),
        ("storage.k8s.io", "csinodes", _) if !is_own_name(write) => {
            refuse("can only access CSINode with the same name as the requesting node")
        }
        (_, _, Verb::Delete) => Ok(()),
        ("", "nodes", _) => node_object::check(write),
        ("", "persistentvolumeclaims", _) => claim_status(write),
        ("certificates.k8s.io", "certificatesigningrequests", Verb::Create) => own_certificate(write),
        _ if write.creates_pod() => mirror_pod::check(write),
        ("", "pods", Verb::Update) => pod_status(write),
        _ => Ok(()),
    }
}

fn refuse(why: impl Into<String>) -> Result<(), NodeViolation> {
    Err(NodeViolation(why.into()))
}

fn is_own_name(write: &NodeWrite) -> bool {
    write.new["metadata"]["name"] == *write.node
}

fn own_lease(write: &NodeWrite) -> Result<(), NodeViolation> {
    if write.namespace != LEASES {
        return refuse(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if !is_own_name(write) {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

/// The namespace of the Leases of nodes.
const LEASES: &str = "kube-node-lease";

fn own_slice(write: &NodeWrite, verb: &str) -> Result<(), NodeViolation> {
    if write.old.unwrap_or(write.new)["spec"]["nodeName"] == *write.node {
        return Ok(());
    }
    refuse(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

/// A certificate of a node is for the node that asks for it.
fn own_certificate(write: &NodeWrite) -> Result<(), NodeViolation> {
    let spec = &write.new["spec"];
    if !["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"]
        .contains(&text(spec, "signerName"))
    {
        return Ok(());
    }
    let wanted = format!("system:node:{}", write.node);
    match common_name(text(spec, "request")) {
        Ok(name) if name.as_deref() == Some(&*wanted) => Ok(()),
        Ok(_) => refuse(format!("can only create a node CSR with CN={wanted}")),
        Err(why) => refuse(format!("unable to parse csr: {why}")),
    }
}

/// A node tells how large a volume is and how its growth goes, and changes nothing else of a claim.
fn claim_status(write: &NodeWrite) -> Result<(), NodeViolation> {
    let NodeWrite { node, old, new, subresource, .. } = write;
    let (Some(old), "status", Verb::Update) = (old, *subresource, write.operation) else {
        return refuse("may only update PVC status");
    };
    let reported = ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(metadata) = claim["metadata"].as_object_mut() {
            for field in ["resourceVersion", "managedFields"] {
                metadata.shift_remove(field);
            }
        }
        if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
            for field in reported {
                status.shift_remove(field);
            }
        }
        claim
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    refuse(format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions"))
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
        return Err(NodeViolation(format!("node {node:?} cannot update resource claim statues")));
    }
    let extended = "extendedResourceClaimStatus";
    if !same(&old["status"][extended], &new["status"][extended]) {
        return refuse(format!("node {node:?} cannot update extended resource claim status"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::certificate_subject, *};

    pub fn write<'a>(resource: &'a str, subresource: &'a str, old: Option<&'a Value>, new: &'a Value) -> NodeWrite<'a> {
        let operation = if old.is_none() { Verb::Create } else { Verb::Update };
        let group = match resource {
            "leases" => "coordination.k8s.io",
            "csinodes" => "storage.k8s.io",
            "resourceslices" => "resource.k8s.io",
            "certificatesigningrequests" => "certificates.k8s.io",
            _ => "",
        };
        let namespace = if resource == "leases" { LEASES } else { "" };
        NodeWrite { node: "n1", node_uid: Some("u"), operation, group, namespace, resource, subresource, old, new }
    }

    pub fn node(labels: Value, spec: Value) -> Value {
        json!({"metadata": {"name": "n1", "labels": labels}, "spec": spec})
    }

    #[test]
    fn a_body_with_another_name_is_refused() {
        let other = json!({"metadata": {"name": "n2"}, "spec": {}});
        let own = node(json!({}), json!({}));
        assert!(check(&write("nodes", "", None, &own)).is_ok());
        assert!(check(&write("nodes", "", None, &other)).is_err());
        assert!(check(&write("leases", "", None, &other)).is_err());
        assert!(check(&write("leases", "", None, &own)).is_ok());
        assert!(check(&NodeWrite { namespace: "a", ..write("leases", "", None, &own) }).is_err());
        assert!(check(&write("csinodes", "", None, &own)).is_ok());
        assert!(check(&write("csinodes", "", None, &other)).is_err());
    }

    #[test]
    fn slices_of_devices_are_of_the_node_that_makes_or_deletes_them() {
        let slice = |node: &str| json!({"metadata": {"name": "s"}, "spec": {"nodeName": node}});
        let (own, other) = (slice("n1"), slice("n2"));
        assert!(check(&write("resourceslices", "", None, &own)).is_ok());
        assert!(check(&write("resourceslices", "", None, &other)).is_err());
        let delete = |slice| NodeWrite { operation: Verb::Delete, ..write("resourceslices", "", Some(slice), slice) };
        assert!(check(&delete(&own)).is_ok());
        assert!(check(&delete(&other)).is_err());
    }

    #[test]
    fn of_a_claim_a_node_reports_its_size_alone() {
        let claim =
            |labels: Value, status: Value| json!({"metadata": {"labels": labels}, "spec": {}, "status": status});
        let old = claim(json!({}), json!({"phase": "Bound"}));
        let update = |subresource: &'static str, new: Value| {
            check(&write("persistentvolumeclaims", subresource, Some(&old), &new)).map_err(|why| why.to_string())
        };
        assert_eq!(
            update("status", claim(json!({}), json!({"phase": "Bound", "capacity": {"storage": "2Gi"}}))),
            Ok(())
        );
        assert!(update("status", claim(json!({}), json!({"phase": "Lost"}))).is_err());
        assert!(update("status", claim(json!({"a": "b"}), json!({"phase": "Bound"}))).is_err());
        assert_eq!(update("", old.clone()), Err("may only update PVC status".to_owned()));
    }

    #[test]
    fn a_node_asks_for_certificates_of_its_own_name() {
        let ask = |signer: &str, name: &str| {
            let spec = json!({"signerName": signer, "request": certificate_subject::tests::request_of(name)});
            check(&write("certificatesigningrequests", "", None, &json!({"spec": spec})))
        };
        let (serving, client) = ("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet");
        for signer in [serving, client] {
            assert_eq!(ask(signer, "system:node:n1"), Ok(()));
            assert!(ask(signer, "system:node:n2").is_err());
            let broken = json!({"spec": {"signerName": signer, "request": "x"}});
            assert!(check(&write("certificatesigningrequests", "", None, &broken)).is_err());
        }
        assert_eq!(ask("example.com/other", "system:node:n2"), Ok(()));
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
}
