//! PodDisruptionBudget: how many of some pods may be evicted at a time. `api::subresource::eviction` asks it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, condition, int_or_percent, label_selector, prepare, reading::number,
    workload,
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    object_name: crate::kinds::names::path_segment,
    content_first: |_| true,
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    categories: &[],
    namespaced: true,
    subresources: &["status"],
    storage: Storage::Stored,
    default: |_| {},
    validate,
    prepare: |new, old| {
        let counts = ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];
        let initial: Value = counts.map(|count| (count.to_owned(), json!(0))).into_iter().collect();
        prepare::keep_status(new, old, initial);
        prepare::count_generation(new, old);
    },
    columns: &[
        Column::name(),
        Column::text("Min Available", "The minimum number of pods that must be available."),
        Column::text("Max Unavailable", "The maximum number of pods that may be unavailable."),
        Column::integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
        Column::age(),
    ],
    cells: |o| {
        let amount = |field: &str| match &o["spec"][field] {
            Value::Null => Cell::text("N/A"),
            Value::String(percent) => Cell::text(percent.as_str()),
            number => Cell::text(number.to_string()),
        };
        let allowed = Cell::integer(number(&o["status"], "disruptionsAllowed"));
        vec![Cell::name(o), amount("minAvailable"), amount("maxUnavailable"), allowed, Cell::age(o)]
    },
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.policy.v1.PodDisruptionBudget",
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(validate_spec(&new["spec"]));
    }
    if workload::changes_status(new, old).is_some() {
        errors.extend(validate_status(&new["status"]));
    }
    errors
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid("spec", spec, why));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let path = format!("spec.{field}");
        errors.extend(int_or_percent::validate(&path, &spec[field]));
        errors.extend(int_or_percent::not_more_than_all(&path, &spec[field]));
    }
    errors.extend(label_selector::validate("spec.selector", &spec["selector"]));
    let policy = &spec["unhealthyPodEvictionPolicy"];
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    errors.extend(FieldError::unsupported("spec.unhealthyPodEvictionPolicy", policy, &policies));
    errors
}

fn validate_status(status: &Value) -> Vec<FieldError> {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut errors = condition::validate_all("status.conditions", conditions);
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        errors.extend(FieldError::negative(format!("status.{field}"), &status[field]));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(spec: Value) -> Vec<String> {
        validate(&json!({"spec": spec}), None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_budget_says_one_amount() {
        for spec in [json!({}), json!({"minAvailable": 0}), json!({"maxUnavailable": "30%", "selector": {}})] {
            assert_eq!(words(spec.clone()), Vec::<String>::new(), "{spec}");
        }
        assert_eq!(
            words(json!({"minAvailable": 1, "maxUnavailable": 1})),
            [
                "spec: Invalid value: {\"minAvailable\":1,\"maxUnavailable\":1}: minAvailable and maxUnavailable cannot be both set"
            ]
        );
        assert_eq!(
            words(json!({"minAvailable": "101%"})),
            ["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"]
        );
        assert_eq!(
            words(json!({"unhealthyPodEvictionPolicy": "Never"})),
            [
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\""
            ]
        );
    }

    #[test]
    fn conditions_of_its_status_are_whole() {
        let old = json!({"status": {}});
        let new = json!({"status": {"disruptionsAllowed": -1, "conditions": [{"type": "A", "status": "Yes"}]}});
        let errors = validate(&new, Some(&old));
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "status.conditions[0].status",
                "status.conditions[0].lastTransitionTime",
                "status.conditions[0].reason",
                "status.disruptionsAllowed"
            ]
        );
    }
}
