//! Which part of the old object a part of the new one replaces, as far as the schema tells.
//!
//! Source: KEP 4008 (CRD validation ratcheting).

use std::collections::HashMap;

use serde_json::Value;

use crate::custom::structural::Structural;

/// The old value beside a new one.
#[derive(Clone, Copy, Default)]
pub struct Correlation<'a> {
    old: Option<&'a Value>,
    /// Whether an unchanged value excuses its errors here.
    excuses: bool,
}

impl<'a> Correlation<'a> {
    /// Of the whole object; `None` on creation.
    pub fn new(old: Option<&'a Value>) -> Self {
        Self { old, excuses: true }
    }

    /// Of the same value, seen by a schema of a junctor: an unchanged value does not make it pass.
    pub fn within_junctor(self) -> Self {
        Self { excuses: false, ..self }
    }

    /// Whether `new` is what was there before, and that excuses its errors.
    pub fn is_unchanged(self, new: &Value) -> bool {
        self.excuses && self.old.is_some_and(|old| old == new)
    }

    /// Of the field or key `key` of an object. A change of type or version cannot be seen at the root.
    pub fn key(self, schema: &Structural, key: &str, is_root: bool) -> Self {
        if is_root && matches!(key, "apiVersion" | "kind") || schema.of_key(key).is_none() {
            return Self::default();
        }
        Self::new(self.old.and_then(|old| old.get(key)))
    }

    /// Of the items of a list.
    pub fn items<'s>(self, schema: &'s Structural) -> OldItems<'s, 'a> {
        OldItems::of(schema, self.old)
    }
}

/// The items of an old list by their keys, where it is a map. Only such items can be told apart.
pub struct OldItems<'s, 'a> {
    schema: &'s Structural,
    /// By the text of their keys.
    items: HashMap<String, &'a Value>,
}

impl<'s, 'a> OldItems<'s, 'a> {
    /// Of the list `old` of this schema.
    pub fn of(schema: &'s Structural, old: Option<&'a Value>) -> Self {
        let is_map = schema.list_type.as_deref() == Some("map");
        let mut items = HashMap::new();
        for item in old.filter(|_| is_map).and_then(Value::as_array).into_iter().flatten() {
            // Of those that have the same keys, which must not be, the first.
            items.entry(keys(schema, item)).or_insert(item);
        }
        Self { schema, items }
    }

    /// The old item that is the same one as `item`.
    pub fn find(&self, item: &Value) -> Option<&'a Value> {
        if self.items.is_empty() { None } else { self.items.get(&keys(self.schema, item)).copied() }
    }

    /// The old item as what `item` is compared with.
    pub fn correlate(&self, item: &Value) -> Correlation<'a> {
        match self.schema.list_type.as_deref() {
            Some("map") => Correlation::new(self.find(item)),
            _ => Correlation::default(),
        }
    }
}

/// The text of an item's keys, with their defaults: it is the same for items that are one.
fn keys(schema: &Structural, item: &Value) -> String {
    let default = |key: &String| {
        let property = schema.items.as_deref().and_then(|items| items.properties.get(key));
        property.and_then(|property| property.default.as_ref())
    };
    let values = schema.list_map_keys.iter().map(|key| item.get(key).or(default(key)).cloned());
    let mut keys: Vec<Option<Value>> = values.collect();
    keys.iter_mut().flatten().for_each(Value::sort_all_objects);
    // A key that is not there differs from one that is null.
    keys.into_iter().map(|key| key.map_or_else(|| "-,".to_owned(), |key| format!("{key},"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_are_found_by_their_keys_and_defaults_in_linear_time() {
        let schema = Structural::read(&json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {"type": "object", "properties": {
                "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}}));
        let items: Vec<Value> = (0..100_000).map(|port| json!({"port": port, "value": "old"})).collect();
        let old = Value::Array(items);
        let begun = std::time::Instant::now();
        let found = OldItems::of(&schema, Some(&old));
        for port in 0..100_000 {
            let item = json!({"port": port, "protocol": "TCP", "value": "new"});
            assert_eq!(found.find(&item).unwrap()["port"], port);
        }
        assert_eq!(found.find(&json!({"port": 1, "protocol": "UDP"})), None);
        assert_eq!(found.find(&json!({"port": "1"})), None);
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
}
