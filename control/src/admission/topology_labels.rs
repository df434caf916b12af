//! PodTopologyLabels: a pod that is bound to a node bears the labels of the node's zone and region.
//!
//! Source: `plugin/pkg/admission/podtopologylabels`.

use serde_json::Value;

use super::plugins::{AdmissionContext, Mutate, Plugin};
use crate::{admission_plugins::PluginName, kinds::reading::text, request::Verb, status::Status};

/// The labels that a pod takes from its node.
const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// Pods that are created on a node, or bound to one, get its labels.
pub static PLUGIN: Plugin =
    Plugin { mutate: Some(Mutate::Now(mutate)), ..Plugin::named(PluginName::PodTopologyLabels) };

fn mutate(context: &AdmissionContext<'_>, pod: &mut Value) -> Result<(), Status> {
    const POD: (&str, &str) = ("", "Pod");
    if context.is(Verb::Create, POD, None) || context.is(Verb::Update, POD, Some("binding")) {
        let node = |name: &str| context.request.snapshot.get("nodes", name);
        copy(pod, |name, key| node(name)?.header().label(key).map(str::to_owned));
    }
    Ok(())
}

/// Copies the labels of the pod's node. `label` answers a label of a node, if both are there.
fn copy(pod: &mut Value, label: impl Fn(&str, &str) -> Option<String>) {
    let node = text(&pod["spec"], "nodeName").to_owned();
    if node.is_empty() {
        return;
    }
    for key in LABELS {
        if let Some(value) = label(&node, key) {
            pod["metadata"]["labels"][key] = value.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bound_pod_is_in_the_zone_of_its_node() {
        let label = |node: &str, key: &str| (node == "n" && key.ends_with("zone")).then(|| "z1".to_owned());
        let mut pod =
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "own"}}, "spec": {"nodeName": "n"}});
        copy(&mut pod, label);
        assert_eq!(pod["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z1"}));
        for mut other in [json!({"spec": {}}), json!({"spec": {"nodeName": "gone"}})] {
            let before = other.clone();
            copy(&mut other, label);
            assert_eq!(other, before);
        }
    }
}
