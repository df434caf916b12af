//! ReplicationController: what ReplicaSets came from. It has a plain map as its selector, and the template may be
//! missing until it is validated.

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, Deletion, FieldError, Storage,
    pod::{defaults::fill, sent_empties::refused_with},
    prepare,
    reading::{is_empty, number, same},
    replica_set,
    workload::{self, CONTAINERS, IMAGES, SELECTOR},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    namespaced: true,
    subresources: &["scale", "status"],
    storage: Storage::Stored,
    default,
    validate,
    validate_sent: Some(|new, old, empties| refused_with(validate(new, old), empties)),
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({"replicas": 0}));
        workload::drop_unknown(new, old, "/spec/template");
        prepare::count_generation(new, old);
    },
    columns: &[
        Column::name(),
        Column::integer("Desired", "Number of desired pods."),
        Column::integer("Current", "Most recently observed number of pods."),
        Column::integer("Ready", "Number of pods with a Ready condition."),
        Column::age(),
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
    selectable: replica_set::selectable,
    deletion: Deletion { orphans_by_default: true, ..Deletion::PLAIN },
    schema: "io.k8s.api.core.v1.ReplicationController",
    ..BuiltIn::PLAIN
};

fn default(object: &mut Value) {
    let Some(spec) = workload::spec_of(object) else { return };
    fill(spec, "replicas", || json!(1));
    if let Some(template) = spec.get_mut("template").filter(|template| template.is_object()) {
        workload::default_template(template);
    }
    let labels = spec["template"]["metadata"]["labels"].clone();
    if labels.is_object() {
        if is_empty(&spec["selector"]) {
            spec["selector"] = labels.clone();
        }
        if let Some(metadata) = object.get_mut("metadata").filter(|metadata| is_empty(&metadata["labels"])) {
            metadata["labels"] = labels;
        }
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(validate_spec(&new["spec"]));
        errors.extend(old.and_then(|old| inconvertible_selector(new, old)));
    }
    if workload::changes_status(new, old).is_some() {
        errors.extend(replica_set::validate_status(&new["status"]));
    }
    errors
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    const TEMPLATE: &str = "spec.template";
    let mut errors = Vec::new();
    errors.extend(FieldError::negative("spec.minReadySeconds", &spec["minReadySeconds"]));
    if is_empty(&spec["selector"]) {
        errors.push(FieldError::required("spec.selector", ""));
    }
    errors.extend(FieldError::negative("spec.replicas", &spec["replicas"]));
    let template = &spec["template"];
    if template.is_null() {
        errors.push(FieldError::required(TEMPLATE, ""));
        return errors;
    }
    if !is_empty(&spec["selector"]) {
        errors.extend(workload::finds_template(&json!({"matchLabels": spec["selector"]}), template));
    }
    errors.extend(workload::template(TEMPLATE, template));
    errors.extend(workload::always_restarts(TEMPLATE, template, "ReplicationController"));
    errors
}

/// A selector that was made from one of another kind and cannot be told as a map stays as it is.
fn inconvertible_selector(new: &Value, old: &Value) -> Option<FieldError> {
    const KEY: &str = "non-convertible.kubernetes.io/selector";
    let (now, before) = (&new["spec"]["selector"], &old["spec"]["selector"]);
    let fixed = !old["metadata"]["annotations"][KEY].is_null() && !same(now, before);
    fixed.then(|| FieldError::invalid("spec.selector", now, "cannot update non-convertible selector"))
}

fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [containers, images] = workload::containers(&spec["template"]);
    vec![
        Cell::name(object),
        Cell::integer(number(spec, "replicas")),
        Cell::integer(number(status, "replicas")),
        Cell::integer(number(status, "readyReplicas")),
        Cell::age(object),
        containers,
        images,
        Cell::text(workload::labels_text(&spec["selector"])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(object: &Value) -> Vec<String> {
        validate(object, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn selector_and_labels_come_from_the_template() {
        let mut object = json!({"metadata": {"name": "r"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "a", "image": "x"}]}}}});
        default(&mut object);
        assert_eq!(object["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(object["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(words(&object), Vec::<String>::new());
        object["spec"]["selector"] = json!({"a": "c"});
        assert_eq!(
            words(&object),
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
            ]
        );
    }

    #[test]
    fn a_template_is_required() {
        let mut object = json!({"metadata": {"name": "r"}, "spec": {}});
        default(&mut object);
        assert_eq!(words(&object), ["spec.selector: Required value", "spec.template: Required value"]);
    }
}
