//! The volumes of a pod. What several sources become in one volume is `projected`'s business.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    containers::pull_policy,
    environment::{FILE_FIELDS, field_ref, resource_ref},
    mounts::Volumes,
    projected,
};
use crate::kinds::{
    FieldError,
    field::{child, item},
    names, persistent_volume_claim,
    quantity::Quantity,
    reading::{entries, is_empty, items, text},
    volume_source::{
        self, AWS, AZURE_DISK, CEPHFS, FC, FLEX, FLOCKER, GCE, HOST_PATH, NFS, PHOTON, PORTWORX, QUOBYTE, RBD,
        SCALE_IO, VSPHERE, VolumeType, descending, required, storage_os,
    },
};

/// The types that a pod's volume can have, in the order in which they are looked at.
const TYPES: &[VolumeType] = &[
    VolumeType::new("emptyDir", empty_dir),
    HOST_PATH,
    VolumeType::new("gitRepo", git_repository),
    GCE,
    AWS,
    VolumeType::new("secret", |path, source| keyed(path, source, "secretName")),
    NFS,
    VolumeType::new("iscsi", |path, target| {
        volume_source::iscsi(path, target, "must be valid format starting with iqn, eui, or naa")
    }),
    VolumeType::new("glusterfs", |path, source| required(path, source, &["endpoints", "path"])),
    FLOCKER,
    VolumeType::new("persistentVolumeClaim", |path, source| required(path, source, &["claimName"])),
    RBD,
    VolumeType::new("cinder", cinder),
    CEPHFS,
    QUOBYTE,
    VolumeType { shown: ("downwarAPI", "downwardAPI"), ..VolumeType::new("downwardAPI", downward_api) },
    FC,
    FLEX,
    VolumeType::new("configMap", |path, source| keyed(path, source, "name")),
    VolumeType::new("azureFile", |path, source| required(path, source, &["secretName", "shareName"])),
    VSPHERE,
    PHOTON,
    PORTWORX,
    AZURE_DISK,
    VolumeType::new("storageos", storage_os),
    VolumeType::new("projected", projected::validate),
    SCALE_IO,
    VolumeType::new("csi", csi),
    VolumeType::new("ephemeral", ephemeral),
    VolumeType::new("image", |path, image| {
        pull_policy(child(path, "pullPolicy"), &image["pullPolicy"]).into_iter().collect()
    }),
];

/// Reasons against all volumes of a spec, and those that there is nothing against, by name. `pod` is the metadata of a
/// pod, which a template does not have.
pub fn validate<'a>(path: &str, volumes: &'a Value, pod: Option<&Value>) -> (Vec<FieldError>, Volumes<'a>) {
    let mut errors = Vec::new();
    let mut valid = Volumes::new();
    let owner = pod.map(|metadata| text(metadata, "name")).filter(|name| !name.is_empty());
    let claim = |volume: &Value| owner.map(|owner| format!("{owner}-{}", text(volume, "name")));
    let made: BTreeSet<String> = items(volumes).filter(|v| !v["ephemeral"].is_null()).filter_map(claim).collect();
    for (i, volume) in items(volumes).enumerate() {
        let path = item(path, i);
        let mut wrong = volume_source::one_of(&path, volume, TYPES);
        // Of several sources the first alone is looked at.
        let is_first =
            TYPES.iter().find(|kind| !volume[kind.field].is_null()).is_some_and(|kind| kind.field == "image");
        if pod.is_some() && volume["image"].is_object() && is_first {
            wrong.extend(FieldError::missing(format!("{path}.image.reference"), &volume["image"]["reference"]));
        }
        wrong.extend(long_names(&path, volume, claim(volume).as_deref()));
        let name = text(volume, "name");
        if name.is_empty() {
            wrong.push(FieldError::required(child(&path, "name"), ""));
        } else {
            wrong.extend(FieldError::each(child(&path, "name"), &volume["name"], names::label));
        }
        if valid.contains_key(name) {
            wrong.push(FieldError::duplicate(child(&path, "name"), &json!(name)));
        }
        if wrong.is_empty() {
            valid.insert(name, volume);
        }
        errors.extend(wrong);
        let claimed = &volume["persistentVolumeClaim"]["claimName"];
        if claimed.as_str().is_some_and(|name| made.contains(name)) {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(format!("{path}.persistentVolumeClaim.claimName"), claimed, why));
        }
    }
    (errors, valid)
}

/// Why what is named after a volume would have no name; `claim` is that of its claim, in a pod.
fn long_names(path: &str, volume: &Value, claim: Option<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let target = &volume["iscsi"];
    let length = text(volume, "name").len() + 1 + text(target, "targetPortal").len();
    if !target["initiatorName"].is_null() && length > 64 {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is \
                   specified.";
        errors.push(FieldError::invalid(child(path, "name"), &volume["name"], why));
    }
    if let Some(claim) = claim.filter(|_| !volume["ephemeral"].is_null() && !text(volume, "name").is_empty()) {
        let wrong = names::subdomain(claim).into_iter().map(|why| format!("PVC name {claim:?}: {why}"));
        errors.extend(wrong.map(|why| FieldError::invalid(child(path, "name"), &volume["name"], why)));
    }
    errors
}

fn empty_dir(path: &str, source: &Value) -> Vec<FieldError> {
    let negative = Quantity::of(&source["sizeLimit"]).is_some_and(Quantity::is_negative);
    let why = "SizeLimit field must be a valid resource quantity";
    negative.then(|| FieldError::forbidden(child(path, "sizeLimit"), why)).into_iter().collect()
}

fn git_repository(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = required(path, source, &["repository"]);
    errors.extend(descending(&child(path, "directory"), &source["directory"]));
    errors
}

/// A ConfigMap or a Secret, whose name stands in `name`.
fn keyed(path: &str, source: &Value, name: &str) -> Vec<FieldError> {
    let mut errors = required(path, source, &[name]);
    errors.extend(mode(child(path, "defaultMode"), &source["defaultMode"]));
    for (i, key) in items(&source["items"]).enumerate() {
        errors.extend(key_to_path(&item(&child(path, "items"), i), key));
    }
    errors
}

/// Reasons against a key that becomes a file.
pub fn key_to_path(path: &str, item: &Value) -> Vec<FieldError> {
    let mut errors = required(path, item, &["key", "path"]);
    errors.extend(file(&child(path, "path"), &item["path"]));
    errors.extend(mode(child(path, "mode"), &item["mode"]));
    errors
}

fn downward_api(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = mode(child(path, "defaultMode"), &source["defaultMode"]).into_iter().collect();
    // As in Kubernetes, what is wrong with an item is told of the volume.
    errors.extend(items(&source["items"]).flat_map(|item| downward_file(path, item)));
    errors
}

/// Reasons against a file that tells of the pod.
pub fn downward_file(path: &str, item: &Value) -> Vec<FieldError> {
    let mut errors = required(path, item, &["path"]);
    errors.extend(file(&child(path, "path"), &item["path"]));
    let (field, resource) = (&item["fieldRef"], &item["resourceFieldRef"]);
    if !field.is_null() {
        errors.extend(field_ref(&child(path, "fieldRef"), field, &FILE_FIELDS));
        if !resource.is_null() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(path, &json!("resource"), why));
        }
    } else if !resource.is_null() {
        errors.extend(resource_ref(&child(path, "resourceFieldRef"), resource, true));
    } else {
        errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
    errors.extend(mode(child(path, "mode"), &item["mode"]));
    errors
}

/// Why a path is not one of a file in a volume that the node writes.
pub fn file(path: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = descending(path, value);
    let name = value.as_str().unwrap_or_default();
    if name.starts_with("..") && !name.starts_with("../") {
        errors.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
    errors
}

/// Why a number is no mode of a file.
pub fn mode(path: String, value: &Value) -> Option<FieldError> {
    let valid = value.as_i64().is_none_or(|mode| (0..=0o777).contains(&mode));
    let why = "must be a number between 0 and 0777 (octal), both inclusive";
    (!valid).then(|| FieldError::invalid(path, value, why))
}

fn cinder(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = required(path, source, &["volumeID"]);
    if !source["secretRef"].is_null() {
        errors.extend(required(&child(path, "secretRef"), &source["secretRef"], &["name"]));
    }
    errors
}

fn csi(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = names::csi_driver(&child(path, "driver"), &source["driver"]);
    let secret = &source["nodePublishSecretRef"];
    match secret["name"].as_str() {
        _ if secret.is_null() => {}
        None | Some("") => errors.push(FieldError::required(format!("{path}.nodePublishSecretRef.name"), "")),
        Some(_) => errors.extend(FieldError::each(child(path, "name"), &secret["name"], names::subdomain)),
    }
    errors
}

fn ephemeral(path: &str, source: &Value) -> Vec<FieldError> {
    let template = &source["volumeClaimTemplate"];
    let path = child(path, "volumeClaimTemplate");
    if template.is_null() {
        return vec![FieldError::required(path, "")];
    }
    let metadata = &template["metadata"];
    let mut errors = names::annotations(&format!("{path}.metadata.annotations"), &metadata["annotations"]);
    errors.extend(names::labels(&format!("{path}.metadata.labels"), &metadata["labels"]));
    let other = |field: &&String| !matches!(field.as_str(), "annotations" | "labels");
    let set = entries(metadata).filter(|(_, value)| !is_empty(value)).map(|(field, _)| field);
    errors.extend(
        set.filter(other).map(|field| FieldError::forbidden(format!("{path}.metadata.{field}"), "cannot be set")),
    );
    errors.extend(persistent_volume_claim::spec::validate(&child(&path, "spec"), &template["spec"]));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(volumes: Value) -> Vec<String> {
        let pod = json!({"name": "p"});
        let errors = validate("spec.volumes", &volumes, Some(&pod)).0;
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_volume_has_one_name_and_one_source() {
        assert_eq!(
            words(json!([{"name": "a", "emptyDir": {}}, {"name": "a", "configMap": {}}, {"name": "A", "emptyDir": {},
                "hostPath": {"path": "/x"}}])),
            [
                "spec.volumes[1].configMap.name: Required value".to_owned(),
                "spec.volumes[1].name: Duplicate value: \"a\"".to_owned(),
                "spec.volumes[2].hostPath: Forbidden: may not specify more than 1 volume type".to_owned(),
                format!("spec.volumes[2].name: Invalid value: \"A\": {}", names::label("A")[0]),
            ]
        );
        let volumes = json!([{"name": "a", "emptyDir": {}}, {"name": "b", "nfs": {}}]);
        assert_eq!(validate("v", &volumes, None).1.into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn keys_become_files_below_the_volume() {
        let item =
            |path: &str| json!([{"name": "c", "configMap": {"name": "c", "items": [{"key": "k", "path": path}]}}]);
        assert_eq!(words(item("a/b")), Vec::<String>::new());
        let path = "spec.volumes[0].configMap.items[0].path";
        assert_eq!(words(item("/a")), [format!("{path}: Invalid value: \"/a\": must be a relative path")]);
        assert_eq!(words(item("..a")), [format!("{path}: Invalid value: \"..a\": must not start with '..'")]);
        let mode = json!([{"name": "c", "secret": {"secretName": "s", "defaultMode": 512}}]);
        assert!(words(mode)[0].ends_with("must be a number between 0 and 0777 (octal), both inclusive"));
    }

    #[test]
    fn files_tell_one_thing_of_the_pod() {
        let downward = |item: Value| json!([{"name": "d", "downwardAPI": {"items": [item]}}]);
        let labels = json!({"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}});
        assert_eq!(words(downward(labels)), Vec::<String>::new());
        assert_eq!(
            words(downward(json!({"path": "x"}))),
            ["spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"]
        );
        assert_eq!(
            words(downward(json!({"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}))),
            ["spec.volumes[0].downwardAPI.resourceFieldRef.containerName: Required value"]
        );
    }

    #[test]
    fn a_claim_that_is_made_for_a_volume_is_not_named_by_another() {
        let template =
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let volumes = json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": template}},
            {"name": "other", "persistentVolumeClaim": {"claimName": "p-data"}}]);
        assert_eq!(
            words(volumes),
            [
                "spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"p-data\": must not reference a PVC that gets created for an ephemeral volume"
            ]
        );
        let mut named = template.clone();
        named["metadata"] = json!({"name": "x"});
        assert_eq!(
            words(json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": named}}])),
            ["spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set"]
        );
    }
}
