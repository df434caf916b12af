//! HorizontalPodAutoscaler: how many replicas a workload has, by what is measured of it. Stored as `autoscaling/v2`,
//! and served as `autoscaling/v1` too.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, BuiltInAs, Cell, Column, Storage,
    pod::defaults::{fill, fill_text},
    prepare,
    reading::{is_empty, number, text},
    workload,
};

mod conversion;
mod targets;
mod validation;

/// `autoscaling/v2`, as which it is stored.
pub static V2: BuiltIn = BuiltIn {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status"],
    storage: Storage::Stored,
    default,
    validate: validation::autoscaler,
    prepare: |new, old| prepare::keep_status(new, old, json!({"desiredReplicas": 0})),
    columns: &[
        Column::name(),
        Column::text("Reference", "The workload whose replicas are counted out."),
        Column::text("Targets", "What is measured, and what it should be."),
        Column::text("MinPods", "The fewest replicas."),
        Column::text("MaxPods", "The most replicas."),
        Column::text("Replicas", "How many replicas there are."),
        Column::age(),
    ],
    cells,
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    ..BuiltIn::PLAIN
};

const AS_V2: BuiltInAs =
    BuiltInAs { kind: &V2, to_stored: conversion::to_v2, from_stored: conversion::from_v2, deprecation: None };

/// `autoscaling/v1`: CPU alone, the rest in annotations.
pub static V1: BuiltIn = BuiltIn {
    version: "v1",
    storage: Storage::As(&AS_V2),
    // Those of the stored version hold.
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare: |_, _| {},
    schema: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    ..*AS_V2.kind
};

fn default(object: &mut Value) {
    conversion::take_annotations(object);
    let Some(spec) = workload::spec_of(object) else { return };
    fill(spec, "minReplicas", || json!(1));
    if is_empty(&spec["metrics"]) {
        spec["metrics"] = json!([conversion::cpu_metric(json!(80))]);
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (direction, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
        fill(behavior, direction, || json!({}));
        let rules = &mut behavior[direction];
        if direction == "scaleUp" {
            fill(rules, "stabilizationWindowSeconds", || json!(0));
        }
        fill_text(rules, "selectPolicy", "Max");
        fill(rules, "policies", || policies);
    }
}

fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    vec![
        Cell::name(object),
        Cell::text(format!("{}/{}", text(target, "kind"), text(target, "name"))),
        Cell::text(targets::text_of(&spec["metrics"], &status["currentMetrics"])),
        Cell::text(spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |count| count.to_string())),
        Cell::integer(number(spec, "maxReplicas")),
        Cell::integer(number(status, "currentReplicas")),
        Cell::age(object),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_processor_is_not_kept_idle() {
        let mut object = json!({"spec": {"behavior": {"scaleUp": {"selectPolicy": "Min"}}}});
        default(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["minReplicas"], 1);
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        assert_eq!(spec["metrics"], json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
        let (up, down) = (&spec["behavior"]["scaleUp"], &spec["behavior"]["scaleDown"]);
        assert_eq!((&up["selectPolicy"], &up["stabilizationWindowSeconds"]), (&json!("Min"), &json!(0)));
        assert_eq!(up["policies"].as_array().map(Vec::len), Some(2));
        assert_eq!((&down["selectPolicy"], &down["stabilizationWindowSeconds"]), (&json!("Max"), &Value::Null));
    }
}
