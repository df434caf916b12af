//! Readings of JSON objects whose fields may be missing. What is missing reads as the zero value of its type.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A field's text; empty where there is none.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// The value as a text; empty where it is none.
pub fn as_text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A field's number; 0 where there is none.
pub fn number(object: &Value, field: &str) -> i64 {
    object[field].as_i64().unwrap_or_default()
}

/// The items of a list; none where there is no list.
pub fn items(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map_or([].iter(), |list| list.iter())
}

/// The entries of a map; none where there is no map.
pub fn entries(map: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map.as_object().into_iter().flat_map(Map::iter)
}

/// Objects by their names; of those that share one the first.
pub fn first_by_name<'a>(objects: impl IntoIterator<Item = &'a Value>) -> HashMap<&'a str, &'a Value> {
    let mut by_name = HashMap::new();
    for object in objects {
        by_name.entry(text(object, "name")).or_insert(object);
    }
    by_name
}

/// Whether a list, a map or a text has nothing in it, or is not there.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether two values say the same to Kubernetes (`equality.Semantic`): a field that is not there, null, and an empty
/// list are alike. An empty object is another thing than none: what is an empty map, decoding has left out.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let covered = |a: &Map<String, Value>, b: &Map<String, Value>| {
                a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
            };
            covered(a, b) && b.iter().all(|(key, value)| a.contains_key(key) || same(&Value::Null, value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Null, other) | (other, Value::Null) => match other {
            Value::Array(list) => list.is_empty(),
            other => other.is_null(),
        },
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_and_what_is_empty_are_alike() {
        assert!(same(&json!({"a": null, "b": []}), &json!({})));
        assert!(same(&json!({"a": {"b": 1}}), &json!({"a": {"c": [], "b": 1}})));
        assert!(!same(&json!({"a": 0}), &json!({})));
        assert!(!same(&json!({"affinity": {}}), &json!({})));
        assert!(!same(&json!([1, 2]), &json!([2, 1])));
        assert!(same(&json!({"a": 1, "b": 2}), &json!({"b": 2, "a": 1})));
    }
}
