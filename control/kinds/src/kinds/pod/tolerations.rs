//! Tolerations: which taints of nodes a pod bears.

use serde_json::{Value, json};

use crate::kinds::{
    FieldError,
    field::{child, item},
    names,
    reading::{items, text},
};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Reasons against tolerations, of a pod or a RuntimeClass.
pub fn validate(path: &str, list: &Value) -> Vec<FieldError> {
    items(list).enumerate().flat_map(|(i, toleration)| one(&item(path, i), toleration)).collect()
}

fn one(path: &str, toleration: &Value) -> Vec<FieldError> {
    let read = |field: &str| text(toleration, field);
    let (operator, value, effect) = (child(path, "operator"), &toleration["value"], child(path, "effect"));
    let mut errors = Vec::new();
    if !read("key").is_empty() {
        errors.extend(FieldError::each(child(path, "key"), &toleration["key"], names::qualified_name));
    } else if read("operator") != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(&operator, &json!(read("operator")), why));
    }
    if !toleration["tolerationSeconds"].is_null() && read("effect") != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(&effect, &json!(read("effect")), why));
    }
    match read("operator") {
        "" | "Equal" => {
            let wrong = names::label_value(read("value"));
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(operator, value, wrong.join(";")));
            }
        }
        "Exists" if read("value").is_empty() => {}
        "Exists" => {
            errors.push(FieldError::invalid(operator, value, "value must be empty when `operator` is 'Exists'"))
        }
        // Comparisons are known to Kubernetes, and off.
        "Lt" | "Gt" => {
            let known = ["Equal", "Exists", "Lt", "Gt"];
            errors.push(FieldError::not_supported(operator, &toleration["operator"], &known));
        }
        _ => errors.push(FieldError::not_supported(operator, &toleration["operator"], &["Equal", "Exists"])),
    }
    if !read("effect").is_empty() {
        errors.extend(taint_effect(effect, &toleration["effect"]));
    }
    errors
}

/// Why a taint has no such effect.
pub fn taint_effect(path: String, effect: &Value) -> Option<FieldError> {
    match effect.as_str() {
        None | Some("") => Some(FieldError::required(path, "")),
        Some(_) => FieldError::unsupported(path, effect, &EFFECTS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(toleration: Value) -> Vec<String> {
        validate("t", &json!([toleration])).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        for good in [
            json!({"operator": "Exists"}),
            json!({"key": "a", "value": "b", "effect": "NoSchedule"}),
            json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}),
        ] {
            assert_eq!(words(good.clone()), Vec::<String>::new(), "{good}");
        }
        assert_eq!(
            words(json!({"operator": "Is", "value": "a b"})),
            [
                "t[0].operator: Invalid value: \"Is\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                "t[0].operator: Unsupported value: \"Is\": supported values: \"Equal\", \"Exists\""
            ]
        );
        assert_eq!(
            words(json!({"key": "a", "operator": "Exists", "value": "b", "effect": "Never", "tolerationSeconds": 1})),
            [
                "t[0].effect: Invalid value: \"Never\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                "t[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
                "t[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""
            ]
        );
    }
}
