//! A Pod.

use serde_json::Value;

use super::{
    metadata,
    page::{Page, list, map, word},
    pod_template,
};

/// A Pod, with its containers and conditions.
pub fn describe(page: &mut Page, pod: &Value) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    metadata::name(page, pod);
    page.optional("Priority", &spec["priority"]);
    page.optional("Service Account", &spec["serviceAccountName"]);
    let host = status["hostIP"].as_str().map(|ip| format!("/{ip}")).unwrap_or_default();
    page.field("Node", format!("{}{host}", word(&spec["nodeName"])));
    page.optional("Start Time", &status["startTime"]);
    metadata::labels_and_annotations(page, pod);
    let terminating = pod["metadata"]["deletionTimestamp"].as_str();
    match terminating {
        Some(since) => page.field("Status", format!("Terminating (since {since})")),
        None => page.field("Status", word(&status["phase"])),
    }
    page.optional("Reason", &status["reason"]);
    page.optional("Message", &status["message"]);
    page.field("IP", status["podIP"].as_str().unwrap_or_default());
    metadata::controlled_by(page, pod);
    pod_template::containers(page, "Init Containers", &spec["initContainers"], &status["initContainerStatuses"]);
    pod_template::containers(page, "Containers", &spec["containers"], &status["containerStatuses"]);
    metadata::conditions(page, pod);
    pod_template::volumes(page, &spec["volumes"]);
    page.optional("QoS Class", &status["qosClass"]);
    page.field("Node-Selectors", map(&spec["nodeSelector"], "="));
    let tolerations: Vec<String> = list(&spec["tolerations"]).iter().map(toleration).collect();
    page.field("Tolerations", if tolerations.is_empty() { "<none>".into() } else { tolerations.join("\n") });
}

fn toleration(toleration: &Value) -> String {
    let mut text = toleration["key"].as_str().unwrap_or_default().to_owned();
    if let Some(value) = toleration["value"].as_str().filter(|value| !value.is_empty()) {
        text.push_str(&format!("={value}"));
    }
    if let Some(effect) = toleration["effect"].as_str().filter(|effect| !effect.is_empty()) {
        text.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" {
        text.push_str(" op=Exists");
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_u64() {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}
