//! Whether two states of a value that has one owner as a whole are the same: as Kubernetes' Go structs hold them.
//!
//! A configuration that is applied is no Go struct: what it names counts as it is written there ([`leaves_unchanged`]).
//!
//! An empty list or map is the same as none where `omitempty` leaves it out. Not so in the items of a list: Go compares
//! lists as they are in memory (`reflect.DeepEqual`), and tells `[]`, which a client sent, from nothing, which comes
//! back from the storage.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::shape::TypeRef;
use crate::schema::{Field, Object, Type};

/// Whether both are the same.
pub fn is_same(of: TypeRef<'_>, old: &Value, new: &Value) -> bool {
    same(of, Empties::LeftOut, old, new)
}

/// Whether applying `new` (JSON) leaves `old` (a Go struct as Go writes it) unchanged: an explicit null counts as a
/// field, an always-written field that `new` lacks counts as missing.
pub fn leaves_unchanged(of: TypeRef<'_>, old: &Value, new: &Value) -> bool {
    match (of.r#type(), old, new) {
        (Type::Object(object), Value::Object(old), Value::Object(new)) => leaves_fields_unchanged(of, object, old, new),
        (Type::List(_), Value::Array(old), Value::Array(new)) => {
            let Some(item) = of.plain_item() else { return old == new };
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| leaves_unchanged(item, old, new))
        }
        (Type::Map(_), Value::Object(old), Value::Object(new)) => {
            let same = |(name, old): (&String, &Value)| match (of.plain_field(name), new.get(name)) {
                (Some(item), Some(new)) => leaves_unchanged(item, old, new),
                (_, new) => Some(old) == new,
            };
            old.len() == new.len() && old.iter().all(same)
        }
        _ => same(of, Empties::There, old, new),
    }
}

fn leaves_fields_unchanged(
    of: TypeRef<'_>,
    object: &Object,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> bool {
    let one = |name: &String| {
        let (known, inner) = (object.field(name).filter(|_| of.is_in_structs()), of.plain_field(name));
        let was = old.get(name).map(Cow::Borrowed);
        let was = match known {
            Some(field) => was.filter(|was| !was.is_null() && !of.is_left_out_of_struct(field, was)),
            None => was,
        };
        let was = was.or_else(|| known.and_then(|field| of.zero_in_struct(field)).map(Cow::Owned));
        match (was, new.get(name), inner) {
            (None, None, _) => true,
            (Some(was), Some(is), Some(inner)) => leaves_unchanged(inner, &was, is),
            (was, is, _) => was.as_deref() == is,
        }
    };
    let is_named = |name: &str| old.contains_key(name) || new.contains_key(name);
    let written_alone = of.is_in_structs() && object.always_written().any(|field| !is_named(&field.name));
    !written_alone && old.keys().all(one) && new.keys().filter(|name| !old.contains_key(*name)).all(one)
}

/// Whether a value is what Go has where nothing was set.
pub fn is_zero(of: TypeRef<'_>, value: &Value) -> bool {
    is_unset(of, Empties::LeftOut, value)
}

/// What an empty list or map in a field with `omitempty` is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empties {
    /// The same as none.
    LeftOut,
    /// Another thing.
    There,
}

fn same(of: TypeRef<'_>, empties: Empties, old: &Value, new: &Value) -> bool {
    match (of.r#type(), old, new) {
        (Type::Object(object), Value::Object(old), Value::Object(new)) => {
            has_same_fields(of, empties, object, old, new)
        }
        (Type::List(_), Value::Array(old), Value::Array(new)) => {
            let Some(item) = of.plain_item() else { return old == new };
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(item, Empties::There, old, new))
        }
        (Type::Map(_), Value::Object(old), Value::Object(new)) => {
            let same = |(name, old): (&String, &Value)| match (of.plain_field(name), new.get(name)) {
                (Some(item), Some(new)) => same(item, empties, old, new),
                (_, new) => Some(old) == new,
            };
            old.len() == new.len() && old.iter().all(same)
        }
        (_, Value::Number(old), Value::Number(new)) => {
            // Equal if their values are.
            old == new || old.as_f64() == new.as_f64() && !(old.is_i64() && new.is_i64())
        }
        _ => old == new,
    }
}

fn has_same_fields(
    of: TypeRef<'_>,
    empties: Empties,
    object: &Object,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> bool {
    let one = |name: &String| {
        let (old, new) = (old.get(name), new.get(name));
        match (object.field(name), of.plain_field(name)) {
            (Some(field), Some(inner)) if of.is_in_structs() => is_same_field((of, inner), empties, field, old, new),
            (_, Some(inner)) => match (old, new) {
                (Some(old), Some(new)) => same(inner, empties, old, new),
                _ => false,
            },
            (_, None) => old == new,
        }
    };
    old.keys().all(one) && new.keys().filter(|name| !old.contains_key(*name)).all(one)
}

/// Whether a field of a Go struct is the same.
fn is_same_field(
    (of, inner): (TypeRef<'_>, TypeRef<'_>),
    empties: Empties,
    field: &Field,
    old: Option<&Value>,
    new: Option<&Value>,
) -> bool {
    let has_items = matches!(inner.r#type(), Type::List(_) | Type::Map(_));
    let is_kept = empties == Empties::There && has_items;
    let is_there = |value: &&Value| !value.is_null() && (is_kept || !of.is_left_out(field, value));
    match (old.filter(is_there), new.filter(is_there)) {
        (None, None) => true,
        (Some(old), Some(new)) => same(inner, empties, old, new),
        (Some(one), None) | (None, Some(one)) => of.is_always_there(field) && is_unset(inner, empties, one),
    }
}

fn is_unset(of: TypeRef<'_>, empties: Empties, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        // Zero is no list at all.
        Value::Array(_) => false,
        Value::Object(fields) => match of.r#type() {
            Type::Object(object) => has_same_fields(of, empties, object, &Map::new(), fields),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Schema;

    fn same_field(kind: &str, field: &str, old: Value, new: Value) -> bool {
        let schema = Schema::builtin(kind).unwrap();
        let of = TypeRef::root(schema.types(), schema.root()).plain_field(field).unwrap();
        is_same(of, &old, &new)
    }

    #[test]
    fn an_empty_list_in_an_item_of_a_list_is_another_thing_than_none() {
        let same = |old: Value, new: Value| same_field("io.k8s.api.rbac.v1.Role", "rules", old, new);
        assert!(!same(json!([{"verbs": ["get"]}]), json!([{"verbs": ["get"], "resourceNames": []}])));
        assert!(same(json!([{"verbs": null}]), json!([{}])));
        assert!(!same(json!([{"verbs": null}]), json!([{"verbs": []}])));
        assert!(!same(json!([{"verbs": ["get"]}]), json!([{"verbs": ["get"], "resources": ["pods"]}])));
        assert!(!same(json!([]), json!([{}])));
        let limits = |max: Value| json!({"limits": [{"type": "Pod", "max": max}]});
        let same = |old: Value, new: Value| same_field("io.k8s.api.core.v1.LimitRange", "spec", old, new);
        assert!(!same(json!({"limits": [{"type": "Pod"}]}), limits(json!({}))));
        assert!(same(limits(json!({"cpu": "1"})), limits(json!({"cpu": "1"}))));
        assert!(!same(limits(json!({"cpu": "1"})), limits(json!({"memory": "1"}))));
        assert!(same(json!({"limits": [{"type": ""}]}), json!({"limits": [{}]})));
    }

    #[test]
    fn a_configuration_says_what_its_text_says() {
        let of = |kind: &str, field: &str, old: Value, new: Value| {
            let schema = Schema::builtin(kind).unwrap();
            let of = TypeRef::root(schema.types(), schema.root()).as_written().plain_field(field).unwrap();
            leaves_unchanged(of, &old, &new)
        };
        let same = |old: Value, new: Value| of("io.k8s.api.discovery.v1.EndpointSlice", "endpoints", old, new);
        let stored = || json!([{"addresses": ["10.0.0.1"], "conditions": {}}]);
        assert!(same(stored(), stored()));
        assert!(!same(stored(), json!([{"addresses": ["10.0.0.1"]}])), "Go writes a struct that nobody set");
        assert!(!same(stored(), json!([{"addresses": ["10.0.0.1"], "conditions": {}, "nodeName": null}])));
        let same = |old: Value, new: Value| of("io.k8s.api.core.v1.Event", "involvedObject", old, new);
        assert!(same(json!({"kind": "Pod", "uid": ""}), json!({"kind": "Pod"})), "omitempty");
        assert!(!same(json!({"kind": "Pod"}), json!({"kind": "Pod", "uid": null})));
        assert!(
            !same(json!({"kind": "Pod"}), json!({"kind": "Pod", "uid": ""})),
            "said, though omitempty leaves it out"
        );
    }

    #[test]
    fn elsewhere_omitempty_leaves_it_out() {
        let same = |old: Value, new: Value| same_field("io.k8s.api.core.v1.LimitRange", "metadata", old, new);
        let labels = json!({"labels": {"a": "b"}});
        assert!(same(labels.clone(), json!({"labels": {"a": "b"}, "finalizers": [], "annotations": {}})));
        assert!(!same(labels, json!({"labels": {"a": "c"}})));
    }
}
