//! VolumeAttachment: that a volume is to be attached to a node, and whether it is.

use serde_json::{Value, json};

use super::GROUP;
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, persistent_volume::spec, prepare, volume_source};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    namespaced: false,
    subresources: &["status"],
    default: |object| {
        if let Some(volume) = object.pointer_mut("/spec/source/inlineVolumeSpec").filter(|volume| volume.is_object()) {
            volume_source::default(volume);
        }
    },
    validate,
    prepare: |new, old| prepare::keep_status(new, old, json!({"attached": false})),
    columns: &[
        Column::name(),
        Column::name_of("Attacher", "The driver that attaches the volume."),
        Column::text("PV", "The volume."),
        Column::text("Node", "The node to which it is attached."),
        Column::boolean("Attached", "Whether it is attached."),
        Column::age(),
    ],
    cells: |object| {
        let spec = &object["spec"];
        let text = |value: &Value| Cell::text(value.as_str().unwrap_or_default());
        vec![
            Cell::name(object),
            text(&spec["attacher"]),
            text(&spec["source"]["persistentVolumeName"]),
            text(&spec["nodeName"]),
            Cell::boolean(object["status"]["attached"] == true),
            Cell::age(object),
        ]
    },
    schema: "io.k8s.api.storage.v1.VolumeAttachment",
    deletion: crate::kinds::Deletion::RETURNING,
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

/// Bytes of `status.attachmentMetadata`.
const MAX_METADATA: usize = 256 << 10;
/// Bytes of an error's message.
const MAX_MESSAGE: usize = 1024;

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = Vec::new();
    if spec["attacher"].as_str().is_none_or(str::is_empty) {
        errors.push(FieldError::required("spec.attacher", ""));
    }
    errors.extend(source("spec.source", &spec["source"]));
    let node = match &spec["nodeName"] {
        Value::Null => json!(""),
        node => node.clone(),
    };
    errors.extend(FieldError::invalid_each(
        "spec.nodeName",
        &node,
        names::subdomain(node.as_str().unwrap_or_default()),
    ));
    errors.extend(status(&new["status"]));
    match old {
        Some(old) if old["spec"] != *spec => {
            let source = &spec["source"];
            let shown = json!({"Attacher": spec["attacher"], "Source": {
                "PersistentVolumeName": source["persistentVolumeName"],
                "InlineVolumeSpec": source["inlineVolumeSpec"]}, "NodeName": spec["nodeName"]});
            errors.push(FieldError::immutable("spec", &shown));
        }
        Some(_) => {}
        None => {
            errors.extend(names::csi_driver("spec.attacher", &spec["attacher"]));
            let volume = &spec["source"]["persistentVolumeName"];
            if let Some(name) = volume.as_str() {
                errors.extend(FieldError::invalid_each(
                    "spec.source.persistentVolumeName",
                    volume,
                    names::subdomain(name),
                ));
            }
        }
    }
    errors
}

fn source(path: &str, source: &Value) -> Vec<FieldError> {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let inline = &source["inlineVolumeSpec"];
    match (inline.is_null(), source["persistentVolumeName"].as_str()) {
        (true, None) => vec![FieldError::required(path, ONE)],
        (false, Some(_)) => vec![FieldError::forbidden(path, ONE)],
        (true, Some("")) => {
            let why = "must specify non empty persistentVolumeName";
            vec![FieldError::required(format!("{path}.persistentVolumeName"), why)]
        }
        (true, Some(_)) => Vec::new(),
        (false, None) => spec::validate_inline(&format!("{path}.inlineVolumeSpec"), inline),
    }
}

fn status(status: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let pairs = status["attachmentMetadata"].as_object().into_iter().flatten();
    let size: usize = pairs.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MAX_METADATA {
        errors.push(FieldError::too_long("status.attachmentMetadata", MAX_METADATA));
    }
    for field in ["attachError", "detachError"] {
        let (path, error) = (format!("status.{field}"), &status[field]);
        if error["message"].as_str().is_some_and(|message| message.len() > MAX_MESSAGE) {
            // The limit that Kubernetes names.
            errors.push(FieldError::too_long(format!("{path}.message"), MAX_METADATA));
        }
        if error["errorCode"].as_i64().is_some_and(|code| code < 0) {
            let why = "must be between 0 and 2147483647, inclusive";
            errors.push(FieldError::invalid(format!("{path}.errorCode"), &error["errorCode"], why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(volume: &str) -> Value {
        json!({"spec": {"attacher": "csi.example.com", "nodeName": "n1", "source": {"persistentVolumeName": volume}}})
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        validate(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_volume_in_the_attachment_is_one_of_csi_with_nothing_of_a_claim() {
        let mut inline = json!({"spec": {"attacher": "csi.example.com", "nodeName": "n1", "source": {"inlineVolumeSpec": {
            "accessModes": ["ReadWriteOnce"], "csi": {"driver": "csi.example.com", "volumeHandle": "h"}}}}});
        assert_eq!(words(&inline, None), Vec::<String>::new());
        inline["spec"]["source"]["inlineVolumeSpec"] = json!({"claimRef": {}, "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Delete", "nodeAffinity": {}, "storageClassName": "x", "volumeMode": "Block"});
        let told: Vec<String> =
            words(&inline, None).iter().map(|error| error.replace("spec.source.inlineVolumeSpec", "v")).collect();
        assert_eq!(
            told,
            [
                "v.claimRef: Forbidden: may not be specified in the context of inline volumes",
                "v.capacity: Forbidden: may not be specified in the context of inline volumes",
                "v.csi: Required value: has to be specified in the context of inline volumes",
                "v.accessModes: Required value",
                "v.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
                "v.nodeAffinity: Forbidden: may not be specified in the context of inline volumes",
                "v: Required value: must specify a volume type",
                "v.storageClassName: Forbidden: may not be specified in the context of inline volumes",
                "v.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes",
            ]
        );
    }

    #[test]
    fn an_attachment_is_of_one_volume_and_never_changes() {
        let good = attachment("pv");
        assert!(words(&good, None).is_empty());
        assert!(words(&good, Some(&good)).is_empty());
        let both = json!({"spec": {"attacher": "a", "nodeName": "n1",
            "source": {"persistentVolumeName": "p", "inlineVolumeSpec": {}}}});
        assert_eq!(
            words(&both, None),
            ["spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]
        );
        assert!(words(&attachment(""), None)[0].contains("must specify non empty persistentVolumeName"));
        let moved = words(&attachment("other"), Some(&good));
        assert_eq!(moved.len(), 1);
        assert!(moved[0].ends_with("field is immutable"), "{moved:?}");
        assert_eq!(words(&json!({"spec": {}}), None).len(), 4);
    }

    #[test]
    fn a_status_is_bounded() {
        let mut long = attachment("pv");
        long["status"] = json!({"attached": false, "attachError": {"message": "x".repeat(1025), "errorCode": -1}});
        let errors = words(&long, None);
        assert_eq!(
            errors,
            [
                "status.attachError.message: Too long: may not be more than 262144 bytes",
                "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"
            ]
        );
    }
}
