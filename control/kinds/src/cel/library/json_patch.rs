//! Keys in the paths of a JSON Patch: `jsonpatch.escapeKey("example.com/a")`. For mutations alone.

use crate::cel::{
    eval::{Answer, Run, traversal},
    value::Value,
};

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    let ("jsonpatch.escapeKey", [Value::String(key)]) = (name, values) else { return None };
    let escaped = key.replace('~', "~0").replace('/', "~1");
    Some(run.charge(traversal(key.len() as u64)).map(|()| Value::text(escaped)))
}
