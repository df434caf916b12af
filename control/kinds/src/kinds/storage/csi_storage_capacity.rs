//! CSIStorageCapacity: how much space a driver has for a StorageClass, seen from some nodes.

use serde_json::Value;

use super::GROUP;
use crate::kinds::{BuiltIn, Cell, Column, FieldError, label_selector, names, quantity};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    validate,
    columns: &[Column::name(), Column::created_at()],
    cells: |object| vec![Cell::name(object), Cell::created_at(object)],
    schema: "io.k8s.api.storage.v1.CSIStorageCapacity",
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let (topology, class) = (&new["nodeTopology"], &new["storageClassName"]);
    let mut errors = label_selector::validate("nodeTopology", topology);
    let wrong = names::subdomain(class.as_str().unwrap_or_default());
    errors.extend(FieldError::invalid_each("storageClassName", class, wrong));
    if new["capacity"].as_str().and_then(quantity::millis).is_some_and(|amount| amount < 0) {
        errors.push(FieldError::invalid("capacity", &new["capacity"], "must be greater than or equal to 0"));
    }
    if let Some(old) = old {
        let changed = ["nodeTopology", "storageClassName"].into_iter().filter(|field| new[*field] != old[*field]);
        errors.extend(changed.map(|field| FieldError::immutable(field, &new[field])));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_capacity_is_of_one_class_and_topology() {
        let of = |class: &str, capacity: &str, zone: &str| {
            let topology = json!({"matchLabels": {"zone": zone}});
            json!({"storageClassName": class, "capacity": capacity, "nodeTopology": topology})
        };
        let good = of("fast", "1Gi", "a");
        assert_eq!(validate(&good, Some(&good)), []);
        let paths = |new: &Value, old| validate(new, old).into_iter().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(paths(&of("", "-1Gi", "a"), None), ["storageClassName", "capacity"]);
        assert_eq!(paths(&of("slow", "2Gi", "b"), Some(&good)), ["nodeTopology", "storageClassName"]);
    }
}
