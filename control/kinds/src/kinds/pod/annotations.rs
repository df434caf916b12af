//! Annotations of pods that mean something to Kubernetes: those of static pods, of deletion cost, and the ones from
//! before there were fields for seccomp and AppArmor.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{CONTAINER_LISTS, each_container, security};
use crate::kinds::{
    FieldError,
    reading::{entries, text},
    volume_source::descending,
};

/// On the API's copy of a pod that a node runs by itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const UNCONFINED: &str = "unconfined";
const RUNTIME_DEFAULT: &str = "runtime/default";
const DOCKER_DEFAULT: &str = "docker/default";
const LOCALHOST: &str = "localhost/";

/// Reasons against annotations of a pod, or of a template at `path`.
pub fn validate(path: &str, annotations: &Value, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !annotations[MIRROR].is_null() && text(spec, "nodeName").is_empty() {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(format!("{path}[{MIRROR}]"), &annotations[MIRROR], why));
    }
    if let Some(cost) = annotations[DELETION_COST].as_str().filter(|cost| !is_cost(cost)) {
        errors.push(FieldError::invalid(format!("{path}[{DELETION_COST}]"), &json!(cost), "must be a 32bit integer"));
    }
    let containers: HashSet<&str> = each_container(spec).map(|(_, container)| text(container, "name")).collect();
    for (key, value) in entries(annotations) {
        let profile = value.as_str().unwrap_or_default();
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            errors.extend(seccomp_profile(&format!("{path}.{key}"), profile));
        }
        if let Some(container) = key.strip_prefix(APP_ARMOR) {
            let path = format!("{path}[{key}]");
            if !containers.contains(container) {
                errors.push(FieldError::invalid(&path, &json!(container), "container not found"));
            }
            let known = matches!(profile, "" | UNCONFINED | RUNTIME_DEFAULT) || profile.starts_with(LOCALHOST);
            if !known {
                let why = format!("invalid AppArmor profile name: {profile:?}");
                errors.push(FieldError::invalid(path, value, why));
            }
        }
    }
    errors
}

/// A whole number without a plus or leading zeros.
fn is_cost(text: &str) -> bool {
    let first = text == "0" || text.starts_with(|c: char| c == '-' || ('1'..='9').contains(&c));
    first && text.parse::<i32>().is_ok()
}

fn seccomp_profile(path: &str, profile: &str) -> Vec<FieldError> {
    match profile {
        RUNTIME_DEFAULT | DOCKER_DEFAULT | UNCONFINED => Vec::new(),
        _ => match profile.strip_prefix(LOCALHOST) {
            Some(file) => descending(path, &json!(file)),
            None => vec![FieldError::invalid(path, &json!(profile), "must be a valid seccomp profile")],
        },
    }
}

/// Reasons against annotations that say another profile than the fields of the spec at `path` do.
pub fn agree_with_fields(path: &str, annotations: &Value, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let pod = &spec["securityContext"];
    if let Some(annotation) = annotations[SECCOMP_POD].as_str() {
        let path = format!("{path}.securityContext.seccompProfile");
        errors.extend(disagree(&path, "seccomp", annotation, &pod["seccompProfile"]));
    }
    for (at, container) in each_container(spec) {
        let path = format!("{path}.{at}.securityContext");
        let name = text(container, "name");
        let own = &container["securityContext"];
        if let Some(annotation) = annotations[format!("{SECCOMP_CONTAINER}{name}")].as_str() {
            errors.extend(disagree(&format!("{path}.seccompProfile"), "seccomp", annotation, &own["seccompProfile"]));
        }
        let profile = if own["appArmorProfile"].is_null() { &pod["appArmorProfile"] } else { &own["appArmorProfile"] };
        if spec["os"]["name"] != "windows"
            && let Some(annotation) = annotations[format!("{APP_ARMOR}{name}")].as_str()
        {
            errors.extend(disagree(&format!("{path}.appArmorProfile"), "apparmor", annotation, profile));
        }
    }
    errors
}

fn disagree(path: &str, module: &str, annotation: &str, profile: &Value) -> Option<FieldError> {
    let agrees = match profile["type"].as_str()? {
        "Unconfined" => annotation == UNCONFINED,
        "RuntimeDefault" => annotation == RUNTIME_DEFAULT || (module == "seccomp" && annotation == DOCKER_DEFAULT),
        "Localhost" => match annotation.strip_prefix(LOCALHOST) {
            Some(file) if profile["localhostProfile"] == file => true,
            Some(_) => {
                let why = format!("{module} profile in annotation and field must match");
                return Some(FieldError::forbidden(format!("{path}.localhostProfile"), &why));
            }
            None => false,
        },
        _ => true,
    };
    let why = format!("{module} type in annotation and field must match");
    (!agrees).then(|| FieldError::forbidden(format!("{path}.type"), &why))
}

/// Reasons against changes of annotations that stay as they are.
pub fn changes(new: &Value, old: &Value) -> Vec<FieldError> {
    const PATH: &str = "metadata.annotations";
    let mut errors = Vec::new();
    for (key, _) in entries(old).filter(|(key, value)| new.get(key.as_str()) != Some(*value)) {
        if key.starts_with(APP_ARMOR) {
            let why = "may not remove or update AppArmor annotations";
            errors.push(FieldError::forbidden(format!("{PATH}[{key}]"), why));
        }
        if key == MIRROR {
            let why = "may not remove or update mirror pod annotation";
            errors.push(FieldError::forbidden(format!("{PATH}[{key}]"), why));
        }
    }
    for (key, _) in entries(new).filter(|(key, _)| old[key.as_str()].is_null()) {
        if key.starts_with(APP_ARMOR) {
            errors.push(FieldError::forbidden(format!("{PATH}[{key}]"), "may not add AppArmor annotations"));
        }
        if key == MIRROR {
            errors.push(FieldError::forbidden(format!("{PATH}[{key}]"), "may not add mirror pod annotation"));
        }
    }
    errors
}

/// Puts the AppArmor profiles of a new pod that are said in annotations alone into the fields.
pub fn move_app_armor_to_fields(pod: &mut Value) {
    let annotations = pod["metadata"]["annotations"].clone();
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec["os"]["name"] != "windows") else { return };
    let of_pod = spec["securityContext"]["appArmorProfile"].clone();
    for list in CONTAINER_LISTS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let key = format!("{APP_ARMOR}{}", text(container, "name"));
            let Some(profile) = annotations[key].as_str().and_then(app_armor_field) else { continue };
            let said = !container["securityContext"]["appArmorProfile"].is_null();
            if !said && profile != of_pod && security::app_armor("", &profile).is_empty() {
                container["securityContext"]["appArmorProfile"] = profile;
            }
        }
    }
}

fn app_armor_field(annotation: &str) -> Option<Value> {
    match annotation {
        UNCONFINED => Some(json!({"type": "Unconfined"})),
        RUNTIME_DEFAULT => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let file = annotation.strip_prefix(LOCALHOST).filter(|file| !file.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": file}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn costs_profiles_and_mirrors_are_checked() {
        let spec = json!({"containers": [{"name": "a"}]});
        let good = json!({DELETION_COST: "-5", SECCOMP_POD: "localhost/x", format!("{APP_ARMOR}a"): "unconfined"});
        assert_eq!(validate("a", &good, &spec), []);
        let bad = json!({DELETION_COST: "+5", MIRROR: "x", SECCOMP_POD: "none", format!("{APP_ARMOR}b"): "x"});
        let words = words(validate("a", &bad, &spec));
        assert_eq!(words.len(), 5, "{words:?}");
        for cost in ["", "05", "1.5", "99999999999", " 1"] {
            assert!(!is_cost(cost), "{cost}");
        }
    }

    #[test]
    fn annotations_and_fields_say_the_same() {
        let spec = json!({"containers": [{"name": "a", "securityContext": {"seccompProfile": {"type": "Unconfined"},
            "appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}}}]});
        let annotations =
            json!({format!("{SECCOMP_CONTAINER}a"): "runtime/default", format!("{APP_ARMOR}a"): "localhost/y"});
        assert_eq!(
            words(agree_with_fields("spec", &annotations, &spec)),
            [
                "spec.containers[0].securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match",
                "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match"
            ]
        );
    }

    #[test]
    fn a_profile_in_an_annotation_becomes_a_field() {
        let mut pod = json!({"metadata": {"annotations": {format!("{APP_ARMOR}a"): "localhost/x"}},
            "spec": {"containers": [{"name": "a"}]}});
        move_app_armor_to_fields(&mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["securityContext"],
            json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}})
        );
    }

    #[test]
    fn a_static_pod_stays_one() {
        let errors = changes(&json!({}), &json!({MIRROR: "x", "other": "y"}));
        assert_eq!(words(errors).len(), 1);
        assert_eq!(
            changes(&json!({MIRROR: "x"}), &json!({}))[0].message,
            "Forbidden: may not add mirror pod annotation"
        );
    }
}
