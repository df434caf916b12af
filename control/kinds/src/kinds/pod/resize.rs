//! What a write through `/resize` does: it changes how much cpu and memory the containers of a running pod ask for.

use serde_json::Value;

use super::{annotations::MIRROR, qos, validation};
use crate::kinds::{
    FieldError, prepare,
    reading::{entries, is_empty, items, same, text},
};

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// `old` with the resources of the containers of `new`, where they are the same containers.
pub fn prepare(new: &mut Value, old: &Value) {
    let same_length = |list: &str| items(&new["spec"][list]).len() == items(&old["spec"][list]).len();
    if !LISTS.into_iter().all(same_length) {
        return;
    }
    let mut spec = old["spec"].clone();
    for list in LISTS {
        let (now, was) = (&new["spec"][list], &old["spec"][list]);
        let renamed = items(now).zip(items(was)).any(|(now, was)| text(now, "name") != text(was, "name"));
        if renamed {
            spec[list] = now.clone();
            continue;
        }
        for (container, now) in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().zip(items(now)) {
            for field in ["resources", "resizePolicy"] {
                match (&now[field], container.as_object_mut()) {
                    (Value::Null, Some(container)) => drop(container.shift_remove(field)),
                    (value, _) => container[field] = value.clone(),
                }
            }
        }
    }
    let version = new["metadata"]["resourceVersion"].take();
    *new = old.clone();
    new["metadata"]["resourceVersion"] = version;
    new["spec"] = spec;
    prepare::count_generation(new, Some(old));
}

/// Why `old` may not become `new`.
pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    if !old["metadata"]["annotations"][MIRROR].is_null() {
        return vec![FieldError::forbidden("", "static pods cannot be resized")];
    }
    if old["spec"]["os"]["name"] == "windows" {
        return vec![FieldError::forbidden("", "windows pods cannot be resized")];
    }
    let mut errors = validation::pod_spec(new);
    if qos::class(&old["spec"]) != qos::class(&new["spec"]) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", &new["status"]["qosClass"], why));
    }
    let running = items(&old["status"]["containerStatuses"]).find(|status| !status["state"]["running"].is_null());
    if running.is_some_and(|status| status["resources"].is_null()) {
        errors.push(FieldError::forbidden("spec", "Pod running on node without support for resize"));
    }
    let whole = |spec: &Value| ["limits", "requests"].iter().any(|list| !is_empty(&spec["resources"][*list]));
    if whole(&old["spec"]) || whole(&new["spec"]) {
        let why = "resize of pods with pod-level resources is forbidden when \
                   InPlacePodLevelResourcesVerticalScalingEnabled feature gate is disabled";
        errors.push(FieldError::forbidden("", why));
        return errors;
    }
    let moved = other_containers(&new["spec"], &old["spec"]);
    if !moved.is_empty() {
        errors.extend(moved);
        return errors;
    }
    for list in LISTS {
        let pairs = items(&new["spec"][list]).zip(items(&old["spec"][list])).enumerate();
        for (i, (now, was)) in pairs {
            errors.extend(container(&format!("spec.{list}[{i}].resources"), now, was, list == "initContainers"));
        }
    }
    errors
}

fn other_containers(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in LISTS {
        let (now, was) = (&new[list], &old[list]);
        if items(now).len() != items(was).len() {
            let why = format!("{list} may not be added or removed on resize");
            errors.push(FieldError::forbidden(format!("spec.{list}"), &why));
            continue;
        }
        let pairs = items(now).zip(items(was)).enumerate();
        for (i, _) in pairs.filter(|(_, (now, was))| text(now, "name") != text(was, "name")) {
            let why = format!("{list} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(format!("spec.{list}[{i}].name"), &why));
        }
    }
    errors
}

fn container(path: &str, new: &Value, old: &Value, init: bool) -> Vec<FieldError> {
    let sidecar = old["restartPolicy"] == "Always";
    if init && !sidecar {
        let why = "resources for non-sidecar init containers are immutable";
        return if same(new, old) { Vec::new() } else { vec![FieldError::forbidden("spec", why)] };
    }
    let mut errors = Vec::new();
    for (list, what) in [("requests", "resource requests"), ("limits", "resource limits")] {
        let now = &new["resources"][list];
        if entries(&old["resources"][list]).any(|(name, _)| now[name].is_null()) {
            let why = format!("{what} cannot be removed");
            errors.push(FieldError::forbidden(format!("{path}.{list}"), &why));
        }
    }
    let mut before = new.clone();
    for list in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let was = &old["resources"][list][name];
            if was.is_null() {
                if let Some(amounts) = before["resources"].get_mut(list).and_then(Value::as_object_mut) {
                    amounts.shift_remove(name);
                }
            } else {
                before["resources"][list][name] = was.clone();
            }
        }
    }
    drop_empty(&mut before["resources"], "requests", &old["resources"]);
    drop_empty(&mut before["resources"], "limits", &old["resources"]);
    drop_empty(&mut before, "resources", old);
    if !same(&before, old) {
        let why = if init {
            "only cpu and memory resources for sidecar containers are mutable"
        } else {
            "only cpu and memory resources are mutable"
        };
        errors.push(FieldError::forbidden("spec", why));
    }
    errors
}

/// Drops `field` where it is empty and was not there: an empty map is no map.
fn drop_empty(of: &mut Value, field: &str, old: &Value) {
    if let Some(map) = of.as_object_mut()
        && old[field].is_null()
        && map.get(field).and_then(Value::as_object).is_some_and(|inner| inner.is_empty())
    {
        map.shift_remove(field);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::defaults, *};

    fn pod(resources: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p", "generation": 1}, "spec": {
            "containers": [{"name": "a", "image": "x", "resources": resources}]}});
        defaults::pod(&mut pod);
        pod
    }

    fn resized(new: Value, old: &Value) -> Vec<String> {
        let mut new = new;
        prepare(&mut new, old);
        validate(&new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn cpu_and_memory_change_and_nothing_else() {
        let old = pod(json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}}));
        let mut new = pod(json!({"requests": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"}}));
        new["spec"]["containers"][0]["image"] = "y".into();
        assert_eq!(resized(new.clone(), &old), Vec::<String>::new());
        prepare(&mut new, &old);
        assert_eq!((&new["spec"]["containers"][0]["image"], &new["metadata"]["generation"]), (&json!("x"), &json!(2)));
        let limited =
            pod(json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}));
        assert_eq!(resized(limited, &old), Vec::<String>::new(), "limits where there were none");
        let larger = pod(json!({"requests": {"cpu": "1", "ephemeral-storage": "2Gi"}}));
        assert_eq!(resized(larger, &old), ["spec: Forbidden: only cpu and memory resources are mutable"]);
        let fewer = pod(json!({"requests": {"ephemeral-storage": "1Gi"}}));
        assert_eq!(
            resized(fewer, &old),
            [
                "spec: Invalid value: null: Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"
            ]
        );
    }

    #[test]
    fn the_containers_stay() {
        let old = pod(json!({"requests": {"cpu": "1"}}));
        let mut new = old.clone();
        new["spec"]["containers"][0]["name"] = "b".into();
        assert_eq!(
            resized(new, &old),
            ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
        );
    }
}
