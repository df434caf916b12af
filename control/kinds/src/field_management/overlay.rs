//! What a mutating policy applies, laid over an object by the rules of server-side apply, but owned by nobody.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go`.

use serde_json::Value;

use super::{
    check::{check, message},
    merge::merge,
    shape::{Shape, TypeRef},
};
use crate::schema::{Schema, Type};

/// Why a configuration cannot be laid over an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// It does not fit the schema.
    #[error("failed to convert patch object to typed object: {0}")]
    Unfit(String),
    /// It has lists, maps or structs that are replaced as a whole: what is not said would be lost.
    #[error("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", .0.join(", "))]
    Atomic(Vec<String>),
    /// The object has items that cannot be told apart.
    #[error("failed to merge patch: {0}")]
    Merge(String),
}

/// The object with what `config` says.
pub fn overlay(schema: &Schema, object: &Value, config: &Value) -> Result<Value, OverlayError> {
    let of = TypeRef::root(schema.types(), schema.root());
    let errors = check(of, config);
    if !errors.is_empty() {
        return Err(OverlayError::Unfit(message(&errors)));
    }
    let mut found = Vec::new();
    atomics(of, config, &mut String::new(), &mut found);
    if !found.is_empty() {
        return Err(OverlayError::Atomic(found));
    }
    let merged = merge(of, Some(object), Some(config)).map_err(|error| OverlayError::Merge(error.to_string()))?;
    Ok(merged.unwrap_or(Value::Null))
}

/// The paths of what is replaced as a whole although it has parts. Below maps nothing is looked for, as in Kubernetes.
fn atomics(of: TypeRef<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let is_whole = matches!(of.shape(Some(value)), Shape::Leaf);
    match (of.r#type(), value) {
        (Type::Object(_) | Type::Map(_) | Type::Any, Value::Object(_))
        | (Type::List(_) | Type::Any, Value::Array(_))
            if is_whole =>
        {
            found.push(path.clone());
        }
        _ => {}
    }
    let length = path.len();
    match (of.r#type(), value) {
        (Type::Object(object), Value::Object(fields)) => {
            for (name, value) in fields.iter().filter(|(name, _)| object.field(name).is_some()) {
                let Some(field) = of.field(object, name) else { continue };
                path.push('.');
                path.push_str(name);
                atomics(field, value, path, found);
                path.truncate(length);
            }
        }
        (Type::List(_), Value::Array(items)) => {
            let Some(item_type) = of.plain_item() else { return };
            for (at, item) in items.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                atomics(item_type, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overlaid(kind: &str, object: Value, config: Value) -> Result<Value, String> {
        overlay(&Schema::builtin(kind).unwrap(), &object, &config).map_err(|error| error.to_string())
    }

    const POD: &str = "io.k8s.api.core.v1.Pod";

    #[test]
    fn lists_with_keys_and_maps_are_merged() {
        let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let config = json!({"metadata": {"labels": {"c": "d"}},
            "spec": {"containers": [{"name": "s", "image": "j"}, {"name": "c", "workingDir": "/"}]}});
        assert_eq!(
            overlaid(POD, pod, config),
            Ok(json!({"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"containers": [
                {"name": "s", "image": "j"}, {"name": "c", "image": "i", "workingDir": "/"}]}}))
        );
    }

    #[test]
    fn what_is_atomic_may_not_be_set() {
        let config = json!({"spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "a"}],
            "containers": [{"name": "a"}, {"name": "c", "args": ["x"]}]}});
        assert_eq!(
            overlaid(POD, json!({}), config).unwrap_err(),
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.nodeSelector, \
             .spec.tolerations, .spec.containers[1].args"
        );
        let selector = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
        let refused = overlaid("io.k8s.api.apps.v1.Deployment", json!({}), selector).unwrap_err();
        assert!(refused.ends_with(": .spec.selector"), "{refused}");
    }

    #[test]
    fn what_the_schema_does_not_have_is_refused() {
        assert_eq!(
            overlaid(POD, json!({}), json!({"spec": {"none": 1}})).unwrap_err(),
            "failed to convert patch object to typed object: .spec.none: field not declared in schema"
        );
    }
}
