//! The three kinds of patch as functions of a stored object and a document. What a patch may not do to the result
//! (change its name, fail validation) is the caller's to check.

use serde_json::Value;

use crate::{kinds::Kind, status::Status};

mod leniency;
mod merge_list;
mod operations;
mod strategic;

pub use operations::Refusal;

/// `application/json-patch+json` (RFC 6902). `patch` is the list of operations.
pub fn json(_kind: &Kind, current: &Value, patch: &Value) -> Result<Value, Status> {
    operations::apply(current, patch).map_err(Status::from)
}

/// The same, with the reason why it was not applied.
pub fn try_json(current: &Value, patch: &Value) -> Result<Value, Refusal> {
    operations::apply(current, patch)
}

/// `application/merge-patch+json` (RFC 7386).
pub fn merge(_kind: &Kind, current: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("Invalid JSON Patch"));
    }
    let mut patched = current.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

/// `application/strategic-merge-patch+json`: a merge patch that knows which lists are keyed, and by what.
pub fn strategic(kind: &Kind, current: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("error decoding patch: a merge patch must be a JSON object"));
    }
    strategic::apply(&kind.schema, current, patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::pod;

    fn pod() -> Kind {
        Kind::from(&pod::KIND)
    }

    #[test]
    fn a_json_patch_is_all_or_nothing() {
        let current = json!({"metadata": {"labels": {"a": "b"}}});
        let patch = json!([{"op": "add", "path": "/metadata/labels/c", "value": "d"},
            {"op": "test", "path": "/metadata/labels/a", "value": "b"},
            {"op": "remove", "path": "/metadata/labels/a"}]);
        let patched = json(&pod(), &current, &patch).unwrap();
        assert_eq!(patched["metadata"]["labels"], json!({"c": "d"}));
        let failing = json!([{"op": "remove", "path": "/metadata/labels/a"}, {"op": "test", "path": "/x", "value": 1}]);
        assert_eq!(json(&pod(), &current, &failing).unwrap_err().code, 422);
        assert_eq!(json(&pod(), &current, &json!({"op": "add"})).unwrap_err().code, 400);
    }

    #[test]
    fn a_merge_patch_replaces_lists_and_removes_nulls() {
        let current = json!({"spec": {"a": [1, 2], "b": 1}});
        let patched = merge(&pod(), &current, &json!({"spec": {"a": [3], "b": null}})).unwrap();
        assert_eq!(patched, json!({"spec": {"a": [3]}}));
        assert_eq!(merge(&pod(), &current, &json!([])).unwrap_err().code, 400);
    }
}
