//! Takes fields out of an object.

use serde_json::{Map, Value};

use super::{
    path::PathElement,
    set::FieldSet,
    shape::{ItemError, Shape, TypeRef, list_item},
};

/// `value` without the fields in `fields`. What has nothing left is `null`, which means nothing when it is decoded.
pub fn remove(of: TypeRef<'_>, value: &Value, fields: &FieldSet<'_>) -> Result<Value, ItemError> {
    match (of.shape(Some(value)), value) {
        (shape @ (Shape::Struct(_) | Shape::Map(_)), Value::Object(object)) => {
            let mut out = Map::with_capacity(object.len());
            for (name, value) in object {
                let entry = fields.get(&PathElement::field(name.as_str()));
                if entry.is_some_and(|entry| entry.member) {
                    continue;
                }
                let below = entry.map(|entry| &entry.below).filter(|below| !below.is_empty());
                let field = match shape {
                    Shape::Struct(object) => of.field(object, name),
                    Shape::Map(item) => Some(item),
                    _ => None,
                };
                let kept = match (below, field) {
                    (Some(below), Some(field)) => remove(field, value, below)?,
                    _ => value.clone(),
                };
                out.insert(name.clone(), kept);
            }
            Ok(if out.is_empty() { Value::Null } else { Value::Object(out) })
        }
        (shape @ (Shape::Set | Shape::KeyedList { .. }), Value::Array(items)) => {
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                let entry = fields.get(&list_item(shape, item)?);
                if entry.is_some_and(|entry| entry.member) {
                    continue;
                }
                let below = entry.map(|entry| &entry.below).filter(|below| !below.is_empty());
                out.push(match (below, shape) {
                    (Some(below), Shape::KeyedList { item: of, .. }) => remove(of, item, below)?,
                    _ => item.clone(),
                });
            }
            Ok(if out.is_empty() { Value::Null } else { Value::Array(out) })
        }
        // Parts of a leaf are not taken out.
        _ if fields.is_empty() || value.is_string() || value.is_number() || value.is_boolean() => Ok(value.clone()),
        _ => Ok(Value::Null),
    }
}

/// `set` with every struct field on the way to its members, so that a struct whose fields are all taken out goes, too.
pub fn with_named_fields<'a>(of: Option<TypeRef<'_>>, set: &FieldSet<'a>) -> FieldSet<'a> {
    let shape = of.map(|of| (of, of.shape(None)));
    let entries = set.entries().iter().map(|entry| {
        let mut entry = entry.clone();
        let below = match (&entry.element, shape) {
            (PathElement::Field(name), Some((of, Shape::Struct(object)))) => {
                entry.member |= !entry.below.is_empty() && object.field(name).is_some();
                of.field(object, name)
            }
            (PathElement::Field(_), Some((_, Shape::Map(item)))) => Some(item),
            (PathElement::Key(_), Some((_, Shape::KeyedList { item, .. }))) => Some(item),
            _ => None,
        };
        entry.below = with_named_fields(below, &entry.below);
        entry
    });
    FieldSet::of(entries.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::fields_v1, *};
    use crate::schema::Schema;

    #[test]
    fn fields_and_items_are_taken_out() {
        let schema = Schema::builtin("io.k8s.api.core.v1.Pod").unwrap();
        let of = TypeRef::root(schema.types(), schema.root());
        let pod = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x/y", "z/y"]}, "spec": {
            "containers": [{"name": "a", "image": "i"}, {"name": "b"}]}});
        let fields = r#"{"f:metadata":{"f:finalizers":{"v:\"x/y\"":{}},"f:labels":{"f:a":{}}},
            "f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{"f:image":{}},"k:{\"name\":\"b\"}":{}}}}"#;
        let removed = remove(of, &pod, &fields_v1::parse(fields).unwrap()).unwrap();
        let expected = json!({"metadata": {"labels": null, "finalizers": ["z/y"]},
            "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(removed, expected);
    }

    #[test]
    fn structs_on_the_way_are_named_and_maps_are_not() {
        let schema = Schema::builtin("io.k8s.api.core.v1.ConfigMap").unwrap();
        let of = TypeRef::root(schema.types(), schema.root());
        let set = fields_v1::parse(r#"{"f:metadata":{"f:labels":{"f:a":{}}}}"#).unwrap();
        let named = fields_v1::print(&with_named_fields(Some(of), &set));
        assert_eq!(named, r#"{"f:metadata":{".":{},"f:labels":{".":{},"f:a":{}}}}"#);
    }
}
