//! PriorityClass: how much more important some pods are than others.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage,
    pod::defaults::fill,
    reading::{number, same, text},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    categories: &[],
    namespaced: false,
    subresources: &[],
    storage: Storage::Stored,
    default: |o| fill(o, "preemptionPolicy", || json!("PreemptLowerPriority")),
    validate,
    prepare: |new, old| {
        if old.is_none()
            && let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("generation".into(), json!(1));
        }
    },
    columns: &[
        Column::name(),
        Column::integer("Value", "Priority of the pods of this class."),
        Column::boolean("Global-Default", "Whether pods without a class are of this one."),
        Column::age(),
        Column::text("PreemptionPolicy", "Whether pods of this class may take the place of others."),
    ],
    cells: |o| {
        vec![
            Cell::name(o),
            Cell::integer(number(o, "value")),
            Cell::boolean(o["globalDefault"] == true),
            Cell::age(o),
            Cell::text(text(o, "preemptionPolicy")),
        ]
    },
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.scheduling.v1.PriorityClass",
    ..BuiltIn::PLAIN
};

/// A class that every cluster has.
#[derive(Clone, Copy, Debug)]
pub struct SystemClass {
    /// `system-node-critical`
    pub name: &'static str,
    /// What pods of the class get as their priority.
    pub value: i32,
    /// For which pods the class is.
    pub description: &'static str,
}

/// The largest value of a class that is not the system's.
const HIGHEST_OF_USERS: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";

/// The classes that every cluster has.
pub const SYSTEM_CLASSES: [SystemClass; 2] = [
    SystemClass {
        name: "system-node-critical",
        value: 2_000_001_000,
        description: "Used for system critical pods that must not be moved from their current node.",
    },
    SystemClass {
        name: "system-cluster-critical",
        value: 2_000_000_000,
        description: "Used for system critical pods that must run in the cluster, but can be moved to another node if \
                      necessary.",
    },
];

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match old {
        None => {
            let name = text(&new["metadata"], "name");
            if name.starts_with(SYSTEM_PREFIX) {
                errors.extend(unknown_system_class(name, new));
            } else if number(new, "value") > HIGHEST_OF_USERS {
                let why = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
                errors.push(FieldError::forbidden("value", &why));
            }
            errors.extend(preemption_policy("preemptionPolicy", &new["preemptionPolicy"]));
        }
        Some(old) => {
            if number(new, "value") != number(old, "value") {
                errors.push(FieldError::forbidden("value", "may not be changed in an update."));
            }
            if !same(&new["preemptionPolicy"], &old["preemptionPolicy"]) {
                errors.push(FieldError::immutable("preemptionPolicy", &new["preemptionPolicy"]));
            }
        }
    }
    errors
}

/// Why a value is no preemption policy, of a class or of a pod.
pub fn preemption_policy(path: &str, policy: &Value) -> Option<FieldError> {
    match policy.as_str() {
        Some("") => Some(FieldError::required(path, "")),
        _ => FieldError::unsupported(path, policy, &["PreemptLowerPriority", "Never"]),
    }
}

fn unknown_system_class(name: &str, class: &Value) -> Option<FieldError> {
    let why = match SYSTEM_CLASSES.iter().find(|known| known.name == name) {
        None => format!("{name} is not a known system priority class"),
        Some(known) if number(class, "value") != i64::from(known.value) => {
            format!("value of {name} PriorityClass must be {}", known.value)
        }
        Some(_) if class["globalDefault"] == true => format!("globalDefault of {name} PriorityClass must be false"),
        Some(_) => return None,
    };
    let why =
        format!("priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}");
    Some(FieldError::forbidden("metadata.name", &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(new: Value, old: Option<Value>) -> Vec<String> {
        validate(&new, old.as_ref()).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn names_and_values_of_the_system_are_its_own() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        assert_eq!(words(class("high", 1_000_000_000), None), Vec::<String>::new());
        assert_eq!(
            words(class("high", 1_000_000_001), None),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        for known in SYSTEM_CLASSES {
            assert_eq!(words(class(known.name, known.value.into()), None), Vec::<String>::new());
        }
        let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error:";
        assert_eq!(
            words(class("system-mine", 1), None),
            [format!("{reserved} system-mine is not a known system priority class")]
        );
        assert_eq!(
            words(class("system-node-critical", 1), None),
            [format!("{reserved} value of system-node-critical PriorityClass must be 2000001000")]
        );
    }

    #[test]
    fn the_value_stays() {
        let class = |value: i64, policy: &str| json!({"value": value, "preemptionPolicy": policy});
        assert_eq!(
            words(class(2, "Never"), Some(class(1, "PreemptLowerPriority"))),
            [
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"Never\": field is immutable"
            ]
        );
    }
}
