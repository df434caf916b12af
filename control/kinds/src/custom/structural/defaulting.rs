//! Defaults: fields that are absent get the schema's default, and so do nulls that may not be null.

use serde_json::Value;

use super::{Additional, Structural};

/// Sets the defaults of `schema` in `value`; takes nulls out that may not be null and have no default.
pub fn default(value: &mut Value, schema: &Structural) {
    prune_nulls(value, Some(schema));
    set(value, schema);
}

fn set(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let unset = map.get(name).is_none_or(|found| found.is_null() && !property.nullable);
                if unset {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                match (schema.properties.get(key), &schema.additional) {
                    (Some(property), _) => set(value, property),
                    (None, Additional::Of(schema)) => set_in_place(value, schema),
                    (None, Additional::None | Additional::Any) => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items.as_deref() else { return };
            list.iter_mut().for_each(|item| set_in_place(item, items));
        }
        _ => {}
    }
}

fn set_in_place(value: &mut Value, schema: &Structural) {
    if let (true, false, Some(default)) = (value.is_null(), schema.nullable, &schema.default) {
        *value = default.clone();
    }
    set(value, schema);
}

fn prune_nulls(value: &mut Value, schema: Option<&Structural>) {
    match value {
        Value::Object(map) => map.retain(|key, value| {
            let schema = schema.and_then(|schema| schema.of_key(key));
            let refused = value.is_null() && schema.is_some_and(|schema| !schema.nullable && schema.default.is_none());
            if !refused {
                prune_nulls(value, schema);
            }
            !refused
        }),
        Value::Array(list) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            list.iter_mut().for_each(|item| prune_nulls(item, items));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Structural {
        Structural::read(&json!({"type": "object", "properties": {
            "size": {"type": "integer", "default": 3},
            "maybe": {"type": "string", "nullable": true, "default": "x"},
            "plain": {"type": "string"},
            "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "boolean", "default": true}}},
            "absent": {"type": "object", "properties": {"deep": {"type": "boolean", "default": true}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string",
                "default": "b"}}}},
        }}))
    }

    #[test]
    fn absent_fields_and_forbidden_nulls_are_defaulted() {
        let mut value = json!({"size": null, "maybe": null, "plain": null, "list": [{}, {"a": "c"}]});
        default(&mut value, &schema());
        let expected = json!({"size": 3, "maybe": null, "list": [{"a": "b"}, {"a": "c"}], "nested": {"deep": true}});
        assert_eq!(value, expected);
        let once = value.clone();
        default(&mut value, &schema());
        assert_eq!(value, once);
    }
}
