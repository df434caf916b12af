//! JSON Patch (RFC 6902) with bounds on what it may make: the operations are applied one by one, and what `copy` and
//! `move` touch is counted. A few short operations could otherwise double an object again and again, or nest it without
//! end. Where Kubernetes' reader of patches takes more than the RFC, so does this one: see
//! [`leniency`](super::leniency).

use std::borrow::Cow;

use json_patch::{
    AddOperation, Patch, PatchErrorKind, PatchOperation, RemoveOperation,
    jsonptr::{Pointer, PointerBuf},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::leniency::{self, Strict};
use crate::{schema::decode::MAX_LEVELS, status::Status};

/// Kubernetes' `maxJSONPatchOperations`: a longer patch is an attack or a mistake.
const MAX_OPERATIONS: usize = 10_000;

/// Kubernetes' `JSONPatchMaxCopyBytes`: the largest size of all that `copy` operations add up to, as JSON text.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// The largest size of all that `move` operations touch. Nothing grows by them, but each value is looked at for its
/// depth.
const MAX_MOVED_BYTES: usize = 64 * 1024 * 1024;

/// How many items of lists all operations together may shift by one place: 10,000 operations on a list of 5,000 items.
const MAX_SHIFTED_ITEMS: usize = 50_000_000;

/// Why a patch was not applied.
#[derive(Debug)]
pub enum Refusal {
    /// An operation `test` found something else.
    TestFailed(String),
    /// It is well formed, but does not fit the object.
    Unfit(String),
    /// It is no patch, or makes too much.
    Refused(Status),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TestFailed(why) | Refusal::Unfit(why) => unprocessable(&why),
            Refusal::Refused(status) => status,
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Applies all operations, or none.
pub fn apply(current: &Value, patch: &Value) -> Result<Value, Refusal> {
    let patch: Cow<'_, Value> = leniency::with_values(patch);
    let Patch(operations) = Patch::deserialize(&*patch).map_err(|e| match patch.as_array() {
        // A list of objects is a patch, with operations that nobody knows.
        Some(items) if items.iter().all(Value::is_object) => Refusal::Unfit(e.to_string()),
        _ => Refusal::Refused(Status::bad_request(format!("error decoding patch: {e}"))),
    })?;
    if operations.len() > MAX_OPERATIONS {
        let found = operations.len();
        let why = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {found}");
        return Err(too_large(why).into());
    }
    let mut patched = current.clone();
    let mut limits = PatchLimits::default();
    for (at, operation) in operations.into_iter().enumerate() {
        let path = operation.path().to_owned();
        apply_one(&mut patched, &mut limits, operation, &|why| failed(at, &path, why))?;
    }
    Ok(patched)
}

/// Applies one operation, which may leave the object half changed where it is refused. `failed` words a refusal.
fn apply_one(
    object: &mut Value,
    limits: &mut PatchLimits,
    operation: PatchOperation,
    failed: &dyn Fn(&PatchErrorKind) -> String,
) -> Result<(), Refusal> {
    let operation = match leniency::strict(operation, object) {
        Strict::Operation(operation) => operation,
        Strict::Move { from, path } => {
            let value = take(object, limits, from, failed)?;
            return apply_one(object, limits, PatchOperation::Add(AddOperation { path, value }), failed);
        }
        Strict::Satisfied => return Ok(()),
        Strict::TestFailed => return Err(Refusal::TestFailed(failed(&PatchErrorKind::TestFailed))),
        Strict::NoField => return Err(Refusal::Unfit(failed(&PatchErrorKind::InvalidPointer))),
    };
    limits.check(object, &operation)?;
    json_patch::patch_unsafe(object, std::slice::from_ref(&operation)).map_err(|error| match error.kind {
        PatchErrorKind::TestFailed => Refusal::TestFailed(failed(&error.kind)),
        _ => Refusal::Unfit(failed(&error.kind)),
    })
}

/// Takes out what a `move` puts in elsewhere.
fn take(
    object: &mut Value,
    limits: &mut PatchLimits,
    from: PointerBuf,
    failed: &dyn Fn(&PatchErrorKind) -> String,
) -> Result<Value, Refusal> {
    let Some(moved) = value_at(object, &from) else {
        return Err(Refusal::Unfit(failed(&PatchErrorKind::InvalidFromPointer)));
    };
    limits.check_moved(moved)?;
    let removal = PatchOperation::Remove(RemoveOperation { path: from.clone() });
    limits.check(object, &removal)?;
    let value = object.pointer_mut(from.as_str()).map(Value::take).unwrap_or_default();
    json_patch::patch_unsafe(object, &[removal]).map_err(|error| Refusal::Unfit(failed(&error.kind)))?;
    Ok(value)
}

/// Which operation did not fit, and why.
fn failed(at: usize, path: &Pointer, why: &PatchErrorKind) -> String {
    format!("operation '/{at}' failed at path '{path}': {why}")
}

/// What the operations so far have touched.
#[derive(Default)]
struct PatchLimits {
    copied_bytes: usize,
    moved_bytes: usize,
    shifted_items: usize,
}

impl PatchLimits {
    /// Refuses an operation other than a `move`, whose two halves come here, that would make the object too large or
    /// too deep. What else is wrong with it shows when it is applied.
    fn check(&mut self, object: &Value, operation: &PatchOperation) -> Result<(), Status> {
        let list = operation.path().parent().and_then(|parent| value_at(object, parent)).and_then(Value::as_array);
        self.shifted_items = self.shifted_items.saturating_add(list.map_or(0, Vec::len));
        if self.shifted_items > MAX_SHIFTED_ITEMS {
            return Err(too_large(format!("the patch shifts items of long lists more than {MAX_SHIFTED_ITEMS} times")));
        }
        let depth = match operation {
            PatchOperation::Copy(copy) => {
                let room = MAX_COPIED_BYTES.saturating_sub(self.copied_bytes);
                let copied = value_at(object, &copy.from);
                let Some(measured) = copied.map(|value| measure(value, room)) else { return Ok(()) };
                self.copied_bytes = self.copied_bytes.saturating_add(measured.bytes);
                if self.copied_bytes > MAX_COPIED_BYTES {
                    return Err(too_large(format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {}, \
                         exceeding the limit {}",
                        self.copied_bytes, MAX_COPIED_BYTES
                    )));
                }
                measured.depth
            }
            PatchOperation::Add(add) => measure(&add.value, usize::MAX).depth,
            PatchOperation::Replace(replace) => measure(&replace.value, usize::MAX).depth,
            PatchOperation::Remove(_) | PatchOperation::Test(_) | PatchOperation::Move(_) => return Ok(()),
        };
        if operation.path().count().saturating_add(depth) > MAX_LEVELS {
            return Err(too_large(format!("the patched object would be nested deeper than {MAX_LEVELS} levels")));
        }
        Ok(())
    }

    /// Refuses a value that is too much to be moved, after all that was.
    fn check_moved(&mut self, value: &Value) -> Result<(), Status> {
        let room = MAX_MOVED_BYTES.saturating_sub(self.moved_bytes);
        self.moved_bytes = self.moved_bytes.saturating_add(measure(value, room).bytes);
        if self.moved_bytes > MAX_MOVED_BYTES {
            return Err(too_large(format!(
                "Unable to complete the move, the accumulated size of move is {}, exceeding the limit {}",
                self.moved_bytes, MAX_MOVED_BYTES
            )));
        }
        Ok(())
    }
}

fn value_at<'v>(object: &'v Value, pointer: &Pointer) -> Option<&'v Value> {
    object.pointer(pointer.as_str())
}

struct Measured {
    /// About the length of the JSON text: without what escaping adds.
    bytes: usize,
    depth: usize,
}

/// Size and depth of a value. Ends early where the size is beyond `room`.
fn measure(value: &Value, room: usize) -> Measured {
    let mut measured = Measured { bytes: 0, depth: 0 };
    // A stack of its own: values are bounded in depth, but not by the thread's stack.
    let mut rest = vec![(value, 1)];
    while let Some((value, depth)) = rest.pop() {
        measured.depth = measured.depth.max(depth);
        let own = match value {
            Value::String(text) => text.len().saturating_add(2),
            Value::Array(list) => {
                rest.extend(list.iter().map(|item| (item, depth + 1)));
                list.len().saturating_add(2)
            }
            Value::Object(map) => {
                rest.extend(map.values().map(|item| (item, depth + 1)));
                map.keys().fold(2, |sum: usize, key| sum.saturating_add(key.len()).saturating_add(4))
            }
            Value::Number(_) | Value::Bool(_) | Value::Null => 5,
        };
        measured.bytes = measured.bytes.saturating_add(own);
        if measured.bytes > room {
            break;
        }
    }
    measured
}

fn too_large(message: String) -> Status {
    Status { code: 413, reason: "RequestEntityTooLarge", message, details: None }
}

/// The document is well formed but does not fit the object: a `test` failed, a path leads nowhere.
fn unprocessable(why: &str) -> Status {
    Status {
        code: 422,
        reason: "Invalid",
        message: format!("the server rejected our request due to an error in our request: {why}"),
        details: Some(json!({"causes": [{"reason": "UnexpectedServerResponse", "message": why}]})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(current: &Value, patch: &Value) -> Result<Value, Status> {
        super::apply(current, patch).map_err(Status::from)
    }

    #[test]
    fn a_failed_test_is_told_apart() {
        let test = |value: u8| json!([{"op": "test", "path": "/a", "value": value}]);
        assert!(super::apply(&json!({"a": 1}), &test(1)).is_ok());
        assert!(matches!(super::apply(&json!({"a": 1}), &test(2)), Err(Refusal::TestFailed(_))));
        let remove = json!([{"op": "remove", "path": "/b"}]);
        assert!(matches!(super::apply(&json!({"a": 1}), &remove), Err(Refusal::Unfit(_))));
    }

    #[test]
    fn copies_that_double_an_object_end_at_the_limit() {
        let current = json!({"kind": "ConfigMap", "data": {"a": "x".repeat(1024)}});
        let operations: Vec<Value> =
            (0..18).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/c{n}")})).collect();
        let refused = apply(&current, &Value::Array(operations)).unwrap_err();
        assert_eq!((refused.code, refused.reason), (413, "RequestEntityTooLarge"));
        assert!(refused.message.contains("exceeding the limit 3145728"), "{}", refused.message);
    }

    #[test]
    fn copies_below_the_limit_are_made() {
        let current = json!({"data": {"a": "x".repeat(1024)}});
        let operations: Vec<Value> =
            (0..2000).map(|n| json!({"op": "copy", "from": "/data/a", "path": format!("/data/c{n}")})).collect();
        assert_eq!(apply(&current, &Value::Array(operations)).unwrap()["data"].as_object().unwrap().len(), 2001);
    }

    #[test]
    fn moves_out_of_a_long_list_shift_what_is_left_in_it() {
        let current = json!({"list": vec![0; 100_000]});
        let operation = json!({"op": "move", "from": "/list/0", "path": "/last"});
        let refused = apply(&current, &Value::Array(vec![operation; 1000])).unwrap_err();
        assert_eq!((refused.code, refused.reason), (413, "RequestEntityTooLarge"));
        assert!(refused.message.contains("shifts items"), "{}", refused.message);
    }

    #[test]
    fn moves_cannot_nest_an_object_without_end() {
        let mut operations = vec![json!({"op": "add", "path": "/k0", "value": {}})];
        for n in 1..4000 {
            operations.push(json!({"op": "add", "path": format!("/k{n}"), "value": {}}));
            operations.push(json!({"op": "move", "from": format!("/k{}", n - 1), "path": format!("/k{n}/c")}));
        }
        assert_eq!(apply(&json!({}), &Value::Array(operations)).unwrap_err().code, 413);
    }

    #[test]
    fn insertions_into_a_huge_list_end_at_the_limit() {
        let current = json!({"a": vec![0; 100_000]});
        let operations = vec![json!({"op": "add", "path": "/a/0", "value": 1}); 1000];
        assert_eq!(apply(&current, &Value::Array(operations.clone())).unwrap_err().code, 413);
        assert_eq!(apply(&json!({"a": []}), &Value::Array(operations)).unwrap()["a"].as_array().unwrap().len(), 1000);
    }

    #[test]
    fn too_many_operations_are_refused() {
        let operations = vec![json!({"op": "remove", "path": "/a"}); MAX_OPERATIONS + 1];
        let refused = apply(&json!({"a": 1}), &Value::Array(operations)).unwrap_err();
        assert_eq!(refused.code, 413);
        assert_eq!(refused.message, "The allowed maximum operations in a JSON patch is 10000, got 10001");
    }

    #[test]
    fn a_failure_names_its_operation() {
        let patch = json!([{"op": "add", "path": "/a", "value": 1}, {"op": "remove", "path": "/b"}]);
        let refused = apply(&json!({}), &patch).unwrap_err();
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains("operation '/1' failed at path '/b'"), "{}", refused.message);
    }
}
