//! What a node may say of its own Node: labels in `node-restriction.kubernetes.io/` and Kubernetes' own are not its to
//! choose, since they decide where pods go (KEP 279).

use serde_json::Value;

use super::{NodeViolation, NodeWrite, changed, refuse, same};
use crate::kinds::reading::text;

/// A node may register with taints, and afterwards neither lift nor add any; its pod subnet and owners were never its
/// to choose. Of these Kubernetes leaves it the subnet, and the owners when it registers.
pub fn check(write: &NodeWrite) -> Result<(), NodeViolation> {
    let NodeWrite { node, old, new, .. } = write;
    let name = text(&new["metadata"], "name");
    if name != *node {
        return refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let before = old.unwrap_or(&Value::Null);
    if old.is_some() && !same(&new["spec"]["taints"], &before["spec"]["taints"]) {
        return refuse(format!("node {node:?} is not allowed to modify taints"));
    }
    if !same(&new["metadata"]["ownerReferences"], &before["metadata"]["ownerReferences"]) {
        return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    for field in ["podCIDR", "podCIDRs"] {
        if !same(&new["spec"][field], &before["spec"][field]) {
            return refuse(format!("node {node:?} is not allowed to modify its spec.{field}"));
        }
    }
    let labels = changed(&before["metadata"]["labels"], &new["metadata"]["labels"]);
    let refused: Vec<&str> = labels.into_iter().filter(|label| !is_nodes_to_choose(label)).collect();
    let list = refused.join(", ");
    match old {
        _ if refused.is_empty() => Ok(()),
        None => refuse(format!("node {node:?} is not allowed to set the following labels: {list}")),
        Some(_) => refuse(format!("is not allowed to modify labels: {list}")),
    }
}

/// Labels of Kubernetes' own that a node reports about itself.
const REPORTED: [&str; 10] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::tests::{node, write},
        *,
    };

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
                assert_eq!(why.to_string(), format!("is not allowed to modify labels: {label}"));
            }
        }
        let held = node(json!({"node-restriction.kubernetes.io/tenant": "a"}), json!({}));
        assert!(check(&write("nodes", "", Some(&held), &old)).is_err(), "taking one away is a change, too");
    }
}
