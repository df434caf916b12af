//! Deployment: a pod template, how many pods of it, and how one template replaces another.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, int_or_percent,
    pod::{
        defaults::{fill, fill_text},
        sent_empties::refused_with,
    },
    prepare,
    reading::{number, same},
    workload::{self, CONTAINERS, IMAGES, SELECTOR},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &["scale", "status"],
    storage: Storage::Stored,
    default,
    validate,
    validate_sent: Some(|new, old, empties| refused_with(validate(new, old), empties)),
    prepare: prepare_deployment,
    columns: COLUMNS,
    cells,
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.apps.v1.Deployment",
    ..BuiltIn::PLAIN
};

/// Columns of the Table form.
pub const COLUMNS: &[Column] = &[
    Column::name(),
    Column::text("Ready", "Number of the pod with ready state"),
    Column::text("Up-to-date", "Pods that have the desired template spec."),
    Column::text("Available", "Pods ready for at least minReadySeconds."),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// The cells of these columns.
pub fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [containers, images, selector] = workload::cells(spec);
    let desired = spec["replicas"].as_i64().unwrap_or(1);
    vec![
        Cell::name(object),
        Cell::text(format!("{}/{desired}", number(status, "readyReplicas"))),
        Cell::integer(number(status, "updatedReplicas")),
        Cell::integer(number(status, "availableReplicas")),
        Cell::age(object),
        containers,
        images,
        selector,
    ]
}

fn prepare_deployment(new: &mut Value, old: Option<&Value>) {
    prepare::keep_status(new, old, json!({}));
    workload::drop_unknown(new, old, "/spec/template");
    prepare::count_generation(new, old);
    // Unlike other workloads', a Deployment's generation counts its annotations too: they go to its ReplicaSets.
    if let Some(old) = old
        && new["metadata"]["generation"] == old["metadata"]["generation"]
        && !same(&new["metadata"]["annotations"], &old["metadata"]["annotations"])
    {
        new["metadata"]["generation"] = number(&old["metadata"], "generation").saturating_add(1).into();
    }
}

fn default(object: &mut Value) {
    let Some(spec) = workload::spec_of(object) else { return };
    workload::default(spec);
    fill(spec, "revisionHistoryLimit", || json!(10));
    fill(spec, "progressDeadlineSeconds", || json!(600));
    fill(spec, "strategy", || json!({}));
    let strategy = &mut spec["strategy"];
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(strategy, "rollingUpdate", || json!({}));
        fill(&mut strategy["rollingUpdate"], "maxSurge", || json!("25%"));
        fill(&mut strategy["rollingUpdate"], "maxUnavailable", || json!("25%"));
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(validate_spec(new, old));
    }
    if let Some(old) = workload::changes_status(new, old) {
        errors.extend(validate_status(new, old));
    }
    errors
}

fn validate_spec(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let negative = |field: &str| FieldError::negative(format!("spec.{field}"), &spec[field]);
    let mut errors: Vec<FieldError> = negative("replicas").into_iter().collect();
    errors.extend(workload::replicated(new, old));
    errors.extend(strategy(&spec["strategy"]));
    errors.extend(
        ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"].into_iter().filter_map(negative),
    );
    let deadline = spec["progressDeadlineSeconds"].as_i64();
    if deadline.is_some_and(|deadline| deadline <= number(spec, "minReadySeconds")) {
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", &spec["progressDeadlineSeconds"], why));
    }
    errors
}

fn strategy(strategy: &Value) -> Vec<FieldError> {
    match strategy["type"].as_str() {
        Some("RollingUpdate") => rolling_update(&strategy["rollingUpdate"]),
        Some("Recreate") if strategy["rollingUpdate"].is_null() => Vec::new(),
        Some("Recreate") => vec![FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )],
        _ => vec![FieldError::not_supported("spec.strategy", strategy, &["Recreate", "RollingUpdate"])],
    }
}

fn rolling_update(update: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.strategy.rollingUpdate";
    let (unavailable, surge) = (&update["maxUnavailable"], &update["maxSurge"]);
    let path = format!("{PATH}.maxUnavailable");
    let mut errors = Vec::new();
    errors.extend(int_or_percent::validate(&path, unavailable));
    errors.extend(int_or_percent::validate(&format!("{PATH}.maxSurge"), surge));
    if int_or_percent::amount(unavailable) == 0 && int_or_percent::amount(surge) == 0 {
        errors.push(FieldError::invalid(&path, unavailable, "may not be 0 when `maxSurge` is 0"));
    }
    errors.extend(int_or_percent::not_more_than_all(&path, unavailable));
    errors
}

fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let status = &new["status"];
    let counted = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let mut errors = workload::counts(status, &counted, &["updatedReplicas", "readyReplicas", "availableReplicas"]);
    errors.extend(workload::more_available_than_ready(status, "readyReplicas"));
    errors.extend(workload::fewer_collisions(new, old));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(strategy: Value) -> Vec<String> {
        let mut object = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "strategy": strategy, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}}});
        default(&mut object);
        validate(&object, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn fields_of_features_that_are_off_are_dropped_from_the_template() {
        let template = json!({"spec": {"workloadRef": {"name": "w", "podGroup": "g"}, "hostname": "h"}});
        let mut new = json!({"metadata": {}, "spec": {"template": template}});
        prepare_deployment(&mut new, None);
        assert_eq!(new["spec"]["template"]["spec"], json!({"hostname": "h"}));
        let stored = json!({"metadata": {"generation": 3}, "spec": {"template": template}});
        let mut labelled = stored.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        prepare_deployment(&mut labelled, Some(&stored));
        assert_eq!(labelled["metadata"]["generation"], 3, "what an earlier version stored is no change");
        assert_eq!(labelled["spec"], stored["spec"]);
        let mut changed = stored.clone();
        changed["spec"]["template"]["spec"]["hostname"] = "i".into();
        prepare_deployment(&mut changed, Some(&stored));
        assert_eq!(changed["spec"]["template"]["spec"], json!({"hostname": "i"}), "as its ReplicaSets have it");
    }

    #[test]
    fn a_strategy_must_be_able_to_proceed() {
        assert!(words(json!({})).is_empty());
        assert!(words(json!({"type": "Recreate"})).is_empty());
        let stuck = words(json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}));
        assert_eq!(
            stuck,
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"]
        );
        assert!(words(json!({"rollingUpdate": {"maxSurge": "many"}}))[0].contains("valid percent string"));
        assert_eq!(words(json!({"type": "Recreate", "rollingUpdate": {}})).len(), 1);
    }

    #[test]
    fn a_change_of_annotations_counts_as_a_generation() {
        let old = json!({"metadata": {"generation": 3, "annotations": {"a": "b"}}, "spec": {"replicas": 1}});
        let mut new = json!({"metadata": {"annotations": {"a": "c"}}, "spec": {"replicas": 1}});
        prepare_deployment(&mut new, Some(&old));
        assert_eq!(new["metadata"]["generation"], 4);
        let mut same = old.clone();
        prepare_deployment(&mut same, Some(&old));
        assert_eq!(same["metadata"]["generation"], 3);
    }

    #[test]
    fn a_status_that_cannot_be_is_refused() {
        let old = json!({"spec": {}, "status": {"replicas": 2, "collisionCount": 3}});
        let new = json!({"spec": {}, "status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": -1}});
        let errors = validate(&new, Some(&old));
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["status.availableReplicas", "status.readyReplicas", "status.collisionCount"]);
    }
}
