//! Which part of the old object a part of the new one replaces, as far as the schema tells.
//!
//! Source: KEP 4008 (CRD validation ratcheting).

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

    /// Of an item of a list. Only items with keys can be told apart.
    pub fn index(self, schema: &Structural, item: &Value) -> Self {
        if schema.list_type.as_deref() != Some("map") {
            return Self::default();
        }
        let same = |old: &&Value| same_keys(schema, old, item);
        Self::new(self.old.and_then(Value::as_array).and_then(|list| list.iter().find(same)))
    }
}

/// Whether two items of a list that is a map are one item.
pub fn same_keys(schema: &Structural, a: &Value, b: &Value) -> bool {
    let default = |key: &String| {
        let property = schema.items.as_deref().and_then(|items| items.properties.get(key));
        property.and_then(|property| property.default.as_ref())
    };
    schema.list_map_keys.iter().all(|key| a.get(key).or(default(key)) == b.get(key).or(default(key)))
}
