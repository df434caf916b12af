//! ResourceQuota: how much all objects of a namespace together may take.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage,
    pod::resources,
    prepare,
    quantity::Quantity,
    reading::{as_text, entries, is_empty, items, text},
    resource_name::{self, is_standard_for_quota},
    workload,
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    categories: &[],
    namespaced: true,
    subresources: &["status"],
    storage: Storage::Stored,
    default: |quota| {
        for (part, lists) in [("spec", &["hard"][..]), ("status", &["hard", "used"])] {
            if let Some(part) = quota.get_mut(part) {
                resources::round_lists(part, lists);
            }
        }
    },
    validate,
    prepare: |new, old| prepare::keep_status(new, old, json!({})),
    columns: &[
        Column::name(),
        Column::text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
        Column::text(
            "Limit",
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        ),
        Column::age(),
    ],
    cells: |o| {
        let (limits, requests): (Vec<_>, Vec<_>) = used(&o["status"]).into_iter().partition(|(is_limit, _)| *is_limit);
        let joined = |list: Vec<(bool, String)>| {
            Cell::text(list.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", "))
        };
        vec![Cell::name(o), joined(requests), joined(limits), Cell::age(o)]
    },
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.ResourceQuota",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];
/// Scopes that exclude each other.
const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

/// `cpu: 1/2` for each resource, and whether it is one of limits.
fn used(status: &Value) -> Vec<(bool, String)> {
    let mut hard: Vec<(&String, &Value)> = entries(&status["hard"]).collect();
    hard.sort_by_key(|(name, _)| *name);
    let amount = |value: &Value| Quantity::of(value).unwrap_or(Quantity::ZERO);
    let cell = |(name, hard): (&String, &Value)| {
        (name.starts_with("limits."), format!("{name}: {}/{}", amount(&status["used"][name]), amount(hard)))
    };
    hard.into_iter().map(cell).collect()
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(validate_spec(&new["spec"]));
        let scopes = |object: &Value| -> BTreeSet<String> {
            items(&object["spec"]["scopes"]).map(|scope| as_text(scope).to_owned()).collect()
        };
        if old.is_some_and(|old| scopes(old) != scopes(new)) {
            errors.push(FieldError::immutable("spec.scopes", &new["spec"]["scopes"]));
        }
    }
    if workload::changes_status(new, old).is_some() {
        errors.extend(amounts("status.hard", &new["status"]["hard"]));
        errors.extend(amounts("status.used", &new["status"]["used"]));
    }
    errors
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let mut errors = amounts("spec.hard", &spec["hard"]);
    let scopes: Vec<&str> = items(&spec["scopes"]).map(as_text).collect();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.push(FieldError::invalid("spec.scopes", &spec["scopes"], "unsupported scope"));
        }
        errors.extend(misapplied(scope, spec).map(|why| FieldError::invalid("spec.scopes", &spec["scopes"], why)));
    }
    errors.extend(conflicts(&scopes, "spec.scopes", spec));
    if !spec["scopeSelector"].is_null() {
        errors.extend(scope_selector("spec.scopeSelector.matchExpressions", spec));
    }
    errors
}

fn amounts(path: &str, amounts: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, amount) in entries(amounts) {
        let path = format!("{path}[{name}]");
        errors.extend(resource_name::of_quota(&path, name));
        errors.extend(resource_name::amount(&path, name, amount));
    }
    errors
}

/// One reason for each resource of the quota that a scope does not concern.
fn misapplied(scope: &str, spec: &Value) -> impl Iterator<Item = &'static str> {
    const COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    let applies = |name: &str| match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            name == "pods" || COMPUTE.contains(&name)
        }
        _ => true,
    };
    let wrong = entries(&spec["hard"]).filter(|(name, _)| is_standard_for_quota(name) && !applies(name)).count();
    std::iter::repeat_n("unsupported scope applied to resource", wrong)
}

fn conflicts(scopes: &[&str], path: &str, spec: &Value) -> Vec<FieldError> {
    let both = OPPOSITES.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope)));
    both.map(|_| FieldError::invalid(path, &spec["scopes"], "conflicting scopes")).collect()
}

fn scope_selector(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut scopes = Vec::new();
    for expression in items(&spec["scopeSelector"]["matchExpressions"]) {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        let values = &expression["values"];
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(format!("{path}.scopeName"), &json!(scope), "unsupported scope"));
        }
        errors.extend(misapplied(scope, spec).map(|why| FieldError::invalid(path, &spec["scopeSelector"], why)));
        let path_of_operator = format!("{path}.operator");
        if operator != "Exists"
            && SCOPES.contains(&scope)
            && !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
        {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                       ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                       ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(&path_of_operator, &json!(operator), why));
        }
        match operator {
            "In" | "NotIn" if is_empty(values) => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if !is_empty(values) => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(format!("{path}.values"), values, why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let why = "not a valid selector operator";
                errors.push(FieldError::invalid(path_of_operator, &json!(operator), why));
            }
        }
        scopes.push(scope);
    }
    errors.extend(conflicts(&scopes, path, spec));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(spec: Value, old: Option<Value>) -> Vec<String> {
        let old = old.map(|spec| json!({"spec": spec}));
        let errors = validate(&json!({"spec": spec}), old.as_ref());
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_quota_limits_what_there_is() {
        let hard = json!({"cpu": "1", "pods": "3", "count/deployments.apps": "2", "requests.example.com/gpu": "1"});
        assert_eq!(words(json!({"hard": hard}), None), Vec::<String>::new());
        assert_eq!(
            words(json!({"hard": {"pods": "1.5", "gpu": "1"}}), None),
            [
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "spec.hard[gpu]: Invalid value: \"gpu\": must be a standard resource for quota"
            ]
        );
    }

    #[test]
    fn scopes_fit_each_other_and_stay() {
        let scoped = |scopes: Value| json!({"hard": {"pods": "1"}, "scopes": scopes});
        assert_eq!(words(scoped(json!(["BestEffort"])), None), Vec::<String>::new());
        assert_eq!(
            words(scoped(json!(["BestEffort", "NotBestEffort"])), Some(scoped(json!([])))),
            [
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: field is immutable"
            ]
        );
        assert_eq!(
            words(json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}), None),
            ["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"]
        );
        let selector = json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In"}, {"scopeName": "Terminating", "operator": "In", "values": ["a"]}]}});
        let path = "spec.scopeSelector.matchExpressions";
        let refused = words(selector, None);
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].starts_with(&format!("{path}.values: Required value")));
        assert!(refused[1].starts_with(&format!("{path}.operator: Invalid value: \"In\": must be 'Exists'")));
    }

    #[test]
    fn cells_tell_what_is_used_of_what() {
        let quota = json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "2", "limits.cpu": "4"}, "used": {"pods": "1"}}});
        let cells = (KIND.cells)(&quota);
        assert_eq!(cells[1..3], [Cell::text("pods: 1/2"), Cell::text("limits.cpu: 0/4")]);
    }
}
