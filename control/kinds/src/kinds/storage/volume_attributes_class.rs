//! VolumeAttributesClass: attributes of a volume that its driver can change while it is used.

use serde_json::Value;

use super::{GROUP, parameters};
use crate::kinds::{BuiltIn, Cell, Column, FieldError};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    namespaced: false,
    validate,
    columns: &[Column::name(), Column::text("DriverName", "The CSI driver of the volumes."), Column::age()],
    cells: |object| {
        let driver = object["driverName"].as_str().unwrap_or_default();
        vec![Cell::name(object), Cell::text(driver), Cell::age(object)]
    },
    schema: "io.k8s.api.storage.v1.VolumeAttributesClass",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(old) = old {
        errors.extend(["driverName", "parameters"].into_iter().filter_map(|f| parameters::changed(f, new, old)));
    }
    errors.extend(parameters::driver("driverName", &new["driverName"]));
    errors.extend(parameters::validate(&new["parameters"], false));
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_has_a_driver_and_parameters_that_stay() {
        let class = |driver: &str, parameters: Value| json!({"driverName": driver, "parameters": parameters});
        let good = class("csi.example.com", json!({"iops": "100"}));
        assert_eq!(validate(&good, None), []);
        let paths = |new: &Value, old| validate(new, old).into_iter().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(paths(&class("", json!({})), None), ["driverName", "parameters"]);
        let other = class("csi2.example.com", json!({"iops": "200"}));
        assert_eq!(paths(&other, Some(&good)), ["driverName", "parameters"]);
    }
}
