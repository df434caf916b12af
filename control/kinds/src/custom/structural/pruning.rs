//! Pruning: fields that the schema does not know are left out.

use serde_json::Value;

use super::{Additional, Structural};

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Leaves out of `value` what `schema` does not name. Of a whole resource (`is_resource`), type and metadata stay.
pub fn prune(value: &mut Value, schema: &Structural, is_resource: bool) {
    walk(value, Some(schema), is_resource || schema.embedded);
}

fn walk(value: &mut Value, schema: Option<&Structural>, is_resource: bool) {
    match (value, schema) {
        (Value::Object(map), None) => map.clear(),
        (Value::Object(map), Some(schema)) => map.retain(|key, value| {
            if is_resource && META.contains(&key.as_str()) {
                return true;
            }
            match (schema.properties.get(key), &schema.additional) {
                (Some(property), _) => walk(value, Some(property), property.embedded),
                (None, Additional::Of(schema)) => walk(value, Some(schema), schema.embedded),
                (None, _) if schema.preserve => {}
                (None, Additional::Any) => walk(value, None, false),
                (None, Additional::None) => return false,
            }
            true
        }),
        (Value::Array(list), schema) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            let preserved = schema.is_some_and(|schema| schema.preserve && schema.items.is_none());
            if !preserved {
                list.iter_mut().for_each(|item| walk(item, items, items.is_some_and(|items| items.embedded)));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_go_and_preserved_ones_stay() {
        let schema = Structural::read(&json!({"type": "object", "properties": {
            "known": {"type": "object", "properties": {"a": {"type": "string"}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"strict": {"type": "object"}}},
            "map": {"type": "object", "additionalProperties": {"type": "object"}},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
        }}));
        let mut value = json!({"apiVersion": "v", "kind": "k", "metadata": {"name": "n"}, "nope": 1,
            "known": {"a": "x", "b": 1}, "free": {"any": {"thing": [1]}, "strict": {"gone": 1}},
            "map": {"k": {"gone": 1}}, "embedded": {"kind": "E", "metadata": {"name": "e"}, "gone": 1}});
        prune(&mut value, &schema, true);
        let expected = json!({"apiVersion": "v", "kind": "k", "metadata": {"name": "n"}, "known": {"a": "x"},
            "free": {"any": {"thing": [1]}, "strict": {}}, "map": {"k": {}},
            "embedded": {"kind": "E", "metadata": {"name": "e"}}});
        assert_eq!(value, expected);
    }
}
