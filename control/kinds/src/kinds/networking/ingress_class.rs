//! IngressClass: which controller serves the Ingresses that name it.

use serde_json::{Value, json};

use super::{GROUP, typed_reference};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, pod::defaults::fill, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    default: |object| {
        if object["spec"]["parameters"].is_object() {
            fill(&mut object["spec"]["parameters"], "scope", || json!("Cluster"));
        }
    },
    validate,
    prepare: prepare::count_generation,
    columns: &[
        Column::name(),
        Column::text("Controller", "Controller that is responsible for handling this class"),
        Column::text("Parameters", "A reference to a resource with additional parameters"),
        Column::age(),
    ],
    cells: |object| {
        let (spec, parameters) = (&object["spec"], &object["spec"]["parameters"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let group = parameters["apiGroup"].as_str().map_or_else(String::new, |group| format!(".{group}"));
        let reference = match parameters.is_object() {
            true => format!("{}{group}/{}", text(&parameters["kind"]), text(&parameters["name"])),
            false => "<none>".to_owned(),
        };
        vec![Cell::name(object), Cell::text(text(&spec["controller"])), Cell::text(reference), Cell::age(object)]
    },
    schema: "io.k8s.api.networking.v1.IngressClass",
    ..BuiltIn::PLAIN
};

/// Bytes of `spec.controller`.
const MAX_CONTROLLER: usize = 250;

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    const CONTROLLER: &str = "spec.controller";
    let controller = &new["spec"]["controller"];
    let mut errors = Vec::new();
    if old.is_some_and(|old| old["spec"]["controller"] != *controller) {
        errors.push(FieldError::immutable(CONTROLLER, controller));
    }
    if controller.as_str().is_some_and(|text| text.len() > MAX_CONTROLLER) {
        errors.push(FieldError::too_long(CONTROLLER, MAX_CONTROLLER));
    }
    errors.extend(names::domain_prefixed_path(CONTROLLER, controller));
    if new["spec"]["parameters"].is_object() {
        errors.extend(parameters("spec.parameters", &new["spec"]["parameters"]));
    }
    errors
}

fn parameters(path: &str, parameters: &Value) -> Vec<FieldError> {
    let mut errors = typed_reference(path, parameters);
    let namespace = &parameters["namespace"];
    let path_of = |field: &str| format!("{path}.{field}");
    match parameters["scope"].as_str() {
        None => errors.push(FieldError::required(path_of("scope"), "")),
        Some("Namespace") => match namespace.as_str() {
            None => {
                let why = "`parameters.scope` is set to 'Namespace'";
                errors.push(FieldError::required(path_of("namespace"), why));
            }
            Some(text) => errors.extend(FieldError::invalid_each(path_of("namespace"), namespace, names::label(text))),
        },
        Some("Cluster") if namespace.is_null() => {}
        Some("Cluster") => {
            errors.push(FieldError::forbidden(path_of("namespace"), "`parameters.scope` is set to 'Cluster'"));
        }
        Some(_) => {
            let supported = ["Cluster", "Namespace"];
            errors.push(FieldError::not_supported(path_of("scope"), &parameters["scope"], &supported));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(spec: Value) -> Vec<String> {
        let mut object = json!({"spec": spec});
        (KIND.default)(&mut object);
        validate(&object, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_class_names_its_controller_and_where_its_parameters_are() {
        let class = |parameters: Value| words(json!({"controller": "example.com/c", "parameters": parameters}));
        assert!(words(json!({"controller": "example.com/c"})).is_empty());
        assert_eq!(words(json!({})), ["spec.controller: Required value"]);
        assert!(class(json!({"apiGroup": "k8s.example.com", "kind": "P", "name": "x"})).is_empty());
        assert_eq!(
            class(json!({"kind": "P", "name": "x", "namespace": "a"})),
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]
        );
        assert_eq!(
            class(json!({"kind": "P", "name": "x", "scope": "Namespace"})),
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]
        );
        assert_eq!(
            class(json!({"kind": "P", "scope": "Pod"})),
            [
                "spec.parameters.name: Required value",
                "spec.parameters.scope: Unsupported value: \"Pod\": supported values: \"Cluster\", \"Namespace\""
            ]
        );
    }

    #[test]
    fn a_class_keeps_its_controller() {
        let of = |controller: &str| json!({"spec": {"controller": controller}});
        let errors = validate(&of("a.io/b"), Some(&of("a.io/a")));
        assert_eq!(errors, [FieldError::immutable("spec.controller", &json!("a.io/b"))]);
    }
}
