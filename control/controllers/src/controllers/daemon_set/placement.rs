//! Which nodes run a pod of a DaemonSet, and the pod for one of them. Pure.

use std::collections::BTreeMap;

use fairlead_client::placement::NodeAffinity;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration},
};

use super::super::{history::HASH_LABEL, pod_template};
use crate::objects::{
    owners::controller_reference,
    pod_state::node_name,
    taints::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, UNSCHEDULABLE, covers},
};

/// Label of pods with the generation of the template they were made of. Deprecated, and still written.
pub const GENERATION_LABEL: &str = "pod-template-generation";
/// Annotation of DaemonSets that counts the changes of their template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// Field of nodes by which the pods are bound to theirs.
const NODE_FIELD: &str = "metadata.name";

/// Whether a node runs a pod of a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It runs one.
    Run,
    /// It gets none, but keeps one that it has.
    Keep,
    /// It gets none, and loses one that it has.
    Refuse,
}

/// What decides over nodes: read once per pass.
pub struct NodeRules {
    node_name: Option<String>,
    affinity: NodeAffinity,
    tolerations: Vec<Toleration>,
}

impl NodeRules {
    /// The rules of a DaemonSet.
    pub fn of(set: &DaemonSet) -> Self {
        let none = PodSpec::default();
        let spec = set.spec.as_ref().and_then(|s| s.template.spec.as_ref()).unwrap_or(&none);
        Self {
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            affinity: NodeAffinity::of(spec),
            tolerations: tolerations(spec),
        }
    }

    /// Whether `node` runs a pod. Source: `NodeShouldRunDaemonPod`.
    pub fn placement(&self, node: &Node) -> Placement {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let none = BTreeMap::new();
        if self.node_name.as_deref().is_some_and(|wanted| wanted != name)
            || !self.affinity.admits(name, node.metadata.labels.as_ref().unwrap_or(&none))
        {
            return Placement::Refuse;
        }
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        let untolerated = |effects: &[&str]| {
            let tolerated = |taint: &Taint| self.tolerations.iter().any(|toleration| covers(toleration, taint));
            taints.iter().any(|taint| effects.contains(&taint.effect.as_str()) && !tolerated(taint))
        };
        if !untolerated(&[NO_SCHEDULE, NO_EXECUTE]) {
            Placement::Run
        } else if untolerated(&[NO_EXECUTE]) {
            Placement::Refuse
        } else {
            Placement::Keep
        }
    }
}

/// The tolerations of the template, and those that all pods of DaemonSets have. Source:
/// `AddOrUpdateDaemonPodTolerations`.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let mut add = |key: &str, effect: &str| {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Default::default()
        };
        let same = |known: &Toleration| {
            known.key == toleration.key
                && known.effect == toleration.effect
                && known.operator == toleration.operator
                && known.value.as_deref().unwrap_or_default().is_empty()
        };
        match tolerations.iter_mut().find(|known| same(known)) {
            Some(known) => *known = toleration,
            None => tolerations.push(toleration),
        }
    };
    add(NOT_READY, NO_EXECUTE);
    add(UNREACHABLE, NO_EXECUTE);
    add("node.kubernetes.io/disk-pressure", NO_SCHEDULE);
    add("node.kubernetes.io/memory-pressure", NO_SCHEDULE);
    add("node.kubernetes.io/pid-pressure", NO_SCHEDULE);
    add(UNSCHEDULABLE, NO_SCHEDULE);
    if spec.host_network == Some(true) {
        add("node.kubernetes.io/network-unavailable", NO_SCHEDULE);
    }
    tolerations
}

/// The pod of `set` for any node; [`bind_to`] names the node.
pub fn pod(set: &DaemonSet, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut pod = pod_template::pod(template, &set.metadata, controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = template_generation(set) {
        labels.insert(GENERATION_LABEL.into(), generation.to_string());
    }
    labels.insert(HASH_LABEL.into(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    pod
}

/// `pod`, which the scheduler binds to `node`: its required node affinity asks for that node alone.
pub fn bind_to(mut pod: Pod, node: &str) -> Pod {
    let requirement =
        NodeSelectorRequirement { key: NODE_FIELD.into(), operator: "In".into(), values: Some(vec![node.to_owned()]) };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    let spec = pod.spec.get_or_insert_default();
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

/// The node that a pod runs on, or is meant for.
pub fn target_node(pod: &Pod) -> Option<&str> {
    if let Some(node) = node_name(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut named = fields.filter(|field| field.key == NODE_FIELD && field.operator == "In");
    match named.next()?.values.as_deref() {
        Some([node]) => Some(node),
        _ => None,
    }
}

/// How often the template changed; `None` where the annotation is no number.
pub fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(TEMPLATE_GENERATION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(spec: Value) -> DaemonSet {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c"}]);
        serde_json::from_value(json!({"metadata": {"name": "d", "uid": "set",
                "annotations": {TEMPLATE_GENERATION: "2"}},
            "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": "d"}}, "spec": spec}}}))
        .expect("a valid set")
    }

    fn node(taints: Value) -> Node {
        serde_json::from_value(
            json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}}),
        )
        .expect("a valid node")
    }

    #[test]
    fn selectors_names_and_taints_decide_which_nodes_run_a_pod() {
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        let by_name = |name: &str| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": [name]}]}]}}}})
        };
        let everything = json!({"tolerations": [{"operator": "Exists"}]});
        let cases = [
            (json!({}), json!([]), Placement::Run),
            (json!({"nodeSelector": {"disk": "ssd"}}), json!([]), Placement::Run),
            (json!({"nodeSelector": {"disk": "hdd"}}), json!([]), Placement::Refuse),
            (json!({"nodeName": "n"}), json!([]), Placement::Run),
            (json!({"nodeName": "m"}), json!([]), Placement::Refuse),
            (by_name("n"), json!([]), Placement::Run),
            (by_name("m"), json!([]), Placement::Refuse),
            (json!({}), taint("k", NO_SCHEDULE), Placement::Keep),
            (json!({}), taint("k", NO_EXECUTE), Placement::Refuse),
            (json!({}), taint("k", "PreferNoSchedule"), Placement::Run),
            (everything.clone(), taint("k", NO_EXECUTE), Placement::Run),
            (json!({}), taint(UNSCHEDULABLE, NO_SCHEDULE), Placement::Run),
            (json!({}), taint("node.kubernetes.io/disk-pressure", NO_SCHEDULE), Placement::Run),
            (json!({}), taint(NOT_READY, NO_EXECUTE), Placement::Run),
            (json!({}), taint(NOT_READY, NO_SCHEDULE), Placement::Keep),
            (json!({}), taint("node.kubernetes.io/network-unavailable", NO_SCHEDULE), Placement::Keep),
            (
                json!({"hostNetwork": true}),
                taint("node.kubernetes.io/network-unavailable", NO_SCHEDULE),
                Placement::Run,
            ),
        ];
        for (spec, taints, expected) in cases {
            let rules = NodeRules::of(&set(spec.clone()));
            assert_eq!(rules.placement(&node(taints.clone())), expected, "{spec} {taints}");
        }
    }

    #[test]
    fn a_pod_is_meant_for_its_node_and_bears_what_pods_of_daemon_sets_bear() {
        let zone = json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}}});
        let made = bind_to(pod(&set(zone), "abc"), "n");
        assert_eq!(target_node(&made), Some("n"));
        let labels = made.metadata.labels.as_ref().expect("labels");
        assert_eq!((&*labels[HASH_LABEL], &*labels[GENERATION_LABEL], &*labels["app"]), ("abc", "2", "d"));
        let spec = made.spec.as_ref().expect("a spec");
        assert_eq!(spec.tolerations.as_ref().map(Vec::len), Some(6));
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()).expect("affinity");
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref();
        assert_eq!(preferred.map(Vec::len), Some(1), "preferences stay");
        let bound: Pod = serde_json::from_value(json!({"spec": {"nodeName": "m", "containers": []}})).expect("a pod");
        assert_eq!(target_node(&bound), Some("m"));
        assert_eq!(target_node(&Pod::default()), None);
    }

    #[test]
    fn a_toleration_of_the_template_is_not_added_twice() {
        let own = json!({"tolerations": [
            {"key": NOT_READY, "operator": "Exists", "effect": NO_EXECUTE, "tolerationSeconds": 5}]});
        let made = pod(&set(own), "abc");
        let tolerations = made.spec.and_then(|spec| spec.tolerations).expect("tolerations");
        assert_eq!((tolerations.len(), tolerations[0].toleration_seconds), (6, None), "for ever, as the others");
    }
}
