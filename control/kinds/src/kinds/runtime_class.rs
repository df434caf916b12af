//! RuntimeClass: a way to run containers, by the name that nodes know it under.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, names,
    pod::{resources, tolerations},
    reading::{items, same, text},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    short_names: &[],
    categories: &[],
    namespaced: false,
    subresources: &[],
    storage: Storage::Stored,
    default: |_| {},
    validate,
    prepare: |_, _| {},
    columns: &[
        Column::name(),
        Column::text("Handler", "Name of the runtime's configuration on the nodes."),
        Column::age(),
    ],
    cells: |o| vec![Cell::name(o), Cell::text(text(o, "handler")), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.node.v1.RuntimeClass",
    updates_name_version: true,
    creates_on_update: true,
    ..BuiltIn::PLAIN
};

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = FieldError::each("handler", &json!(text(new, "handler")), names::label);
    if !new["overhead"].is_null() {
        errors.extend(resources::of_container("overhead", &json!({"limits": new["overhead"]["podFixed"]}), None));
    }
    let scheduling = &new["scheduling"];
    errors.extend(names::labels("scheduling.nodeSelector", &scheduling["nodeSelector"]));
    errors.extend(scheduled_tolerations("scheduling.tolerations", &scheduling["tolerations"]));
    if old.is_some_and(|old| !same(&old["handler"], &new["handler"])) {
        errors.push(FieldError::immutable("handler", &new["handler"]));
    }
    errors
}

fn scheduled_tolerations(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = tolerations::validate(path, list);
    let mut seen = HashSet::new();
    for (i, toleration) in items(list).enumerate() {
        let taint = ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
        if !seen.insert(taint) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), toleration));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(new: Value, old: Option<Value>) -> Vec<String> {
        validate(&new, old.as_ref()).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn the_handler_is_a_name_that_stays() {
        assert_eq!(words(json!({"handler": "runc"}), None), Vec::<String>::new());
        assert_eq!(words(json!({"handler": "Run C"}), None).len(), 1);
        assert_eq!(words(json!({}), None).len(), 1);
        assert_eq!(
            words(json!({"handler": "kata"}), Some(json!({"handler": "runc"}))),
            ["handler: Invalid value: \"kata\": field is immutable"]
        );
    }

    #[test]
    fn overhead_and_scheduling_are_checked_as_in_a_pod() {
        let class = json!({"handler": "kata", "overhead": {"podFixed": {"cpus": "1", "memory": "-1"}},
            "scheduling": {"tolerations": [{"key": "a"}, {"key": "a"}, {"operator": "Is"}]}});
        let words = words(class, None);
        assert_eq!(
            words[0],
            "overhead.limits[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified"
        );
        assert!(words.iter().any(|w| w.starts_with("overhead.limits[memory]: Invalid value: \"-1\"")), "{words:?}");
        assert!(words.iter().any(|w| w.starts_with("scheduling.tolerations[1]: Duplicate value")), "{words:?}");
    }
}
