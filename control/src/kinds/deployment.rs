//! Deployment: a pod template, how many pods of it, and how one template replaces another.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage,
    pod::defaults::{fill, fill_text},
    pod_template::{self, CONTAINERS, IMAGES, SELECTOR},
    prepare,
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
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        prepare::count_generation(new, old);
    },
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
    let [containers, images, selector] = pod_template::cells(spec);
    let number = |v: &Value| v.as_i64().unwrap_or_default();
    let desired = spec["replicas"].as_i64().unwrap_or(1);
    vec![
        Cell::name(object),
        Cell::text(format!("{}/{desired}", number(&status["readyReplicas"]))),
        Cell::integer(number(&status["updatedReplicas"])),
        Cell::integer(number(&status["availableReplicas"])),
        Cell::age(object),
        containers,
        images,
        selector,
    ]
}

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    pod_template::default(spec);
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
    let mut errors = pod_template::validate(new, old);
    let spec = &new["spec"];
    let (deadline, ready) = (spec["progressDeadlineSeconds"].as_i64(), spec["minReadySeconds"].as_i64().unwrap_or(0));
    if deadline.is_some_and(|deadline| deadline <= ready) {
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", &spec["progressDeadlineSeconds"], why));
    }
    let strategy = &spec["strategy"];
    match strategy["type"].as_str() {
        Some("RollingUpdate") => errors.extend(rolling_update(&strategy["rollingUpdate"])),
        Some("Recreate") if strategy["rollingUpdate"].is_null() => {}
        Some("Recreate") => errors.push(FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        _ => errors.push(FieldError::not_supported("spec.strategy", strategy, &["Recreate", "RollingUpdate"])),
    }
    errors
}

fn rolling_update(update: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.strategy.rollingUpdate";
    let mut errors = Vec::new();
    for field in ["maxUnavailable", "maxSurge"] {
        let (path, value) = (format!("{PATH}.{field}"), &update[field]);
        errors.extend(FieldError::negative(&path, value));
        match value.as_str().map(percent) {
            Some(None) => {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                           '93%', regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(path, value, why));
            }
            Some(Some(percent)) if field == "maxUnavailable" && percent > 100 => {
                errors.push(FieldError::invalid(path, value, "must not be greater than 100%"));
            }
            _ => {}
        }
    }
    let zero = |field: &str| update[field].as_i64() == Some(0) || update[field].as_str().and_then(percent) == Some(0);
    if zero("maxUnavailable") && zero("maxSurge") {
        let why = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(format!("{PATH}.maxUnavailable"), &update["maxUnavailable"], why));
    }
    errors
}

fn percent(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('%')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
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
}
