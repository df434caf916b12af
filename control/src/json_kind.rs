//! What Go's errors call the kind of a JSON value that is not of the type wanted.

use serde_json::Value;

/// As `encoding/json` calls it in an `UnmarshalTypeError`.
pub fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
