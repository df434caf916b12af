//! What Kubernetes' reader of JSON patches takes beside RFC 6902, put in the RFC's terms: a value that is left out is
//! `null`, a field that is not there reads as `null`, and an index may count from the end. The whole object cannot be
//! added, removed, copied or moved. A `move` removes first: its path is read by what is left, and so a value can even
//! be moved into the item that takes its place in a list, which the RFC forbids.
//!
//! Source: `patch.go` of `gopkg.in/evanphx/json-patch.v4`, with `SupportNegativeIndices`.

use std::borrow::Cow;

use json_patch::{
    AddOperation, PatchOperation, ReplaceOperation,
    jsonptr::{Pointer, PointerBuf, Token},
};
use serde_json::Value;

/// An operation as the RFC has it.
#[derive(Debug, PartialEq)]
pub enum Strict {
    /// This one.
    Operation(PatchOperation),
    /// What is at `from` is removed, and added at `path`, as the client wrote it: what it means shows after the
    /// removal.
    Move {
        /// Of an item or field that may not be there.
        from: PointerBuf,
        /// Where it is added.
        path: PointerBuf,
    },
    /// It asks for nothing, and is satisfied.
    Satisfied,
    /// A test of a field that is not there.
    TestFailed,
    /// It is about the whole object.
    NoField,
}

/// A patch with a `null` in each operation that needs a value and has none.
pub fn with_values(patch: &Value) -> Cow<'_, Value> {
    let lacks_value = |operation: &Value| {
        let needs_one = matches!(operation["op"].as_str(), Some("add" | "replace" | "test"));
        needs_one && operation.get("value").is_none()
    };
    if !patch.as_array().is_some_and(|operations| operations.iter().any(lacks_value)) {
        return Cow::Borrowed(patch);
    }
    let mut patch = patch.clone();
    for operation in patch.as_array_mut().into_iter().flatten().filter(|operation| lacks_value(operation)) {
        operation["value"] = Value::Null;
    }
    Cow::Owned(patch)
}

/// What an operation on `object` means.
pub fn strict(operation: PatchOperation, object: &Value) -> Strict {
    let is_whole = match &operation {
        PatchOperation::Add(add) => add.path.is_root(),
        PatchOperation::Remove(remove) => remove.path.is_root(),
        PatchOperation::Move(r#move) => r#move.path.is_root() || r#move.from.is_root(),
        PatchOperation::Copy(copy) => copy.path.is_root() || copy.from.is_root(),
        PatchOperation::Replace(_) | PatchOperation::Test(_) => false,
    };
    if is_whole {
        return Strict::NoField;
    }
    Strict::Operation(match counted(operation, object) {
        PatchOperation::Replace(ReplaceOperation { path, value }) if is_absent_field(object, &path) => {
            PatchOperation::Add(AddOperation { path, value })
        }
        PatchOperation::Copy(copy) if is_absent_field(object, &copy.from) => {
            PatchOperation::Add(AddOperation { path: copy.path, value: Value::Null })
        }
        PatchOperation::Move(r#move) => return Strict::Move { from: r#move.from, path: r#move.path },
        PatchOperation::Test(test) if is_absent_field(object, &test.path) => {
            return if test.value.is_null() { Strict::Satisfied } else { Strict::TestFailed };
        }
        other => other,
    })
}

/// An operation whose indexes count from the start, but for those of the path of a `move`.
fn counted(mut operation: PatchOperation, object: &Value) -> PatchOperation {
    match &mut operation {
        PatchOperation::Add(add) => count(&mut add.path, object, Place::New),
        PatchOperation::Remove(remove) => count(&mut remove.path, object, Place::There),
        PatchOperation::Replace(replace) => count(&mut replace.path, object, Place::There),
        PatchOperation::Test(test) => count(&mut test.path, object, Place::There),
        PatchOperation::Move(r#move) => count(&mut r#move.from, object, Place::There),
        PatchOperation::Copy(copy) => {
            count(&mut copy.from, object, Place::There);
            count(&mut copy.path, object, Place::New);
        }
    }
    operation
}

/// What the last step of a path leads to.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// An item that is there.
    There,
    /// Where one is put in: also behind the last.
    New,
}

/// Writes the indexes of a path as the RFC does: `-1` is the last item, and `01` is 1. What leads nowhere stays, and is
/// refused later.
fn count(path: &mut PointerBuf, object: &Value, place: Place) {
    let is_odd = |token: &Token<'_>| {
        let text = token.encoded();
        text.starts_with(['-', '+', '0']) && text.len() > 1
    };
    if !path.tokens().any(|token| is_odd(&token)) {
        return;
    }
    let mut here = Some(object);
    let mut tokens: Vec<Token<'static>> = Vec::new();
    let last = path.count().saturating_sub(1);
    for (at, token) in path.tokens().enumerate() {
        let list = here.and_then(Value::as_array);
        let index = list.and_then(|list| {
            let places = if at == last && place == Place::New { list.len().checked_add(1)? } else { list.len() };
            let given: i64 = token.decoded().parse().ok()?;
            if given < 0 { i64::try_from(places).ok()?.checked_add(given) } else { Some(given) }
        });
        let token = match index.and_then(|index| usize::try_from(index).ok()) {
            Some(index) => Token::from(index),
            None => token.into_owned(),
        };
        here = here.and_then(|value| match value {
            Value::Array(list) => list.get(token.decoded().parse::<usize>().ok()?),
            value => value.get(&*token.decoded()),
        });
        tokens.push(token);
    }
    *path = PointerBuf::from_tokens(tokens);
}

/// Whether a path names a field that its object does not have.
fn is_absent_field(object: &Value, path: &Pointer) -> bool {
    let parent = path.parent().and_then(|parent| object.pointer(parent.as_str()));
    parent.is_some_and(Value::is_object) && object.pointer(path.as_str()).is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        patch::{Refusal, try_json},
        status::Status,
    };

    use super::*;

    fn apply(current: &Value, patch: &Value) -> Result<Value, Status> {
        try_json(current, patch).map_err(Status::from)
    }

    #[test]
    fn a_field_that_is_not_there_can_be_replaced() {
        let replace = |path: &str| json!([{"op": "replace", "path": path, "value": 1}]);
        let current = json!({"a": {"list": [0]}});
        assert_eq!(apply(&current, &replace("/a/b")).unwrap(), json!({"a": {"list": [0], "b": 1}}));
        assert_eq!(apply(&current, &replace("/b")).unwrap()["b"], 1);
        for path in ["/b/c", "/a/list/1", "/a/list/-"] {
            assert_eq!(apply(&current, &replace(path)).unwrap_err().code, 422, "{path}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_copied_as_null() {
        let copy = |from: &str, path: &str| json!([{"op": "copy", "from": from, "path": path}]);
        let current = json!({"a": {"list": [0]}});
        let copied = apply(&current, &copy("/a/b", "/c")).unwrap();
        assert_eq!(copied, json!({"a": {"list": [0]}, "c": null}));
        assert_eq!(apply(&current, &copy("/a/b", "/a/list/0")).unwrap()["a"]["list"], json!([null, 0]));
        for (from, path) in [("/b/c", "/c"), ("/a/list/1", "/c"), ("/a/b", "/c/d"), ("", "/c"), ("/a", "")] {
            assert_eq!(apply(&current, &copy(from, path)).unwrap_err().code, 422, "{from} {path}");
        }
        assert_eq!(apply(&current, &json!([{"op": "move", "from": "/a/b", "path": "/c"}])).unwrap_err().code, 422);
    }

    #[test]
    fn a_field_that_is_not_there_is_null_to_a_test() {
        let test = |patch: Value| try_json(&json!({"a": {}, "b": null}), &json!([patch]));
        assert!(test(json!({"op": "test", "path": "/a/x", "value": null})).is_ok());
        assert!(test(json!({"op": "test", "path": "/b", "value": null})).is_ok());
        assert!(test(json!({"op": "test", "path": "/a/x"})).is_ok());
        let failed = test(json!({"op": "test", "path": "/a/x", "value": 1}));
        assert!(matches!(failed, Err(Refusal::TestFailed(_))), "{failed:?}");
        assert!(matches!(test(json!({"op": "test", "path": "/x/y", "value": null})), Err(Refusal::Unfit(_))));
    }

    #[test]
    fn a_value_that_is_left_out_is_null() {
        let add = json!([{"op": "add", "path": "/a"}, {"op": "replace", "path": "/b"}]);
        assert_eq!(apply(&json!({"b": 1}), &add).unwrap(), json!({"b": null, "a": null}));
    }

    #[test]
    fn indexes_may_count_from_the_end() {
        let current = json!({"list": [{"n": 1}, {"n": 2}]});
        let list = |patch: Value| apply(&current, &json!([patch])).map(|new| new["list"].clone());
        assert_eq!(list(json!({"op": "remove", "path": "/list/-1"})).unwrap(), json!([{"n": 1}]));
        assert_eq!(list(json!({"op": "replace", "path": "/list/-2/n", "value": 5})).unwrap()[0]["n"], 5);
        assert_eq!(list(json!({"op": "add", "path": "/list/-1", "value": 3})).unwrap()[2], 3);
        assert_eq!(list(json!({"op": "add", "path": "/list/-3", "value": 3})).unwrap()[0], 3);
        assert_eq!(list(json!({"op": "remove", "path": "/list/01"})).unwrap(), json!([{"n": 1}]));
        for path in ["/list/-3", "/list/2", "/list/-"] {
            assert_eq!(list(json!({"op": "remove", "path": path})).unwrap_err().code, 422, "{path}");
        }
        let fields = json!({"-1": 1, "01": 2});
        assert_eq!(apply(&fields, &json!([{"op": "remove", "path": "/-1"}])).unwrap(), json!({"01": 2}));
    }

    /// Each as `patch.go` of `json-patch.v4` 4.13.0 does it: a copy finds and adds, a move removes, finds and adds.
    #[test]
    fn a_move_counts_on_what_is_left_and_a_copy_on_what_is_there() {
        let applied = |list: &Value, op: &str, from: &str, path: &str| {
            apply(&json!({"list": list}), &json!([{"op": op, "from": from, "path": path}]))
                .map(|mut new| new["list"].take())
        };
        let list = json!(["a", "b", "c"]);
        for (op, from, path, expected) in [
            ("move", "/list/0", "/list/-1", json!(["b", "c", "a"])),
            ("move", "/list/0", "/list/-2", json!(["b", "a", "c"])),
            ("move", "/list/0", "/list/-3", json!(["a", "b", "c"])),
            ("move", "/list/-1", "/list/-3", json!(["c", "a", "b"])),
            ("move", "/list/0", "/list/-", json!(["b", "c", "a"])),
            ("move", "/list/0", "/list/2", json!(["b", "c", "a"])),
            ("copy", "/list/0", "/list/-1", json!(["a", "b", "c", "a"])),
            ("copy", "/list/0", "/list/-2", json!(["a", "b", "a", "c"])),
            ("copy", "/list/-1", "/list/-4", json!(["c", "a", "b", "c"])),
            ("copy", "/list/0", "/list/3", json!(["a", "b", "c", "a"])),
        ] {
            assert_eq!(applied(&list, op, from, path).unwrap(), expected, "{op} {from} {path}");
        }
        let list = json!([{"n": 1}, {"n": 2}, {"n": 3}]);
        for (op, from, path, expected) in [
            ("move", "/list/0", "/list/-1/x", json!([{"n": 2}, {"n": 3, "x": {"n": 1}}])),
            ("move", "/list/0", "/list/-2/x", json!([{"n": 2, "x": {"n": 1}}, {"n": 3}])),
            ("move", "/list/0", "/list/0/x", json!([{"n": 2, "x": {"n": 1}}, {"n": 3}])),
            ("copy", "/list/0", "/list/-2/x", json!([{"n": 1}, {"n": 2, "x": {"n": 1}}, {"n": 3}])),
        ] {
            assert_eq!(applied(&list, op, from, path).unwrap(), expected, "{op} {from} {path}");
        }
        for (op, from, path) in [
            ("move", "/list/0", "/list/-4"),
            ("move", "/list/0", "/list/3"),
            ("move", "/list/0", "/list/-3/x"),
            ("move", "/list/-4", "/list/0"),
            ("move", "/list", "/list/0"),
            ("copy", "/list/0", "/list/-5"),
            ("copy", "/list/0", "/list/-4/x"),
        ] {
            assert_eq!(applied(&list, op, from, path).unwrap_err().code, 422, "{op} {from} {path}");
        }
    }
}
