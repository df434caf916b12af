//! LimitRange: between which amounts the containers, pods and claims of a namespace must stay, and what those get that
//! say nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Naming, Storage, names,
    pod::{defaults::fill, resources},
    quantity::Quantity,
    reading::{entries, items, text},
    resource_name::{self, allows_overcommit},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    naming: Naming::OrUuid,
    default,
    validate,
    prepare: |_, _| {},
    columns: &[Column::name(), Column::created_at()],
    cells: |o| vec![Cell::name(o), Cell::created_at(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.LimitRange",
    creates_on_update: true,
    ..BuiltIn::PLAIN
};

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn default(object: &mut Value) {
    for limit in object.pointer_mut("/spec/limits").and_then(Value::as_array_mut).into_iter().flatten() {
        resources::round_lists(limit, &LISTS);
        if limit["type"] != "Container" {
            continue;
        }
        for (list, sources) in [("default", &["max"][..]), ("defaultRequest", &["default", "min"][..])] {
            for source in sources {
                for (name, amount) in limit[*source].as_object().cloned().unwrap_or_default() {
                    fill(limit, list, || Value::Object(Map::new()));
                    fill(&mut limit[list], &name, || amount);
                }
            }
        }
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if old.is_some_and(|old| old["spec"] == new["spec"]) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, limit) in items(&new["spec"]["limits"]).enumerate() {
        let path = format!("spec.limits[{i}]");
        let (kind, path_of_type) = (text(limit, "type"), format!("{path}.type"));
        errors.extend(limit_type(&path_of_type, kind));
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(path_of_type, &json!(kind)));
        }
        errors.extend(item(&path, limit));
    }
    errors
}

fn limit_type(path: &str, kind: &str) -> Vec<FieldError> {
    let wrong = FieldError::each(path, &json!(kind), names::qualified_name);
    if wrong.is_empty() && !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        let why = "must be a standard limit type or fully qualified";
        return vec![FieldError::invalid(path, &json!(kind), why)];
    }
    wrong
}

fn item(path: &str, limit: &Value) -> Vec<FieldError> {
    let kind = text(limit, "type");
    let check = if matches!(kind, "Pod" | "Container") { resource_name::of_container } else { resource_name::any };
    let mut errors = Vec::new();
    let mut names: Vec<&String> = Vec::new();
    let mut seen: HashSet<&String> = HashSet::new();
    for list in LISTS {
        let amounts = &limit[list];
        if kind == "Pod" && list.starts_with("default") {
            if entries(amounts).next().is_some() {
                let why = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(format!("{path}.{list}"), why));
            }
            continue;
        }
        for (name, _) in entries(amounts) {
            errors.extend(check(&format!("{path}.{list}[{name}]"), name));
            if seen.insert(name) {
                names.push(name);
            }
        }
    }
    if kind == "PersistentVolumeClaim" && limit["min"]["storage"].is_null() && limit["max"]["storage"].is_null() {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(format!("{path}.limits"), why));
    }
    for name in names {
        errors.extend(amounts(path, limit, name));
    }
    errors
}

/// Reasons against the amounts of one resource: they must leave room for each other.
fn amounts(path: &str, limit: &Value, name: &str) -> Vec<FieldError> {
    let of = |list: &str| Quantity::of(&limit[list][name]);
    let pod = text(limit, "type") == "Pod";
    let (min, max, ratio) = (of("min"), of("max"), of("maxLimitRequestRatio"));
    let default = of("default").filter(|_| !pod);
    let request = of("defaultRequest").filter(|_| !pod);
    let mut errors = Vec::new();
    let mut greater = |list: &str, shown: Quantity, low: (Option<Quantity>, &str), high: (Option<Quantity>, &str)| {
        if let (Some(less), Some(more)) = (low.0, high.0)
            && less > more
        {
            let why = format!("{} value {less} is greater than {} value {more}", low.1, high.1);
            errors.push(FieldError::invalid(format!("{path}.{list}[{name}]"), &json!(shown.to_string()), why));
        }
    };
    let shown = |amount: Option<Quantity>| amount.unwrap_or(Quantity::ZERO);
    greater("min", shown(min), (min, "min"), (max, "max"));
    greater("defaultRequest", shown(request), (min, "min"), (request, "default request"));
    greater("defaultRequest", shown(request), (request, "default request"), (max, "max"));
    greater("defaultRequest", shown(request), (request, "default request"), (default, "default limit"));
    greater("default", shown(min), (min, "min"), (default, "default"));
    greater("default", shown(max), (default, "default"), (max, "max"));
    if let Some(ratio) = ratio {
        let path = format!("{path}.maxLimitRequestRatio[{name}]");
        let value = json!(ratio.to_string());
        if ratio < Quantity::of_units(1) {
            errors.push(FieldError::invalid(&path, &value, format!("ratio {ratio} is less than 1")));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let most = max.millis() as f64 / min.millis() as f64;
            if ratio.millis() as f64 / 1000.0 > most {
                let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
                errors.push(FieldError::invalid(path, &value, why));
            }
        }
    }
    if let (Some(default), Some(request)) = (default, request)
        && !allows_overcommit(name)
        && default != request
    {
        let why = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        let path = format!("{path}.defaultRequest[{name}]");
        errors.push(FieldError::invalid(path, &json!(request.to_string()), why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(limit: Value) -> Vec<String> {
        let mut object = json!({"spec": {"limits": [limit]}});
        default(&mut object);
        validate(&object, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_container_gets_what_its_limits_say() {
        let mut object = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"},
            "default": {"memory": "4Mi"}}]}});
        default(&mut object);
        let limit = &object["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"memory": "4Mi", "cpu": "2"}));
        assert_eq!(limit["defaultRequest"], json!({"memory": "4Mi", "cpu": "2"}));
    }

    #[test]
    fn amounts_leave_room_for_each_other() {
        let good = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "10"}});
        assert_eq!(words(good), Vec::<String>::new());
        assert_eq!(
            words(json!({"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "1"}})),
            [
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
            ]
        );
        assert_eq!(
            words(
                json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}})
            ),
            [
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000"
            ]
        );
        assert_eq!(
            words(json!({"type": "PersistentVolumeClaim"})),
            [
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"
            ]
        );
        assert_eq!(
            words(json!({"type": "Disk"})),
            ["spec.limits[0].type: Invalid value: \"Disk\": must be a standard limit type or fully qualified"]
        );
        let devices = json!({"type": "Container", "default": {"example.com/gpu": "2"}, "defaultRequest": {"example.com/gpu": "1"}});
        assert!(words(devices)[0].contains("must equal to defaultRequest value 1 in example.com/gpu"));
    }
}
