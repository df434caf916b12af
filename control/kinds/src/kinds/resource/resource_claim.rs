//! ResourceClaim: devices that a pod needs, which were allocated to it, and who uses them.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    GROUP,
    claim_spec::{self, RequestNames},
    configuration, device_status, drop_fields, duplicates, items, label, pool_name, text, too_many,
};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    subresources: &["status"],
    default: |object| {
        if let Some(spec) = object.get_mut("spec") {
            claim_spec::default(spec);
        }
    },
    validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        if let Some(spec) = new.get_mut("spec") {
            claim_spec::drop_disabled(spec);
        }
    },
    prepare_status: |new, old| {
        drop_disabled(new, old);
        device_status::drop_deallocated(new, old);
    },
    columns: &[
        Column::name(),
        Column::text("State", "A summary of the current state (allocated, pending, reserved, etc.)."),
        Column::age(),
    ],
    cells: |object| vec![Cell::name(object), Cell::text(state(object)), Cell::age(object)],
    schema: "io.k8s.api.resource.v1.ResourceClaim",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

/// How many users a claim may have.
const MAX_USERS: usize = 256;
/// How many devices a claim can be given.
pub const MAX_RESULTS: usize = 32;
const SOURCES: [&str; 2] = ["FromClaim", "FromClass"];

fn state(claim: &Value) -> String {
    let deleted = claim["metadata"]["deletionTimestamp"].is_string();
    let status = &claim["status"];
    let allocated = !status["allocation"].is_null();
    let states = [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (allocated && !items(status, "reservedFor").is_empty(), "reserved"),
    ];
    states.into_iter().filter(|(is, _)| *is).map(|(_, state)| state).collect::<Vec<_>>().join(",")
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(old) = old else { return claim_spec::validate("spec", &new["spec"]) };
    let spec = &new["spec"];
    let mut errors: Vec<FieldError> =
        (old["spec"] != *spec).then(|| FieldError::immutable("spec", spec)).into_iter().collect();
    if old["status"] != new["status"] {
        errors.extend(status(new, &old["status"]));
    }
    errors
}

fn status(claim: &Value, old: &Value) -> Vec<FieldError> {
    const USERS: &str = "status.reservedFor";
    let status = &claim["status"];
    let mut errors = Vec::new();
    let users = items(status, "reservedFor");
    match too_many(USERS, users, MAX_USERS) {
        Some(error) => errors.push(error),
        None => {
            for (i, user) in users.iter().enumerate() {
                let missing = ["resource", "name", "uid"].into_iter().filter(|field| text(user, field).is_empty());
                errors.extend(missing.map(|field| FieldError::required(format!("{USERS}[{i}].{field}"), "")));
            }
            errors.extend(duplicates(USERS, users.iter().map(|user| text(user, "uid").to_owned())));
        }
    }
    let allocation = &status["allocation"];
    errors.extend(device_status::validate(status));
    if !users.is_empty() && allocation.is_null() {
        errors.push(FieldError::forbidden(USERS, "may not be specified when `allocated` is not set"));
    } else if claim["metadata"]["deletionTimestamp"].is_string() {
        let old_users: HashSet<&Value> = items(old, "reservedFor").iter().collect();
        if users.iter().any(|user| !old_users.contains(user)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(USERS, why));
        }
    }
    match (old["allocation"].is_null(), allocation.is_null()) {
        (false, false) if old["allocation"] != *allocation => {
            errors.push(FieldError::immutable("status.allocation", allocation));
        }
        (true, false) => errors.extend(new_allocation(allocation, &RequestNames::of(&claim["spec"]))),
        _ => {}
    }
    errors
}

fn new_allocation(allocation: &Value, requests: &RequestNames<'_>) -> Vec<FieldError> {
    const RESULTS: &str = "status.allocation.devices.results";
    const CONFIG: &str = "status.allocation.devices.config";
    let mut errors = Vec::new();
    let results = items(&allocation["devices"], "results");
    errors.extend(too_many(RESULTS, results, MAX_RESULTS));
    for (i, result) in results.iter().take(MAX_RESULTS).enumerate() {
        let path = format!("{RESULTS}[{i}]");
        errors.extend(requests.check(&format!("{path}.request"), &result["request"]));
        errors.extend(names::csi_driver(&format!("{path}.driver"), &result["driver"]));
        errors.extend(pool_name(&format!("{path}.pool"), &result["pool"]));
        errors.extend(label(&format!("{path}.device"), &result["device"]));
    }
    let config = items(&allocation["devices"], "config");
    errors.extend(too_many(CONFIG, config, 2 * configuration::MAX_ITEMS));
    for (i, one) in config.iter().take(2 * configuration::MAX_ITEMS).enumerate() {
        let path = format!("{CONFIG}[{i}]");
        match text(one, "source") {
            "" => errors.push(FieldError::required(format!("{path}.source"), "")),
            source if SOURCES.contains(&source) => {}
            _ => errors.push(FieldError::not_supported(format!("{path}.source"), &one["source"], &SOURCES)),
        }
        errors.extend(requests.check_all(&format!("{path}.requests"), items(one, "requests")));
        errors.extend(configuration::validate(&path, one, false));
    }
    errors
}

/// Drops fields of features that are switched off, unless the claim has some already.
fn drop_disabled(new: &mut Value, old: &Value) {
    const SHARED: [&str; 2] = ["shareID", "consumedCapacity"];
    const BINDING: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    let results = items(&old["status"]["allocation"]["devices"], "results");
    let has =
        |list: &[Value], fields: &[&str]| fields.iter().any(|field| list.iter().any(|one| !one[*field].is_null()));
    let is_shared = has(results, &SHARED) || has(items(&old["status"], "devices"), &SHARED[..1]);
    let has_conditions = has(results, &BINDING);
    let Some(status) = new.get_mut("status").filter(|status| status.is_object()) else { return };
    let mut each = |pointer: &str, fields: &[&str]| {
        for one in status.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten() {
            drop_fields(one, fields);
        }
    };
    if !is_shared {
        each("/allocation/devices/results", &SHARED);
        each("/devices", &SHARED[..1]);
    }
    if !has_conditions {
        each("/allocation/devices/results", &BINDING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(status: Value) -> Value {
        let mut claim = json!({"metadata": {"name": "c"}, "status": status, "spec": {"devices": {"requests": [
            {"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}});
        (KIND.default)(&mut claim);
        claim
    }

    fn allocation(device: &str) -> Value {
        json!({"devices": {"results": [
            {"request": "gpu", "driver": "gpu.example.com", "pool": "n1", "device": device}]}})
    }

    fn words(new: &Value, old: &Value) -> Vec<String> {
        validate(new, Some(old)).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_claim_is_allocated_once_and_then_reserved() {
        let user = json!({"resource": "pods", "name": "p", "uid": "u"});
        let (pending, allocated) = (claim(json!({})), claim(json!({"allocation": allocation("d0")})));
        let reserved = claim(json!({"allocation": allocation("d0"), "reservedFor": [user]}));
        assert!(words(&allocated, &pending).is_empty());
        assert!(words(&reserved, &allocated).is_empty());
        assert_eq!([&pending, &allocated, &reserved].map(state), ["pending", "allocated", "allocated,reserved"]);
        let moved = words(&claim(json!({"allocation": allocation("d1")})), &allocated);
        assert!(moved.len() == 1 && moved[0].ends_with("field is immutable"), "{moved:?}");
        assert_eq!(
            words(&claim(json!({"reservedFor": [user]})), &pending),
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
        );
        let twice = claim(json!({"allocation": allocation("d0"), "reservedFor": [user, user, {}]}));
        assert_eq!(words(&twice, &allocated).len(), 4);
    }

    #[test]
    fn fields_of_features_that_are_off_are_dropped_unless_they_are_in_use() {
        let sharing = || {
            let mut status = json!({"allocation": allocation("d0"), "devices": [{"device": "d0", "shareID": "x"}]});
            status["allocation"]["devices"]["results"][0]["shareID"] = "x".into();
            status["allocation"]["devices"]["results"][0]["bindingConditions"] = json!(["a"]);
            claim(status)
        };
        let mut new = sharing();
        drop_disabled(&mut new, &claim(json!({})));
        assert_eq!(new["status"], json!({"allocation": allocation("d0"), "devices": [{"device": "d0"}]}));
        let mut new = sharing();
        drop_disabled(&mut new, &sharing());
        assert_eq!(new, sharing());
    }

    #[test]
    fn the_spec_of_a_claim_never_changes() {
        let mut other = claim(json!({}));
        other["spec"]["devices"]["requests"][0]["exactly"]["count"] = json!(2);
        assert_eq!(validate(&other, Some(&claim(json!({}))))[0].path, "spec");
    }
}
