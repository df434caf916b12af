//! What a write through `/ephemeralcontainers` does: it adds containers to a running pod, and nothing else.

use serde_json::Value;

use super::{annotations::MIRROR, validation};
use crate::kinds::{
    FieldError, prepare,
    reading::{first_by_name, items, same, text},
};

/// `old` with the ephemeral containers of `new`.
pub fn prepare(new: &mut Value, old: &Value) {
    let added = new["spec"]["ephemeralContainers"].take();
    let version = new["metadata"]["resourceVersion"].take();
    *new = old.clone();
    new["metadata"]["resourceVersion"] = version;
    match added {
        Value::Null => {
            if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
                spec.shift_remove("ephemeralContainers");
            }
        }
        added => new["spec"]["ephemeralContainers"] = added,
    }
    prepare::count_generation(new, Some(old));
}

/// Why `old` may not become `new`.
pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.ephemeralContainers";
    if !old["metadata"]["annotations"][MIRROR].is_null() {
        return vec![FieldError::forbidden("", "static pods do not support ephemeral containers")];
    }
    let mut errors = validation::pod_spec(new);
    let now = first_by_name(items(&new["spec"]["ephemeralContainers"]));
    for before in items(&old["spec"]["ephemeralContainers"]) {
        let name = text(before, "name");
        let what = match now.get(name).copied() {
            None => "removed",
            Some(now) if !same(now, before) => "changed",
            Some(_) => continue,
        };
        let why = format!("existing ephemeral containers {name:?} may not be {what}\n");
        errors.push(FieldError::forbidden(PATH, &why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::defaults, *};

    fn pod(ephemeral: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p", "generation": 1}, "spec": {
            "containers": [{"name": "a", "image": "x"}], "ephemeralContainers": ephemeral}});
        defaults::pod(&mut pod);
        pod
    }

    #[test]
    fn containers_are_added_and_stay() {
        let (first, second) = (json!({"name": "d1", "image": "x"}), json!({"name": "d2", "image": "x"}));
        let old = pod(json!([first]));
        let mut new = pod(json!([first, second]));
        new["spec"]["nodeName"] = "other".into();
        prepare(&mut new, &old);
        assert!(new["spec"]["nodeName"].is_null(), "only the containers are taken");
        assert_eq!(new["metadata"]["generation"], 2);
        assert_eq!(validate(&new, &old), []);
        let errors = validate(&pod(json!([second])), &old);
        assert_eq!(errors[0].message, "Forbidden: existing ephemeral containers \"d1\" may not be removed\n");
        let errors = validate(&pod(json!([{"name": "d1", "image": "y"}])), &old);
        assert_eq!(errors[0].message, "Forbidden: existing ephemeral containers \"d1\" may not be changed\n");
    }
}
