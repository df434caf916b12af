//! Lists that are sets or maps (`x-kubernetes-list-type`) name nothing twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::{
    custom::structural::Structural,
    kinds::{FieldError, error_budget, field},
};

/// Every value that stands twice where it may not.
pub fn check(path: &str, schema: &Structural, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(path, schema, value, &mut errors);
    errors
}

/// Whether any value stands twice in a list.
pub fn has_duplicates(list: &[Value]) -> bool {
    !repeated(list.iter().map(canonical)).is_empty()
}

fn walk(path: &str, schema: &Structural, value: &Value, errors: &mut Vec<FieldError>) {
    match value {
        Value::Array(list) => {
            match schema.list_type.as_deref() {
                Some("set") => {
                    let twice = repeated(list.iter().map(canonical));
                    errors
                        .extend(twice.into_iter().map(|at| FieldError::duplicate(format!("{path}[{at}]"), &list[at])));
                }
                Some("map") => keyed(path, schema, list, errors),
                _ => {}
            }
            if let Some(items) = schema.items.as_deref() {
                for (at, item) in list.iter().enumerate() {
                    walk(&field::item(path, at), items, item, errors);
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let Some(of_key) = schema.of_key(key) else { continue };
                let path = match (schema.properties.contains_key(key), path.is_empty()) {
                    (true, true) => key.clone(),
                    (true, false) => field::child(path, key),
                    (false, _) => error_budget::cut(format!("{path}[{key}]")),
                };
                walk(&path, of_key, value, errors);
            }
        }
        _ => {}
    }
}

fn keyed(path: &str, schema: &Structural, list: &[Value], errors: &mut Vec<FieldError>) {
    if let Some((at, item)) = list.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null()) {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(format!("{path}[{at}]"), item, why));
        return;
    }
    let keys: Vec<Value> = list
        .iter()
        .map(|item| {
            let key = schema.list_map_keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Value::Object(key.collect::<Map<String, Value>>())
        })
        .collect();
    for at in repeated(keys.iter().map(canonical)) {
        errors.push(FieldError::duplicate(format!("{path}[{at}]"), &keys[at]));
    }
}

/// The second place of each text that stands more than once.
fn repeated(texts: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut second = Vec::new();
    for (at, text) in texts.enumerate() {
        let times = seen.entry(text).or_default();
        *times = times.saturating_add(1);
        if *times == 2 {
            second.push(at);
        }
    }
    second
}

/// Equal values have equal texts: keys are sorted.
fn canonical(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    value.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_and_maps_name_nothing_twice() {
        let schema = Structural::read(&json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}}}}));
        let value = json!({"set": ["x", "y", "x", "x"],
            "map": [{"a": "1", "b": 2}, {"b": 2, "a": "1", "c": 3}, {"a": "1"}]});
        let found: Vec<String> =
            check("", &schema, &value).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(found, ["set[2]: Duplicate value: \"x\"", "map[1]: Duplicate value: {\"a\":\"1\",\"b\":2}"]);
    }
}
