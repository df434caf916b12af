//! A Node with the pods on it.

use serde_json::Value;

use super::{
    metadata,
    page::{Page, list, map, word},
};

/// A Node, with the pods that are on it.
pub fn describe(page: &mut Page, node: &Value, pods: &[Value]) {
    let (spec, status) = (&node["spec"], &node["status"]);
    metadata::name(page, node);
    metadata::labels_and_annotations(page, node);
    page.field("CreationTimestamp", word(&node["metadata"]["creationTimestamp"]));
    let taint = |taint: &Value| {
        let value = taint["value"].as_str().map(|value| format!("={value}")).unwrap_or_default();
        format!("{}{value}:{}", word(&taint["key"]), word(&taint["effect"]))
    };
    let taints: Vec<String> = list(&spec["taints"]).iter().map(taint).collect();
    page.field("Taints", if taints.is_empty() { "<none>".into() } else { taints.join("\n") });
    page.field("Unschedulable", if spec["unschedulable"] == true { "true" } else { "false" });
    metadata::conditions(page, node);
    page.section("Addresses", |page| {
        for address in list(&status["addresses"]) {
            page.field(&word(&address["type"]), word(&address["address"]));
        }
    });
    page.section("Capacity", |page| fields(page, &status["capacity"]));
    page.section("Allocatable", |page| fields(page, &status["allocatable"]));
    page.section("System Info", |page| fields(page, &status["nodeInfo"]));
    page.field("PodCIDR", word(&spec["podCIDR"]));
    page.section(&format!("Pods ({} in total)", pods.len()), |page| {
        let row = |pod: &Value| {
            [
                word(&pod["metadata"]["namespace"]),
                word(&pod["metadata"]["name"]),
                word(&pod["status"]["phase"]),
                requests(pod),
            ]
        };
        page.table(["Namespace", "Name", "Phase", "Requests"], pods.iter().map(row));
    });
}

fn fields(page: &mut Page, value: &Value) {
    for (key, value) in value.as_object().into_iter().flatten() {
        page.field(key, word(value));
    }
}

/// What the pod's containers ask for, each.
fn requests(pod: &Value) -> String {
    let each: Vec<String> = list(&pod["spec"]["containers"])
        .iter()
        .filter(|container| container["resources"]["requests"].is_object())
        .map(|container| map(&container["resources"]["requests"], "=").replace('\n', ","))
        .collect();
    if each.is_empty() { "<none>".into() } else { each.join(" + ") }
}
