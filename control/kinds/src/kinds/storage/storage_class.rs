//! StorageClass: by which driver, and how, the volumes of a claim are made.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{GROUP, parameters};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, pod::defaults::fill};
use crate::schema::SentEmpties;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    default: |object| {
        fill(object, "reclaimPolicy", || json!("Delete"));
        fill(object, "volumeBindingMode", || json!("Immediate"));
    },
    validate_sent: Some(validate),
    columns: &[
        Column::name(),
        Column::text("Provisioner", "The driver that makes the volumes."),
        Column::text("ReclaimPolicy", "What becomes of a volume without a claim."),
        Column::text("VolumeBindingMode", "When a claim is bound to a volume."),
        Column::text("AllowVolumeExpansion", "Whether volumes can grow."),
        Column::age(),
    ],
    cells: |object| {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let is_default = DEFAULT.iter().any(|annotation| object["metadata"]["annotations"][annotation] == "true");
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        vec![
            Cell::text(if is_default { format!("{name} (default)") } else { name.to_owned() }),
            Cell::text(text("provisioner")),
            Cell::text(object["reclaimPolicy"].as_str().unwrap_or("Delete")),
            Cell::text(object["volumeBindingMode"].as_str().unwrap_or("Immediate")),
            Cell::boolean(object["allowVolumeExpansion"] == true),
            Cell::age(object),
        ]
    },
    schema: "io.k8s.api.storage.v1.StorageClass",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

/// Annotations of which either marks the class of claims that name none.
pub const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

fn validate(new: &Value, old: Option<&Value>, empties: &SentEmpties) -> Vec<FieldError> {
    const POLICIES: [&str; 2] = ["Delete", "Retain"];
    const MODES: [&str; 2] = ["Immediate", "WaitForFirstConsumer"];
    let text = |field: &str| new[field].as_str().unwrap_or_default();
    let mut errors = parameters::driver("provisioner", &new["provisioner"]);
    errors.extend(parameters::validate(&new["parameters"], true));
    if !text("reclaimPolicy").is_empty() && !POLICIES.contains(&text("reclaimPolicy")) {
        errors.push(FieldError::not_supported("reclaimPolicy", &new["reclaimPolicy"], &POLICIES));
    }
    if !MODES.contains(&text("volumeBindingMode")) {
        errors.push(FieldError::not_supported("volumeBindingMode", &new["volumeBindingMode"], &MODES));
    }
    errors.extend(topologies(new["allowedTopologies"].as_array().map(Vec::as_slice).unwrap_or_default()));
    if let Some(old) = old {
        // Sent empty where there were none, they are a change as well, to the class alone: its attributes are compared
        // by their content.
        errors.extend(empties.is_new_at("parameters", old).then(|| parameters::forbidden("parameters")));
        let fields = ["parameters", "provisioner", "reclaimPolicy"];
        errors.extend(fields.into_iter().filter_map(|field| parameters::changed(field, new, old)));
        if new["volumeBindingMode"] != old["volumeBindingMode"] {
            errors.push(FieldError::immutable("volumeBindingMode", &new["volumeBindingMode"]));
        }
    }
    errors
}

fn topologies(terms: &[Value]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: BTreeSet<BTreeMap<&str, BTreeSet<&str>>> = BTreeSet::new();
    for (i, term) in terms.iter().enumerate() {
        let mut term_keys = BTreeMap::new();
        let path = format!("allowedTopologies[{i}].matchLabelExpressions");
        for (j, expression) in term["matchLabelExpressions"].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}[{j}]");
            let key = expression["key"].as_str().unwrap_or_default();
            let values = expression["values"].as_array().map(Vec::as_slice).unwrap_or_default();
            if values.is_empty() {
                errors.push(FieldError::required(format!("{path}.values"), ""));
            }
            let mut distinct = BTreeSet::new();
            for (k, value) in values.iter().enumerate() {
                if !distinct.insert(value.as_str().unwrap_or_default()) {
                    errors.push(FieldError::duplicate(format!("{path}.values[{k}]"), value));
                }
            }
            let key_path = format!("{path}.key");
            errors.extend(FieldError::invalid_each(&key_path, &expression["key"], names::qualified_name(key)));
            if term_keys.insert(key, distinct).is_some() {
                errors.push(FieldError::duplicate(key_path, &expression["key"]));
            }
        }
        // An empty term equals the state before the first one, in Kubernetes as well.
        if term_keys.is_empty() || !seen.insert(term_keys) {
            errors.push(FieldError::duplicate(path, &json!("")));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    fn class(fields: Value) -> Value {
        let mut class = json!({"metadata": {"name": "fast"}, "provisioner": "example.com/disk"});
        for (field, value) in fields.as_object().unwrap() {
            class[field] = value.clone();
        }
        (KIND.default)(&mut class);
        class
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        reasons(validate(new, old, &SentEmpties::NONE))
    }

    fn reasons(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_class_says_how_volumes_are_made() {
        let plain = class(json!({}));
        assert_eq!((&plain["reclaimPolicy"], &plain["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
        assert!(words(&plain, None).is_empty());
        assert_eq!(
            words(&class(json!({"provisioner": "", "reclaimPolicy": "Recycle", "volumeBindingMode": "Later"})), None),
            [
                "provisioner: Required value",
                "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \
                 \"WaitForFirstConsumer\"",
            ]
        );
        let zone = |values: Value| json!({"matchLabelExpressions": [{"key": "zone", "values": values}]});
        let topologies = |list: Value| words(&class(json!({"allowedTopologies": list})), None);
        assert!(topologies(json!([zone(json!(["a"])), zone(json!(["b"]))])).is_empty());
        assert_eq!(
            topologies(json!([zone(json!(["a", "a"])), zone(json!(["a"])), zone(json!([]))])),
            [
                "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
                "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
                "allowedTopologies[2].matchLabelExpressions[0].values: Required value",
            ]
        );
    }

    #[test]
    fn most_of_a_class_never_changes() {
        let old = class(json!({}));
        let new = class(json!({"parameters": {"a": "b"}, "provisioner": "x", "reclaimPolicy": "Retain",
            "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true}));
        assert_eq!(
            words(&new, Some(&old)),
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
                "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ]
        );
        assert!(words(&class(json!({"allowVolumeExpansion": true})), Some(&old)).is_empty());
    }

    #[test]
    fn parameters_that_are_sent_empty_are_a_change_where_there_are_none() {
        let sent = class(json!({"parameters": {}}));
        let (sent, empties) = Schema::builtin(KIND.schema).unwrap().decode_sent_value(sent).unwrap();
        let against = |old: Value| reasons(validate(&sent.value, Some(&old), &empties));
        let words = "parameters: Forbidden: updates to parameters are forbidden.";
        assert_eq!(against(class(json!({}))), [words]);
        assert_eq!(against(class(json!({"parameters": {"a": "b"}}))), [words]);
    }

    #[test]
    fn the_default_class_is_marked() {
        let mut class = class(json!({}));
        assert_eq!((KIND.cells)(&class)[0], Cell::text("fast"));
        class["metadata"]["annotations"] = json!({DEFAULT[0]: "true"});
        assert_eq!((KIND.cells)(&class)[0], Cell::text("fast (default)"));
    }
}
