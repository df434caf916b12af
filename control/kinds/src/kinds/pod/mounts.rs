//! Where the volumes of a pod are in its containers: as directories, or as devices.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Value, json};

use crate::kinds::{
    FieldError,
    field::{child, item},
    reading::{items, text},
    volume_source::{backsteps, descending},
};

/// The volumes of a pod, by name.
pub type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// Reasons against the mounts and devices of a container.
pub fn validate(path: &str, container: &Value, volumes: &Volumes<'_>) -> Vec<FieldError> {
    let mut errors = mounts(&child(path, "volumeMounts"), container, volumes);
    errors.extend(devices(&child(path, "volumeDevices"), container, volumes));
    errors
}

/// The texts that the items of a list have in a field.
fn texts<'a>(list: &'a Value, field: &str) -> HashSet<&'a str> {
    items(list).map(|item| text(item, field)).collect()
}

fn mounts(path: &str, container: &Value, volumes: &Volumes<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    let of_devices = |field| texts(&container["volumeDevices"], field);
    let (device_names, device_paths) = (of_devices("name"), of_devices("devicePath"));
    for (i, mount) in items(&container["volumeMounts"]).enumerate() {
        let at = item(path, i);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(child(&at, "name"), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(FieldError::not_found(child(&at, "name"), &json!(name)));
        }
        if target.is_empty() {
            errors.push(FieldError::required(child(&at, "mountPath"), ""));
        }
        if !seen.insert(target) {
            errors.push(FieldError::invalid(child(&at, "mountPath"), &json!(target), "must be unique"));
        }
        if device_names.contains(name) {
            let why = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(child(&at, "name"), &json!(name), why));
        }
        if device_paths.contains(target) {
            let why = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(child(&at, "mountPath"), &json!(target), why));
        }
        // As in Kubernetes, the rest is told of the list and not of its item.
        errors.extend(descending(&child(path, "subPath"), &mount["subPath"]));
        if !text(mount, "subPathExpr").is_empty() {
            if !text(mount, "subPath").is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(child(&at, "subPathExpr"), &mount["subPathExpr"], why));
            }
            errors.extend(descending(&child(path, "subPathExpr"), &mount["subPathExpr"]));
        }
        errors.extend(propagation(&child(path, "mountPropagation"), &mount["mountPropagation"], container));
        errors.extend(recursive_read_only(&child(path, "recursiveReadOnly"), mount));
    }
    errors
}

fn propagation(path: &str, propagation: &Value, container: &Value) -> Vec<FieldError> {
    let known = ["Bidirectional", "HostToContainer", "None"];
    let mut errors: Vec<FieldError> = FieldError::unsupported(path, propagation, &known).into_iter().collect();
    if propagation == "Bidirectional" && container["securityContext"]["privileged"] != true {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path, why));
    }
    errors
}

fn recursive_read_only(path: &str, mount: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match mount["recursiveReadOnly"].as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount["readOnly"] != true {
                errors.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount["mountPropagation"].as_str().is_some_and(|propagation| propagation != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, why));
            }
        }
        Some(_) => {
            let known = ["Disabled", "Enabled", "IfPossible"];
            errors.push(FieldError::not_supported(path, &mount["recursiveReadOnly"], &known));
        }
    }
    errors
}

fn devices(path: &str, container: &Value, volumes: &Volumes<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let of_mounts = |field| texts(&container["volumeMounts"], field);
    let (mount_names, mount_paths) = (of_mounts("name"), of_mounts("mountPath"));
    for (i, device) in items(&container["volumeDevices"]).enumerate() {
        let path = item(path, i);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        let of_name = |why: &str| FieldError::invalid(child(&path, "name"), &json!(name), why);
        let of_path = |why: &str| FieldError::invalid(child(&path, "devicePath"), &json!(target), why);
        if name.is_empty() {
            errors.push(FieldError::required(child(&path, "name"), ""));
        } else if !names.insert(name) {
            errors.push(of_name("must be unique"));
        }
        match volumes.get(name) {
            None => errors.push(FieldError::not_found(child(&path, "name"), &json!(name))),
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(of_name(why));
            }
            Some(_) => {}
        }
        if target.is_empty() {
            errors.push(FieldError::required(child(&path, "devicePath"), ""));
        }
        if paths.contains(target) {
            errors.push(of_path("must be unique"));
        }
        if backsteps("", &device["devicePath"]).is_some() {
            errors.push(of_path("can not contain backsteps ('..')"));
        } else {
            paths.insert(target);
        }
        if mount_names.contains(name) {
            errors.push(of_name("must not already exist in volumeMounts"));
        }
        if mount_paths.contains(target) {
            errors.push(of_path("must not already exist as a path in volumeMounts"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(container: Value) -> Vec<String> {
        let (directory, claim) = (json!({"emptyDir": {}}), json!({"persistentVolumeClaim": {"claimName": "c"}}));
        let volumes = Volumes::from([("data", &directory), ("disk", &claim)]);
        validate("c", &container, &volumes).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn mounts_and_devices_are_apart() {
        let good = json!({"volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "a/b"}],
            "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}]});
        assert_eq!(words(good), Vec::<String>::new());
        assert_eq!(
            words(json!({"volumeMounts": [{"name": "disk", "mountPath": "/x"}, {"name": "data", "mountPath": "/x"}],
                "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}, {"name": "data", "devicePath": "/../y"}]})),
            [
                "c.volumeMounts[0].name: Invalid value: \"disk\": must not already exist in volumeDevices",
                "c.volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
                "c.volumeMounts[1].name: Invalid value: \"data\": must not already exist in volumeDevices",
                "c.volumeDevices[0].name: Invalid value: \"disk\": must not already exist in volumeMounts",
                "c.volumeDevices[1].name: Invalid value: \"data\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                "c.volumeDevices[1].devicePath: Invalid value: \"/../y\": can not contain backsteps ('..')",
                "c.volumeDevices[1].name: Invalid value: \"data\": must not already exist in volumeMounts",
            ]
        );
        assert_eq!(
            words(json!({"volumeMounts": [{"name": "other", "mountPath": "/o", "subPath": "/a/../b"}]})),
            [
                "c.volumeMounts[0].name: Not found: \"other\"",
                "c.volumeMounts.subPath: Invalid value: \"/a/../b\": must be a relative path",
                "c.volumeMounts.subPath: Invalid value: \"/a/../b\": must not contain '..'"
            ]
        );
    }

    #[test]
    fn propagation_to_the_host_is_for_the_privileged() {
        let mount = json!({"name": "data", "mountPath": "/d", "mountPropagation": "Bidirectional", "recursiveReadOnly": "Enabled"});
        assert_eq!(
            words(json!({"volumeMounts": [mount]})),
            [
                "c.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                "c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
                "c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
            ]
        );
    }
}
