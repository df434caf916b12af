//! DeviceClass: which devices a request of this class may get, and how they are configured.

use serde_json::Value;

use super::{GROUP, configuration, items, too_many};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "DeviceClass",
    plural: "deviceclasses",
    singular: "deviceclass",
    namespaced: false,
    validate,
    prepare: |new, old| {
        // Of a feature that is switched off.
        if let Some(spec) = new.get_mut("spec") {
            super::drop_fields(spec, &["extendedResourceName"]);
        }
        prepare::count_generation(new, old);
    },
    columns: &[Column::name(), Column::age()],
    cells: |object| vec![Cell::name(object), Cell::age(object)],
    schema: "io.k8s.api.resource.v1.DeviceClass",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let stored = old.is_some_and(|old| old["spec"]["selectors"] == spec["selectors"]);
    let mut errors = configuration::selectors("spec", spec, stored);
    let config = items(spec, "config");
    if let Some(error) = too_many("spec.config", config, configuration::MAX_ITEMS) {
        errors.push(error);
        return errors;
    }
    let stored = old.is_some_and(|old| old["spec"]["config"] == spec["config"]);
    for (i, one) in config.iter().enumerate() {
        errors.extend(configuration::validate(&format!("spec.config[{i}]"), one, stored));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_selects_and_configures_devices() {
        let class = json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'a'"}}],
            "config": [{"opaque": {"driver": "a.b", "parameters": {"x": 1}}}]}});
        assert_eq!(validate(&class, None), []);
        let bad = json!({"spec": {"selectors": [{}], "config": [{}]}});
        let paths: Vec<String> = validate(&bad, None).into_iter().map(|e| e.path).collect();
        assert_eq!(paths, ["spec.selectors[0].cel", "spec.config[0].opaque"]);
    }
}
