//! ControllerRevision: what a DaemonSet's or StatefulSet's template was at one time. It is written once.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    BuiltIn, Cell, Column, FieldError, Storage,
    reading::{items, number, same, text},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    default: |_| {},
    validate,
    prepare: |_, _| {},
    columns: &[
        Column::name(),
        Column::text("Controller", "Controller of the object"),
        Column::text("Revision", "Number of the state."),
        Column::age(),
    ],
    cells: |o| vec![Cell::name(o), Cell::text(controller(o)), Cell::integer(number(o, "revision")), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.apps.v1.ControllerRevision",
    ..BuiltIn::PLAIN
};

/// `statefulset.apps/db`
fn controller(object: &Value) -> String {
    let owner = items(&object["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true);
    let Some(owner) = owner else { return "<none>".to_owned() };
    let group = text(owner, "apiVersion").split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
    format!("{}{group}/{}", text(owner, "kind").to_lowercase(), text(owner, "name"))
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = FieldError::negative("revision", &new["revision"]).into_iter().collect();
    let data = &new["data"];
    match old {
        Some(old) if !same(&old["data"], data) => errors.push(FieldError::immutable("data", data)),
        Some(_) => {}
        None if data.is_null() => errors.push(FieldError::required("data", "data is mandatory")),
        None if !data.is_object() => errors.push(FieldError::required("data", "data must be a valid JSON object")),
        None => {}
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_data_is_there_and_stays() {
        let revision = |data: Value| json!({"revision": 1, "data": data});
        assert_eq!(validate(&revision(json!({"spec": {}})), None), []);
        assert_eq!(validate(&revision(Value::Null), None)[0].message, "Required value: data is mandatory");
        assert_eq!(validate(&revision(json!([])), None)[0].message, "Required value: data must be a valid JSON object");
        let errors = validate(&revision(json!({"a": 1})), Some(&revision(json!({"a": 2}))));
        assert_eq!(errors[0].message, "Invalid value: {\"a\":1}: field is immutable");
        assert_eq!(validate(&json!({"revision": -1, "data": {}}), None)[0].path, "revision");
    }

    #[test]
    fn the_controller_is_named_with_its_group() {
        let owned = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "controller": true}]}});
        assert_eq!(controller(&owned), "statefulset.apps/db");
        assert_eq!(controller(&json!({})), "<none>");
    }
}
