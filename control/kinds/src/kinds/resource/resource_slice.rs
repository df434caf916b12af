//! ResourceSlice: devices of one driver that can be reached from the same nodes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{GROUP, drop_fields, duplicates, items, label, pool_name, qualified_name, text, too_many};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    namespaced: false,
    validate,
    prepare: |new, old| {
        // As in Kubernetes, where a new slice is its first generation whatever it says.
        prepare::count_generation(new, old);
        drop_disabled(new);
    },
    columns: &[
        Column::name(),
        Column::text("Node", "The node whose devices these are."),
        Column::text("Driver", "The driver of the devices."),
        Column::text("Pool", "The pool that the devices belong to."),
        Column::age(),
    ],
    cells: |object| {
        let spec = &object["spec"];
        vec![
            Cell::name(object),
            Cell::text(text(spec, "nodeName")),
            Cell::text(text(spec, "driver")),
            Cell::text(text(&spec["pool"], "name")),
            Cell::age(object),
        ]
    },
    selectable: |object| {
        let field = |name| text(&object["spec"], name).to_owned();
        BTreeMap::from([("spec.nodeName", field("nodeName")), ("spec.driver", field("driver"))])
    },
    schema: "io.k8s.api.resource.v1.ResourceSlice",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

const MAX_DEVICES: usize = 128;
const MAX_ATTRIBUTES: usize = 32;
const MAX_TEXT: usize = 64;

/// Fields of features that are switched off.
fn drop_disabled(slice: &mut Value) {
    let Some(spec) = slice.get_mut("spec") else { return };
    drop_fields(spec, &["sharedCounters", "perDeviceNodeSelection"]);
    for device in spec.get_mut("devices").and_then(Value::as_array_mut).into_iter().flatten() {
        let fields = [
            "consumesCounters",
            "nodeName",
            "nodeSelector",
            "allNodes",
            "taints",
            "bindsToNode",
            "bindingConditions",
            "bindingFailureConditions",
            "allowMultipleAllocations",
        ];
        drop_fields(device, &fields);
        for (_, capacity) in device.get_mut("capacity").and_then(Value::as_object_mut).into_iter().flatten() {
            drop_fields(capacity, &["requestPolicy"]);
        }
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let (spec, pool) = (&new["spec"], &new["spec"]["pool"]);
    let mut errors = names::csi_driver("spec.driver", &spec["driver"]);
    errors.extend(pool_name("spec.pool.name", &pool["name"]));
    let count = pool["resourceSliceCount"].as_i64().unwrap_or(0);
    if count <= 0 {
        errors.push(FieldError::invalid("spec.pool.resourceSliceCount", &count.into(), "must be greater than zero"));
    }
    if pool["generation"].as_i64().is_some_and(|generation| generation < 0) {
        let why = "must be greater than or equal to zero";
        errors.push(FieldError::invalid("spec.pool.generation", &pool["generation"], why));
    }
    if let Some(old) = old.map(|old| &old["spec"]) {
        for (path, new, old) in [
            ("spec.pool.name", &pool["name"], &old["pool"]["name"]),
            ("spec.driver", &spec["driver"], &old["driver"]),
            ("spec.nodeName", &spec["nodeName"], &old["nodeName"]),
        ] {
            if new != old {
                errors.push(FieldError::immutable(path, new));
            }
        }
    }
    errors.extend(nodes(spec));
    let devices = items(spec, "devices");
    match too_many("spec.devices", devices, MAX_DEVICES) {
        Some(error) => errors.push(error),
        None => {
            errors.extend(devices.iter().enumerate().flat_map(|(i, one)| device(&format!("spec.devices[{i}]"), one)));
            errors.extend(duplicates("spec.devices", devices.iter().map(|device| text(device, "name").to_owned())));
        }
    }
    errors
}

/// Why it is not said, or said twice, from which nodes the devices can be reached.
fn nodes(spec: &Value) -> Vec<FieldError> {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut errors = Vec::new();
    let mut set = Vec::new();
    match spec["nodeName"].as_str() {
        None => {}
        Some("") => {
            let why = "must be either unset or set to a non-empty string";
            errors.push(FieldError::invalid("spec.nodeName", &spec["nodeName"], why));
        }
        Some(name) => {
            set.push("`nodeName`");
            errors.extend(FieldError::invalid_each("spec.nodeName", &spec["nodeName"], names::subdomain(name)));
        }
    }
    if !spec["nodeSelector"].is_null() {
        set.push("`nodeSelector`");
        let terms = &spec["nodeSelector"]["nodeSelectorTerms"];
        if terms.as_array().is_none_or(|terms| terms.len() != 1) {
            let why = "must have exactly one node selector term";
            errors.push(FieldError::invalid("spec.nodeSelector.nodeSelectorTerms", terms, why));
        }
    }
    match &spec["allNodes"] {
        Value::Null => {}
        Value::Bool(true) => set.push("`allNodes`"),
        other => errors.push(FieldError::invalid("spec.allNodes", other, "must be either unset or set to true")),
    }
    match set.len() {
        0 => errors.push(FieldError::required("spec", ONE)),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", set.join(", "));
            let why = format!("{ONE}, but multiple fields are set");
            errors.push(FieldError::invalid("spec", &shown.into(), why));
        }
    }
    errors
}

fn device(path: &str, device: &Value) -> Vec<FieldError> {
    let mut errors = label(&format!("{path}.name"), &device["name"]);
    let map = |field: &str| device[field].as_object().into_iter().flatten();
    let count = map("attributes").count() + map("capacity").count();
    if count > MAX_ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.push(FieldError::invalid(path, &count.into(), why));
        return errors;
    }
    for (name, value) in map("attributes") {
        let path = format!("{path}.attributes[{name}]");
        errors.extend(qualified_name::validate(&path, name));
        errors.extend(attribute(&path, value));
    }
    for (name, _) in map("capacity") {
        errors.extend(qualified_name::validate(&format!("{path}.capacity[{name}]"), name));
    }
    errors
}

fn attribute(path: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let set = ["bool", "int", "string", "version"].into_iter().filter(|field| !value[*field].is_null()).count();
    if set != 1 {
        let shown = if set == 0 { &Value::String(String::new()) } else { value };
        errors.push(FieldError::invalid(path, shown, "exactly one value must be specified"));
    }
    let long = |field: &str| value[field].as_str().is_some_and(|text| text.len() > MAX_TEXT);
    if long("string") {
        errors.push(FieldError::too_long(format!("{path}.string"), MAX_TEXT));
    }
    if value["version"].as_str().is_some_and(|version| !is_semantic_version(version)) {
        let why = "must be a string compatible with semver.org spec 2.0.0";
        errors.push(FieldError::invalid(format!("{path}.version"), &value["version"], why));
    }
    if long("version") {
        errors.push(FieldError::too_long(format!("{path}.version"), MAX_TEXT));
    }
    errors
}

/// Semantic Versioning 2.0.0: `1.2.3-alpha.1+build`.
fn is_semantic_version(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let (version, build) = text.split_once('+').map_or((text, None), |(version, build)| (version, Some(build)));
    let (core, before) = version.split_once('-').map_or((version, None), |(core, before)| (core, Some(before)));
    let of_release = |part: &str| word(part) && (number(part) || part.bytes().any(|b| !b.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|before| before.split('.').all(of_release))
        && build.is_none_or(|build| build.split('.').all(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(devices: Value) -> Value {
        json!({"spec": {"driver": "gpu.example.com", "nodeName": "n1", "devices": devices,
            "pool": {"name": "n1", "resourceSliceCount": 1}}})
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        validate(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_slice_is_of_one_driver_pool_and_node() {
        let good =
            slice(json!([{"name": "gpu-0", "attributes": {"model": {"string": "a"}, "v": {"version": "1.0.0-rc.1"}},
            "capacity": {"memory": {"value": "8Gi"}}}]));
        assert_eq!(words(&good, Some(&good)), Vec::<String>::new());
        let mut other = good.clone();
        other["spec"]["nodeName"] = json!("n2");
        assert_eq!(words(&other, Some(&good)), ["spec.nodeName: Invalid value: \"n2\": field is immutable"]);
        other["spec"]["allNodes"] = json!(true);
        assert!(
            words(&other, None)[0].starts_with("spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of")
        );
        assert_eq!(words(&json!({"spec": {}}), None).len(), 4);
    }

    #[test]
    fn devices_have_names_and_typed_attributes() {
        let devices = json!([{"name": "a"}, {"name": "a", "attributes": {"x": {}, "y": {"version": "01.0.0"}}}]);
        assert_eq!(
            words(&slice(devices), None),
            [
                "spec.devices[1].attributes[x]: Invalid value: \"\": exactly one value must be specified",
                "spec.devices[1].attributes[y].version: Invalid value: \"01.0.0\": must be a string compatible with \
                 semver.org spec 2.0.0",
                "spec.devices[1]: Duplicate value: \"a\"",
            ]
        );
        for version in ["1.0.0", "1.2.3-alpha.0+b.01", "0.0.0-0a"] {
            assert!(is_semantic_version(version), "{version}");
        }
        for version in ["1.0", "1.0.0-01", "1.0.0-", "1.0.0+", "a.b.c", "1.0.0.0"] {
            assert!(!is_semantic_version(version), "{version}");
        }
    }

    #[test]
    fn what_features_that_are_off_say_counts_as_a_change() {
        let old = json!({"metadata": {"generation": 1}, "spec": {"driver": "d"}});
        let mut new = old.clone();
        new["spec"]["perDeviceNodeSelection"] = json!(false);
        (KIND.prepare)(&mut new, Some(&old));
        assert_eq!(new, json!({"metadata": {"generation": 2}, "spec": {"driver": "d"}}));
    }

    #[test]
    fn features_that_are_off_leave_nothing() {
        let mut new = slice(json!([{"name": "a", "taints": [], "nodeName": "n1"}]));
        new["spec"]["sharedCounters"] = json!([]);
        drop_disabled(&mut new);
        assert_eq!(new, slice(json!([{"name": "a"}])));
    }
}
