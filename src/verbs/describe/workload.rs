//! Deployments and ReplicaSets.

use serde_json::Value;

use super::{
    metadata,
    page::{Page, list, map, word},
    pod_template,
};

/// A Deployment, with its ReplicaSets.
pub fn deployment(page: &mut Page, deployment: &Value, sets: &[Value]) {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let count = |field: &str| status[field].as_u64().unwrap_or_default();
    metadata::name(page, deployment);
    page.field("CreationTimestamp", word(&deployment["metadata"]["creationTimestamp"]));
    metadata::labels_and_annotations(page, deployment);
    page.field("Selector", metadata::selector(&spec["selector"]));
    page.field(
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            spec["replicas"].as_u64().unwrap_or(1),
            count("updatedReplicas"),
            count("replicas"),
            count("availableReplicas"),
            count("unavailableReplicas")
        ),
    );
    page.field("StrategyType", word(&spec["strategy"]["type"]));
    page.field("MinReadySeconds", spec["minReadySeconds"].as_u64().unwrap_or_default().to_string());
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let text =
            format!("{} max unavailable, {} max surge", word(&rolling["maxUnavailable"]), word(&rolling["maxSurge"]));
        page.field("RollingUpdateStrategy", text);
    }
    template(page, &spec["template"]);
    metadata::conditions(page, deployment);
    let hash = |set: &&Value| set["spec"]["replicas"].as_u64().unwrap_or_default() > 0;
    let newest = sets.iter().max_by_key(|set| revision(set));
    let shown = |set: &Value| {
        format!(
            "{} ({}/{} replicas created)",
            word(&set["metadata"]["name"]),
            set["status"]["replicas"].as_u64().unwrap_or_default(),
            set["spec"]["replicas"].as_u64().unwrap_or_default()
        )
    };
    let old: Vec<String> = sets
        .iter()
        .filter(hash)
        .filter(|set| newest.is_none_or(|newest| newest["metadata"]["uid"] != set["metadata"]["uid"]))
        .map(shown)
        .collect();
    page.field("OldReplicaSets", if old.is_empty() { "<none>".into() } else { old.join(", ") });
    page.field("NewReplicaSet", newest.map_or("<none>".into(), shown));
}

fn revision(set: &Value) -> u64 {
    let text = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A ReplicaSet, with the states of its pods.
pub fn replica_set(page: &mut Page, set: &Value, pods: &[Value]) {
    metadata::name(page, set);
    page.field("Selector", metadata::selector(&set["spec"]["selector"]));
    metadata::labels_and_annotations(page, set);
    metadata::controlled_by(page, set);
    let current = set["status"]["replicas"].as_u64().unwrap_or_default();
    page.field("Replicas", format!("{current} current / {} desired", set["spec"]["replicas"].as_u64().unwrap_or(1)));
    let phases = |phase: &str| pods.iter().filter(|pod| pod["status"]["phase"] == phase).count();
    page.field(
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            phases("Running"),
            phases("Pending"),
            phases("Succeeded"),
            phases("Failed")
        ),
    );
    template(page, &set["spec"]["template"]);
    metadata::conditions(page, set);
}

fn template(page: &mut Page, template: &Value) {
    page.section("Pod Template", |page| {
        page.field("Labels", map(&template["metadata"]["labels"], "="));
        if template["metadata"]["annotations"].is_object() {
            page.field("Annotations", map(&template["metadata"]["annotations"], ": "));
        }
        let spec = &template["spec"];
        pod_template::containers(page, "Init Containers", &spec["initContainers"], &Value::Null);
        pod_template::containers(page, "Containers", &spec["containers"], &Value::Null);
        pod_template::volumes(page, &spec["volumes"]);
        if !list(&spec["tolerations"]).is_empty() || spec["nodeSelector"].is_object() {
            page.field("Node-Selectors", map(&spec["nodeSelector"], "="));
        }
    });
}
