//! Whether this node takes a pod that is new to it, by the rules of the kubelet: pure.
//!
//! CPU, memory and the number of pods are the ledger's (`resize::ledger`), which asks the rules here before and after
//! its own, in the kubelet's order: the first that rejects the pod is told. That the pod names this node is not asked:
//! the agent sees no others. A pod that an agent has admitted is not asked about again.
//!
//! Source: `pkg/kubelet/lifecycle/predicate.go`, `pkg/kubelet/sysctl/allowlist.go`, `AdmissionCheck` of the scheduler.

use std::{collections::BTreeMap, fmt};

use fairlead_client::placement::{HostPort, NodeAffinity, covers};
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::{
    resize::Shortage,
    security::{SecurityRefusal, sysctls},
    spec,
};
use crate::world::Node;

/// Why a new pod is not admitted; shown as the kubelet writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It asks for a sysctl that the node does not set.
    Sysctl(SecurityRefusal),
    /// Its label `kubernetes.io/os` names another operating system.
    OsLabel,
    /// `spec.os` names another operating system.
    Os,
    /// `supplementalGroupsPolicy: Strict`: the runtime merges the groups of the image.
    SupplementalGroups,
    /// The node has not enough left of a resource.
    Resource(Shortage),
    /// Its node selector or its required node affinity does not select the node.
    NodeAffinity,
    /// Another pod has one of its host ports.
    HostPorts,
    /// It does not tolerate a taint `NoExecute` of the node.
    Taint,
}

impl Rejection {
    /// CamelCase, for the pod's status and its event.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Sysctl(_) => "SysctlForbidden",
            Self::OsLabel => "PodOSSelectorNodeLabelDoesNotMatch",
            Self::Os => "PodOSNotSupported",
            Self::SupplementalGroups => "SupplementalGroupsPolicyNotSupported",
            Self::Resource(shortage) => shortage.reason(),
            Self::NodeAffinity => "NodeAffinity",
            Self::HostPorts => "NodePorts",
            Self::Taint => "TaintToleration",
        }
    }

    /// Whether a newer version of the Node than the one asked about may admit the pod.
    pub fn depends_on_node(&self) -> bool {
        matches!(self, Self::NodeAffinity | Self::Taint)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let predicate = |why: &str| format!("Predicate {} failed: {why}", self.reason());
        let text = match self {
            Self::Sysctl(refusal) => return refusal.fmt(f),
            Self::OsLabel => "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label".to_owned(),
            Self::Os => "Failed to admit pod as the OS field doesn't match node OS".to_owned(),
            Self::SupplementalGroups => "SupplementalGroupsPolicy=Strict is not supported in this node".to_owned(),
            Self::Resource(shortage) => return shortage.fmt(f),
            Self::NodeAffinity => predicate("node(s) didn't match Pod's node affinity/selector"),
            Self::HostPorts => predicate("node(s) didn't have free ports for the requested pod ports"),
            Self::Taint => predicate("node(s) had taints that the pod didn't tolerate"),
        };
        f.write_str(&text)
    }
}

/// The node that is to take a pod.
#[derive(Clone, Copy, Debug)]
pub struct AdmittingNode<'a> {
    /// As pods name it.
    pub name: &'a str,
    /// Labels and taints; `None` where it is not known yet, which counts as one without any.
    pub node: Option<&'a Node>,
}

const OS: &str = "linux";

/// What rejects the pod on each node like this one.
pub fn check_pod(pod: &Pod) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if let Some(refusal) = sysctls::forbidden(spec) {
        return Err(Rejection::Sysctl(refusal));
    }
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != OS) {
        return Err(Rejection::OsLabel);
    }
    if spec.os.as_ref().is_some_and(|os| os.name != OS) {
        return Err(Rejection::Os);
    }
    let groups = spec.security_context.as_ref().and_then(|security| security.supplemental_groups_policy.as_deref());
    if groups == Some("Strict") { Err(Rejection::SupplementalGroups) } else { Ok(()) }
}

/// What rejects the pod on this node, whose other pods have the host ports `taken`.
pub fn check_node<'a>(
    pod: &Pod,
    AdmittingNode { name, node }: AdmittingNode<'_>,
    mut taken: impl Iterator<Item = &'a HostPort>,
) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let none = BTreeMap::new();
    if !NodeAffinity::of(spec).admits(name, node.map_or(&none, |node| &node.labels)) {
        return Err(Rejection::NodeAffinity);
    }
    let wanted = HostPort::all_of(spec);
    if !wanted.is_empty() && taken.any(|taken| wanted.iter().any(|port| port.conflicts_with(taken))) {
        return Err(Rejection::HostPorts);
    }
    if spec::is_static(pod) || node.is_none_or(|node| tolerates_all(spec, node)) {
        return Ok(());
    }
    Err(Rejection::Taint)
}

fn tolerates_all(spec: &PodSpec, node: &Node) -> bool {
    let tolerations = || spec.tolerations.iter().flatten();
    node.no_execute_taints.iter().all(|taint| tolerations().any(|toleration| covers(toleration, taint)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([{ "name": "c" }]);
        }
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    const UNKNOWN: AdmittingNode<'_> = AdmittingNode { name: "n1", node: None };

    fn known(node: &Node) -> AdmittingNode<'_> {
        AdmittingNode { node: Some(node), ..UNKNOWN }
    }

    fn told(result: Result<(), Rejection>) -> Option<(&'static str, String)> {
        result.err().map(|rejection| (rejection.reason(), rejection.to_string()))
    }

    #[test]
    fn what_no_node_like_this_one_takes_is_told_in_the_words_of_the_kubelet() {
        let mut labelled = pod(json!({}));
        labelled.metadata.labels = Some([("kubernetes.io/os".to_owned(), "windows".to_owned())].into());
        let label = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        assert_eq!(told(check_pod(&labelled)), Some(("PodOSSelectorNodeLabelDoesNotMatch", label.to_owned())));
        for (spec, reason, message) in [
            (
                json!({ "os": { "name": "windows" } }),
                "PodOSNotSupported",
                "Failed to admit pod as the OS field doesn't match node OS",
            ),
            (
                json!({ "securityContext": { "supplementalGroupsPolicy": "Strict" } }),
                "SupplementalGroupsPolicyNotSupported",
                "SupplementalGroupsPolicy=Strict is not supported in this node",
            ),
            (
                json!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] } }),
                "SysctlForbidden",
                "forbidden sysctl: \"kernel.msgmax\" not allowlisted",
            ),
        ] {
            assert_eq!(told(check_pod(&pod(spec))), Some((reason, message.to_owned())));
        }
        for spec in [
            json!({ "os": { "name": "linux" } }),
            json!({ "securityContext": { "supplementalGroupsPolicy": "Merge",
                "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] } }),
        ] {
            assert_eq!(told(check_pod(&pod(spec))), None);
        }
    }

    #[test]
    fn selectors_ports_and_taints_reject_in_this_order() {
        let node = Node {
            labels: [("disk".to_owned(), "fast".to_owned())].into(),
            no_execute_taints: serde_json::from_value(json!([{ "key": "down", "effect": "NoExecute" }])).unwrap(),
            ..Node::default()
        };
        let port = json!([{ "containerPort": 80, "hostPort": 8080 }]);
        let taken = HostPort { address: String::new(), protocol: "TCP".to_owned(), port: 8080 };
        let check = |spec: &Value| check_node(&pod(spec.clone()), known(&node), std::iter::once(&taken));
        let mut spec = json!({ "nodeSelector": { "disk": "slow" }, "containers": [{ "name": "c", "ports": port }] });
        let affinity = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        assert_eq!(told(check(&spec)), Some(("NodeAffinity", affinity.to_owned())));
        spec["nodeSelector"]["disk"] = "fast".into();
        let ports = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        assert_eq!(told(check(&spec)), Some(("NodePorts", ports.to_owned())));
        spec["containers"][0]["ports"][0]["hostPort"] = 8081.into();
        let taints = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        assert_eq!(told(check(&spec)), Some(("TaintToleration", taints.to_owned())));
        spec["tolerations"] = json!([{ "key": "down", "operator": "Exists" }]);
        assert_eq!(told(check(&spec)), None);
    }

    #[test]
    fn static_pods_need_no_tolerations_and_an_unknown_node_has_no_taints() {
        let taints = serde_json::from_value(json!([{ "key": "down", "effect": "NoExecute" }])).unwrap();
        let node = Node { no_execute_taints: taints, ..Node::default() };
        let mut fixed = pod(json!({}));
        fixed.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
        assert_eq!(told(check_node(&fixed, known(&node), std::iter::empty())), None);
        assert_eq!(told(check_node(&pod(json!({})), UNKNOWN, std::iter::empty())), None);
        let field = json!([{ "key": "metadata.name", "operator": "In", "values": ["n1"] }]);
        let by_name = pod(json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
            { "nodeSelectorTerms": [{ "matchFields": field }] } } } }));
        assert_eq!(told(check_node(&by_name, UNKNOWN, std::iter::empty())), None, "a DaemonSet's pod");
        assert!(Rejection::NodeAffinity.depends_on_node() && !Rejection::HostPorts.depends_on_node());
    }
}
