//! CSINode: which CSI drivers run on a node, and by which names they know it.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::GROUP;
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, reading::text};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    namespaced: false,
    validate,
    columns: &[
        Column::name(),
        Column::integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
        Column::age(),
    ],
    cells: |object| {
        let count = i64::try_from(drivers(object).len()).unwrap_or(i64::MAX);
        vec![Cell::name(object), Cell::integer(count), Cell::age(object)]
    },
    schema: "io.k8s.api.storage.v1.CSINode",
    deletion: crate::kinds::Deletion::RETURNING,
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

/// Bytes of a node's name at a driver.
const MAX_NODE_ID: usize = 256;

fn drivers(object: &Value) -> &[Value] {
    object["spec"]["drivers"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, driver) in drivers(new).iter().enumerate() {
        let path = format!("spec.drivers[{i}]");
        errors.extend(names::csi_driver(&format!("{path}.name"), &driver["name"]));
        errors.extend(node_id(&format!("{path}.nodeID"), &driver["nodeID"]));
        errors.extend(FieldError::negative(format!("{path}.allocatable.count"), &driver["allocatable"]["count"]));
        if !seen.insert(driver["name"].as_str().unwrap_or_default()) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &driver["name"]));
        }
        errors.extend(topology_keys(&path, &driver["topologyKeys"]));
    }
    let mut by_name: HashMap<&str, Vec<&Value>> = HashMap::new();
    for driver in drivers(new) {
        by_name.entry(text(driver, "name")).or_default().push(driver);
    }
    for driver in old.map(drivers).into_iter().flatten() {
        for other in by_name.get(text(driver, "name")).into_iter().flatten() {
            if ["nodeID", "topologyKeys"].into_iter().any(|field| other[field] != driver[field]) {
                let shown = json!({"Name": other["name"], "NodeID": other["nodeID"],
                    "TopologyKeys": other["topologyKeys"], "Allocatable": null});
                errors.push(FieldError::immutable("spec.drivers", &shown));
            }
        }
    }
    errors
}

fn node_id(path: &str, value: &Value) -> Option<FieldError> {
    match value.as_str().unwrap_or_default() {
        "" => Some(FieldError::required(path, "")),
        id if id.len() > MAX_NODE_ID => {
            Some(FieldError::invalid(path, value, format!("must be {MAX_NODE_ID} characters or less")))
        }
        _ => None,
    }
}

/// `path` is that of the driver.
fn topology_keys(path: &str, keys: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for key in keys.as_array().into_iter().flatten() {
        let text = key.as_str().unwrap_or_default();
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        if !seen.insert(text) {
            errors.push(FieldError::duplicate(path, key));
        }
        errors.extend(FieldError::invalid_each(path, key, names::qualified_name(text)));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_registered_once_and_keeps_its_node_id() {
        let node = |drivers: Value| json!({"spec": {"drivers": drivers}});
        let driver = |name: &str, id: &str| json!({"name": name, "nodeID": id, "topologyKeys": ["a.io/zone"]});
        let good = node(json!([driver("csi.example.com", "n1")]));
        assert_eq!(validate(&good, Some(&good)), []);
        let words = |new: &Value, old| -> Vec<String> {
            validate(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
        };
        let twice = node(json!([driver("a", "n1"), driver("a", ""), {"name": "b", "nodeID": "x".repeat(257)}]));
        let errors = words(&twice, None);
        assert_eq!(
            errors[..2],
            ["spec.drivers[1].nodeID: Required value", "spec.drivers[1].name: Duplicate value: \"a\""]
        );
        assert!(errors[2].ends_with("must be 256 characters or less"), "{errors:?}");
        let moved = words(&node(json!([driver("csi.example.com", "n2")])), Some(&good));
        assert!(moved[0].starts_with("spec.drivers: Invalid value: {\"Name\":\"csi.example.com\""), "{moved:?}");
        let mut counted = good.clone();
        counted["spec"]["drivers"][0]["allocatable"] = json!({"count": 5});
        assert!(words(&counted, Some(&good)).is_empty());
    }
}
