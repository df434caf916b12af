//! What of a Pod may change after it was created: images, a shorter deadline, more tolerations, fewer scheduling gates.

use std::collections::HashSet;

use serde_json::Value;

use crate::kinds::FieldError;

const MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 \
    if it was previously negative)";

/// Why `old` may not become `new`.
pub fn pod(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (&new["spec"], &old["spec"]);
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        let count = |spec: &Value| spec[list].as_array().map_or(0, Vec::len);
        if count(new) != count(old) {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{list}"), why));
            return errors;
        }
    }
    let (deadline, before) = (&new["activeDeadlineSeconds"], &old["activeDeadlineSeconds"]);
    match (deadline.as_i64(), before.as_i64()) {
        (Some(new), Some(old)) if new > old => {
            let why = "must be less than or equal to previous value";
            errors.push(FieldError::invalid("spec.activeDeadlineSeconds", deadline, why));
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid("spec.activeDeadlineSeconds", deadline, why));
        }
        _ => {}
    }
    let list = |spec: &Value, field: &str| spec[field].as_array().cloned().unwrap_or_default();
    let tolerations = list(new, "tolerations");
    // A toleration may be given another time to bear a taint, but not be taken away.
    let taint = |toleration: &Value| ["key", "operator", "value", "effect"].map(|field| toleration[field].clone());
    let tolerated: HashSet<[Value; 4]> = tolerations.iter().map(taint).collect();
    if !list(old, "tolerations").iter().all(|before| tolerated.contains(&taint(before))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", why));
    }
    let gates = list(old, "schedulingGates");
    let gates: HashSet<&Value> = gates.iter().collect();
    if let Some(at) = list(new, "schedulingGates").iter().position(|gate| !gates.contains(gate)) {
        let path = format!("spec.schedulingGates[{at}].name");
        errors.push(FieldError::forbidden(path, "only deletion is allowed, but found new scheduling gate"));
    }
    let changed = other_changes(new, old);
    if !changed.is_empty() {
        let why = format!("pod updates may not change fields other than {MUTABLE}; changed: {}", changed.join(", "));
        errors.push(FieldError::forbidden("spec", &why));
    }
    errors
}

/// The fields of the spec that changed and may not.
fn other_changes(new: &Value, old: &Value) -> Vec<String> {
    let fields =
        |spec: &Value| -> Vec<String> { spec.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect() };
    let mut names = fields(new);
    names.extend(fields(old));
    names.sort();
    names.dedup();
    let gated = old["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty());
    names.retain(|name| match name.as_str() {
        "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => false,
        // A pod that is not yet to be scheduled may be told where it may go.
        "nodeSelector" | "affinity" if gated => false,
        // Its own subresource in Kubernetes.
        "ephemeralContainers" => new[name] != old[name],
        "containers" | "initContainers" => without_images(&new[name]) != without_images(&old[name]),
        "terminationGracePeriodSeconds" => {
            let was_negative = old[name].as_i64().is_some_and(|n| n < 0);
            new[name] != old[name] && !(was_negative && new[name] == 1)
        }
        _ => is_something(&new[name]) != is_something(&old[name]),
    });
    names
}

fn without_images(containers: &Value) -> Vec<Value> {
    let mut containers = containers.as_array().cloned().unwrap_or_default();
    for container in &mut containers {
        if let Some(container) = container.as_object_mut() {
            container.shift_remove("image");
        }
    }
    containers
}

/// Nothing, an empty list and an empty text are one.
fn is_something(value: &Value) -> Option<&Value> {
    let empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    (!empty).then_some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_lists_are_compared_in_linear_time() {
        let tolerations: Vec<Value> = (0..40_000).map(|n| json!({"key": format!("k{n}")})).collect();
        let old = json!({"spec": {"containers": [], "tolerations": tolerations, "schedulingGates": tolerations}});
        let begun = std::time::Instant::now();
        assert_eq!(pod(&old, &old), []);
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    #[test]
    fn an_image_may_change_and_a_port_may_not() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}]}]}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "x:2".into();
        assert_eq!(pod(&new, &old), []);
        new["spec"]["containers"][0]["ports"][0]["containerPort"] = 81.into();
        let errors = pod(&new, &old);
        assert!(errors[0].message.starts_with("Forbidden: pod updates may not change fields other than"), "{errors:?}");
        assert!(errors[0].message.ends_with("changed: containers"));
        new["spec"]["containers"] = json!([]);
        assert_eq!(pod(&new, &old)[0].message, "Forbidden: pod updates may not add or remove containers");
    }

    #[test]
    fn tolerations_may_be_added_and_not_taken_away() {
        let with = |list: Value| json!({"spec": {"containers": [], "tolerations": list}});
        let (a, b) = (json!({"key": "a", "operator": "Exists"}), json!({"key": "b", "operator": "Exists"}));
        assert_eq!(pod(&with(json!([a, b])), &with(json!([a]))), []);
        assert_eq!(pod(&with(json!([b])), &with(json!([a]))).len(), 1);
    }
}
