//! CSIDriver: what the cluster does for a CSI driver of this name.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::GROUP;
use crate::kinds::{BuiltIn, Cell, Column, FieldError, pod::defaults::fill, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    namespaced: false,
    default,
    validate,
    prepare: prepare::count_changes,
    columns: &[
        Column::name(),
        Column::boolean("AttachRequired", "Whether volumes are attached to a node before they are mounted."),
        Column::boolean("PodInfoOnMount", "Whether the driver is told the pod on mount."),
        Column::boolean("StorageCapacity", "Whether the scheduler asks how much space there is."),
        Column::text("TokenRequests", "Audiences of the service account tokens that the driver gets."),
        Column::boolean("RequiresRepublish", "Whether the driver wants to publish its volumes again and again."),
        Column::text("Modes", "Which kinds of volumes the driver serves."),
        Column::age(),
    ],
    cells: |object| {
        let spec = &object["spec"];
        let joined = |list: &Value, field: Option<&str>| -> String {
            let texts = list.as_array().into_iter().flatten().map(|item| field.map_or(item, |field| &item[field]));
            texts.map(|text| text.as_str().unwrap_or_default()).collect::<Vec<_>>().join(",")
        };
        let modes = joined(&spec["volumeLifecycleModes"], None);
        let tokens = &spec["tokenRequests"];
        vec![
            Cell::name(object),
            Cell::boolean(spec["attachRequired"] != false),
            Cell::boolean(spec["podInfoOnMount"] == true),
            Cell::boolean(spec["storageCapacity"] == true),
            Cell::text(if tokens.is_null() { "<unset>".to_owned() } else { joined(tokens, Some("audience")) }),
            Cell::boolean(spec["requiresRepublish"] == true),
            Cell::text(if modes.is_empty() { "<none>".to_owned() } else { modes }),
            Cell::age(object),
        ]
    },
    schema: "io.k8s.api.storage.v1.CSIDriver",
    deletion: crate::kinds::Deletion::RETURNING,
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    fill(spec, "attachRequired", || json!(true));
    fill(spec, "podInfoOnMount", || json!(false));
    fill(spec, "storageCapacity", || json!(false));
    fill(spec, "fsGroupPolicy", || json!("ReadWriteOnceWithFSType"));
    if spec["volumeLifecycleModes"].as_array().is_none_or(Vec::is_empty) {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
    fill(spec, "requiresRepublish", || json!(false));
    fill(spec, "seLinuxMount", || json!(false));
}

const MODES: [&str; 2] = ["Persistent", "Ephemeral"];
const GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = Vec::new();
    // The path that Kubernetes names.
    for (field, path) in [
        ("attachRequired", "spec.attachedRequired"),
        ("podInfoOnMount", "spec.podInfoOnMount"),
        ("storageCapacity", "spec.storageCapacity"),
    ] {
        if spec[field].is_null() {
            errors.push(FieldError::required(path, ""));
        }
    }
    if spec["fsGroupPolicy"].as_str().is_some_and(|policy| !GROUP_POLICIES.contains(&policy)) {
        errors.push(FieldError::not_supported("spec.fsGroupPolicy", &spec["fsGroupPolicy"], &GROUP_POLICIES));
    }
    let tokens = spec["tokenRequests"].as_array().map(Vec::as_slice).unwrap_or_default();
    errors.extend(token_requests(tokens));
    for mode in spec["volumeLifecycleModes"].as_array().into_iter().flatten() {
        if mode.as_str().is_none_or(|mode| !MODES.contains(&mode)) {
            errors.push(FieldError::not_supported("spec.volumeLifecycleModes", mode, &MODES));
        }
    }
    if spec["seLinuxMount"].is_null() {
        errors.push(FieldError::required("spec.seLinuxMount", ""));
    }
    let period = &spec["nodeAllocatableUpdatePeriodSeconds"];
    if period.as_i64().is_some_and(|seconds| seconds < 10) {
        let why = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid("spec.nodeAllocatableUpdatePeriodSeconds", period, why));
    }
    let in_secrets = &spec["serviceAccountTokenInSecrets"];
    if !in_secrets.is_null() && tokens.is_empty() {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid("spec.serviceAccountTokenInSecrets", in_secrets, why));
    }
    if let Some(old) = old.map(|old| &old["spec"]) {
        for (field, path) in
            [("attachRequired", "spec.attachedRequired"), ("volumeLifecycleModes", "spec.volumeLifecycleModes")]
        {
            if spec[field] != old[field] {
                errors.push(FieldError::immutable(path, &spec[field]));
            }
        }
    }
    errors
}

fn token_requests(requests: &[Value]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut audiences = BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        let path = format!("spec.tokenRequests[{i}]");
        let audience = request["audience"].as_str().unwrap_or_default();
        if !audiences.insert(audience) {
            errors.push(FieldError::duplicate(format!("{path}.audience"), &audience.into()));
            continue;
        }
        let seconds = &request["expirationSeconds"];
        let mut wrong = |why| errors.push(FieldError::invalid(format!("{path}.expirationSeconds"), seconds, why));
        match seconds.as_i64() {
            Some(..600) => wrong("may not specify a duration less than 10 minutes"),
            Some(0x1_0000_0001..) => wrong("may not specify a duration larger than 2^32 seconds"),
            _ => {}
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "csi.example.com"}, "spec": spec});
        default(&mut object);
        object
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        validate(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_driver_has_defaults_for_everything() {
        let object = driver(json!({}));
        assert!(words(&object, None).is_empty());
        let shown = &(KIND.cells)(&object)[1..7];
        assert_eq!(
            shown,
            [
                Cell::boolean(true),
                Cell::boolean(false),
                Cell::boolean(false),
                Cell::text("<unset>"),
                Cell::boolean(false),
                Cell::text("Persistent"),
            ]
        );
    }

    #[test]
    fn what_a_driver_asks_for_is_checked_and_partly_fixed() {
        let token = |audience: &str, seconds: i64| json!({"audience": audience, "expirationSeconds": seconds});
        let requests = json!([token("a", 60), token("a", 600), token("", 1 << 33)]);
        let old = driver(json!({}));
        let new = driver(json!({"attachRequired": false, "fsGroupPolicy": "All", "tokenRequests": requests,
            "volumeLifecycleModes": ["Inline"], "nodeAllocatableUpdatePeriodSeconds": 9}));
        assert_eq!(
            words(&new, Some(&old)),
            [
                "spec.fsGroupPolicy: Unsupported value: \"All\": supported values: \"File\", \"None\", \
                 \"ReadWriteOnceWithFSType\"",
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 60: may not specify a duration less than 10 \
                 minutes",
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                "spec.tokenRequests[2].expirationSeconds: Invalid value: 8589934592: may not specify a duration \
                 larger than 2^32 seconds",
                "spec.volumeLifecycleModes: Unsupported value: \"Inline\": supported values: \"Persistent\", \
                 \"Ephemeral\"",
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 \
                 seconds",
                "spec.attachedRequired: Invalid value: false: field is immutable",
                "spec.volumeLifecycleModes: Invalid value: [\"Inline\"]: field is immutable",
            ]
        );
        let secrets = driver(json!({"serviceAccountTokenInSecrets": true}));
        assert!(words(&secrets, None)[0].contains("no tokenRequests are specified"));
    }
}
