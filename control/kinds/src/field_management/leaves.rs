//! The set of all fields that an object says something about: what an applied configuration owns.

use serde_json::Value;

use super::{
    path::PathElement,
    set::{Entry, FieldSet},
    shape::{ItemError, Shape, TypeRef, list_item},
};

/// The fields of `value`, an object of type `of`.
pub fn leaves<'a>(of: TypeRef<'a>, value: &'a Value) -> Result<FieldSet<'a>, ItemError> {
    Ok(node(of, value)?.below)
}

struct Node<'a> {
    member: bool,
    below: FieldSet<'a>,
}

impl Node<'_> {
    fn member() -> Self {
        Self { member: true, below: FieldSet::default() }
    }

    fn empty() -> Self {
        Self { member: false, below: FieldSet::default() }
    }
}

fn node<'a>(of: TypeRef<'a>, value: &'a Value) -> Result<Node<'a>, ItemError> {
    let shape = of.shape(Some(value));
    let entries = match (shape, value) {
        (Shape::Leaf, _) => return Ok(Node::member()),
        (Shape::Struct(object), Value::Object(fields)) => {
            let mut entries = Vec::with_capacity(fields.len());
            for (name, value) in fields {
                let Some(field) = of.field(object, name) else { continue };
                entries.push(entry(name, field, value, object.field(name).is_none())?);
            }
            entries
        }
        (Shape::Map(item), Value::Object(fields)) => {
            let entries = fields.iter().map(|(name, value)| entry(name, item, value, true));
            entries.collect::<Result<_, _>>()?
        }
        (Shape::Set | Shape::KeyedList { .. }, Value::Array(items)) => list(shape, items)?,
        // `null`, and what is not of its type.
        _ => return Ok(Node::empty()),
    };
    Ok(Node { member: false, below: FieldSet::of(entries) })
}

/// A field or key. It is a member itself where it has nothing below it, and where the type does not name it.
fn entry<'a>(name: &'a str, of: TypeRef<'a>, value: &'a Value, free: bool) -> Result<Entry<'a>, ItemError> {
    let Node { member, below } = node(of, value)?;
    let bare = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    Ok(Entry { element: PathElement::field(name), member: member || free || bare, below })
}

/// Items of a list. Those that stand there twice are owned as a whole.
fn list<'a>(shape: Shape<'a>, items: &'a [Value]) -> Result<Vec<Entry<'a>>, ItemError> {
    let mut keyed = Vec::with_capacity(items.len());
    for item in items {
        keyed.push((list_item(shape, item)?, item));
    }
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    let mut entries: Vec<Entry<'a>> = Vec::with_capacity(keyed.len());
    let mut keyed = keyed.into_iter().peekable();
    while let Some((element, item)) = keyed.next() {
        let mut twice = false;
        while keyed.next_if(|(next, _)| *next == element).is_some() {
            twice = true;
        }
        let below = match shape {
            Shape::KeyedList { item: of, .. } if !twice => node(of, item)?.below,
            _ => FieldSet::default(),
        };
        entries.push(Entry { element, member: true, below });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::fields_v1, *};
    use crate::schema::Schema;

    fn text(kind: &str, value: Value) -> String {
        let schema = Schema::builtin(kind).unwrap();
        fields_v1::print(&leaves(TypeRef::root(schema.types(), schema.root()), &value).unwrap())
    }

    #[test]
    fn what_a_configuration_says_is_what_it_owns() {
        let deployment = json!({"apiVersion": "apps/v1", "metadata": {"labels": {"a": "b"}, "finalizers": ["x/y"]},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {
                "securityContext": {}, "tolerations": [{"key": "k"}],
                "containers": [{"name": "c", "image": "i", "env": [], "ports": [{"containerPort": 80}]}]}}}});
        let expected = concat!(
            r#"{"f:apiVersion":{},"f:metadata":{"f:finalizers":{"v:\"x/y\"":{}},"f:labels":{"f:a":{}}},"#,
            r#""f:spec":{"f:replicas":{},"f:selector":{},"f:template":{"f:spec":{"f:containers":{"#,
            r#""k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{"#,
            r#""k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}},"#,
            r#""f:securityContext":{},"f:tolerations":{}}}}}"#
        );
        assert_eq!(text("io.k8s.api.apps.v1.Deployment", deployment), expected);
    }

    #[test]
    fn explicit_nulls_are_owned_and_items_that_stand_twice_as_a_whole() {
        let map = json!({"data": null, "immutable": null});
        assert_eq!(text("io.k8s.api.core.v1.ConfigMap", map), r#"{"f:data":{},"f:immutable":{}}"#);
        let twice = json!({"spec": {"containers": [{"name": "c", "image": "a"}, {"name": "c", "image": "b"}]}});
        let expected = r#"{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{}}}}"#;
        assert_eq!(text("io.k8s.api.core.v1.Pod", twice), expected);
    }
}
