//! How the parts of a value are owned: one by one, item by item, or as a whole. Read off the schema.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::path::{PathElement, Scalar};
use crate::schema::{Field, ListType, Merge, Object, Text, Type, TypeId, Types, Zero};

/// The type of a value, with what the field says that holds it.
#[derive(Clone, Copy, Debug)]
pub struct TypeRef<'t> {
    types: &'t Types,
    id: TypeId,
    merge: Option<&'t Merge>,
    /// Whether Kubernetes holds such values in Go structs: fields without `omitempty` are there even if nobody set
    /// them.
    in_structs: bool,
    /// Whether zero values that a text names are there, too: a configuration that is applied is no Go struct.
    as_written: bool,
}

/// How a value is owned.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'t> {
    /// As a whole: text, a number, a list or an object that is replaced at once.
    Leaf,
    /// Field by field.
    Struct(&'t Object),
    /// Key by key.
    Map(TypeRef<'t>),
    /// Item by item; each is its own key.
    Set,
    /// Item by item, told apart by the values of these fields.
    KeyedList { item: TypeRef<'t>, keys: Keys<'t> },
}

/// The fields that tell the items of a list apart.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'t> {
    Many(&'t [Text]),
    One(&'t Text),
}

impl<'t> Keys<'t> {
    fn as_slice(self) -> &'t [Text] {
        match self {
            Self::Many(keys) => keys,
            Self::One(key) => std::slice::from_ref(key),
        }
    }
}

/// Why an item has no place in its list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    #[error("associative list with keys may not have a null element")]
    NullItem,
    #[error("associative list with keys may not have non-map elements")]
    NoObject,
    #[error(
        "associative list with keys has an element that omits all key fields {0} (and doesn't have default values for \
         any key fields)"
    )]
    NoKey(String),
    #[error("associative list without keys has an element that's a map type")]
    MapInSet,
    #[error("not supported: associative list with lists as elements")]
    ListInSet,
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
}

impl<'t> TypeRef<'t> {
    /// The whole object of a kind.
    pub fn root(types: &'t Types, id: TypeId) -> Self {
        let in_structs = std::ptr::eq(types, &**Types::builtin());
        Self { types, id, merge: None, in_structs, as_written: false }
    }

    fn of(self, id: TypeId, merge: Option<&'t Merge>) -> Self {
        Self { id, merge, ..self }
    }

    /// The plain type.
    pub fn r#type(self) -> &'t Type {
        self.types.get(self.id)
    }

    /// How `value` of this type is owned. Only values without a schema are told apart by what they are.
    pub fn shape(self, value: Option<&Value>) -> Shape<'t> {
        match self.r#type() {
            Type::Object(object) if object.atomic || self.merge.is_some_and(|merge| merge.atomic_map) => Shape::Leaf,
            Type::Object(object) => Shape::Struct(object),
            Type::Map(_) if self.merge.is_some_and(|merge| merge.atomic_map) => Shape::Leaf,
            Type::Map(item) => Shape::Map(self.of(*item, None)),
            Type::List(item) => self.list(*item),
            Type::Any => match value {
                Some(Value::Object(_)) | None if !self.is_raw_extension() => Shape::Map(self.of(self.id, None)),
                _ => Shape::Leaf,
            },
            _ => Shape::Leaf,
        }
    }

    fn list(self, item: TypeId) -> Shape<'t> {
        let item = self.of(item, None);
        let Some(merge) = self.merge else { return Shape::Leaf };
        match (&merge.list, &merge.key) {
            (Some(ListType::Atomic), _) | (None, None) => Shape::Leaf,
            (Some(ListType::Set), _) => Shape::Set,
            (Some(ListType::Map(keys)), _) => Shape::KeyedList { item, keys: Keys::Many(keys) },
            // Lists without a list type are owned as strategic merge merges them.
            (None, Some(key)) if key.is_empty() => Shape::Set,
            (None, Some(key)) => Shape::KeyedList { item, keys: Keys::One(key) },
        }
    }

    /// `runtime.RawExtension` is replaced as a whole; other values without a schema are owned key by key.
    fn is_raw_extension(self) -> bool {
        self.types.definition(self.id).is_some_and(|definition| definition.name.ends_with(".RawExtension"))
    }

    /// The type of a field or key of `object`; nothing for one that it does not have.
    pub fn field(self, object: &'t Object, name: &str) -> Option<TypeRef<'t>> {
        self.known_field(object, name).0
    }

    /// The same, and what the schema says of the field, if it knows it.
    pub fn known_field(self, object: &'t Object, name: &str) -> (Option<TypeRef<'t>>, Option<&'t Field>) {
        match object.field(name) {
            Some(field) => (Some(self.of(field.r#type, Some(&field.merge))), Some(field)),
            None => (object.others.map(|others| self.of(others, None)), None),
        }
    }

    /// The type of a field or key, however it is owned.
    pub fn plain_field(self, name: &str) -> Option<TypeRef<'t>> {
        match self.r#type() {
            Type::Object(object) => self.field(object, name),
            Type::Map(item) => Some(self.of(*item, None)),
            _ => None,
        }
    }

    /// The type of a list's items, however they are owned.
    pub fn plain_item(self) -> Option<TypeRef<'t>> {
        match self.r#type() {
            Type::List(item) => Some(self.of(*item, None)),
            _ => None,
        }
    }

    /// Whether Kubernetes holds such values in Go structs.
    pub fn is_in_structs(self) -> bool {
        self.in_structs
    }

    /// The same type of a value in which each field that the text names is there, although it be zero.
    pub fn as_written(self) -> Self {
        Self { as_written: true, ..self }
    }

    /// Whether [`Self::as_written`] made it.
    pub fn is_as_written(self) -> bool {
        self.as_written
    }

    /// What stands in a Go struct where nobody set a field; nothing where `omitempty` leaves the field out.
    pub fn zero_in_struct(self, field: &Field) -> Option<Value> {
        if self.in_structs { self.types.zero_in_struct(field) } else { None }
    }

    /// Whether `omitempty` leaves the value of a field out of a Go struct.
    pub fn is_left_out_of_struct(self, field: &Field, value: &Value) -> bool {
        self.in_structs && self.types.is_left_out(field, value)
    }

    /// Whether `omitempty` leaves the value of a field out.
    pub fn is_left_out(self, field: &Field, value: &Value) -> bool {
        !self.as_written && self.types.is_left_out(field, value)
    }

    /// Whether a field is there although the text does not name it.
    pub fn is_always_there(self, field: &Field) -> bool {
        self.in_structs
            && match field.zero {
                Zero::Kept | Zero::Null => false,
                Zero::Written => true,
                Zero::Absent => match self.types.get(field.r#type) {
                    Type::Object(_) => true,
                    Type::List(_) => field.required,
                    // The one point in time that is left out when it is zero.
                    Type::Time | Type::MicroTime => field.name != "creationTimestamp",
                    _ => false,
                },
            }
    }

    /// The fields of `object` that are there although the text does not name them.
    pub fn always_there(self, object: &'t Object) -> impl Iterator<Item = (&'t Field, TypeRef<'t>)> {
        let fields = if self.in_structs { object.fields() } else { &[] };
        let there = fields.iter().filter(move |field| self.is_always_there(field));
        there.map(move |field| (field, self.of(field.r#type, Some(&field.merge))))
    }

    /// What a key field means to an item that leaves it out.
    fn key_default(self, name: &str) -> Option<Scalar<'static>> {
        let object = self.types.object(self.id)?;
        let field = object.field(name)?;
        let of = self.types.definition(self.id).map_or("", |definition| &definition.name);
        if name == "protocol" && matches!(of, "io.k8s.api.core.v1.ContainerPort" | "io.k8s.api.core.v1.ServicePort") {
            return Some(Scalar::Text(Cow::Borrowed("TCP")));
        }
        (self.in_structs && field.zero == Zero::Written).then(|| Scalar::owned(self.types.zero(field.r#type)))
    }
}

/// The path element of an item of a list with keys.
pub fn keyed_item<'a>(list_item: TypeRef<'a>, keys: Keys<'a>, item: &'a Value) -> Result<PathElement<'a>, ItemError> {
    let fields: &Map<String, Value> = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err(ItemError::NullItem),
        _ => return Err(ItemError::NoObject),
    };
    let keys = keys.as_slice();
    let mut key: Vec<(Cow<'a, str>, Scalar<'a>)> = Vec::with_capacity(keys.len());
    for name in keys {
        let value = fields.get(&**name).map(Scalar::of).or_else(|| list_item.key_default(name));
        key.extend(value.map(|value| (Cow::Borrowed(&**name), value)));
    }
    if key.is_empty() {
        let names: Vec<String> = keys.iter().map(|name| format!("{name:?}")).collect();
        return Err(ItemError::NoKey(format!("[{}]", names.join(" "))));
    }
    key.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(PathElement::Key(key))
}

/// The path element of an item of a set.
pub fn set_item(item: &Value) -> Result<PathElement<'_>, ItemError> {
    match item {
        Value::Object(_) => Err(ItemError::MapInSet),
        Value::Array(_) => Err(ItemError::ListInSet),
        Value::Null => Err(ItemError::NullInSet),
        scalar => Ok(PathElement::Value(Scalar::of(scalar))),
    }
}

/// The path element of an item of a list that is owned item by item, and the type of its items if it has parts.
pub fn list_item<'a>(shape: Shape<'a>, item: &'a Value) -> Result<PathElement<'a>, ItemError> {
    match shape {
        Shape::KeyedList { item: item_type, keys } => keyed_item(item_type, keys, item),
        _ => set_item(item),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Schema;

    fn at(schema: &Schema, path: &[&str]) -> String {
        let mut here = TypeRef::root(schema.types(), schema.root());
        for step in path {
            here = match here.shape(None) {
                Shape::Struct(object) => here.field(object, step).unwrap(),
                Shape::Map(item) | Shape::KeyedList { item, .. } => item,
                other => panic!("{other:?} has no {step}"),
            };
        }
        match here.shape(None) {
            Shape::Leaf => "leaf".into(),
            Shape::Struct(_) => "struct".into(),
            Shape::Map(_) => "map".into(),
            Shape::Set => "set".into(),
            Shape::KeyedList { keys, .. } => format!("list by {}", keys.as_slice().join(",")),
        }
    }

    #[test]
    fn the_schema_says_how_parts_are_owned() {
        let pod = Schema::builtin("io.k8s.api.core.v1.Pod").unwrap();
        for (path, shape) in [
            (&["metadata", "labels"][..], "map"),
            (&["metadata", "finalizers"], "set"),
            (&["metadata", "ownerReferences"], "list by uid"),
            (&["metadata", "ownerReferences", "*"], "leaf"),
            (&["spec"], "struct"),
            (&["spec", "containers"], "list by name"),
            (&["spec", "containers", "*", "ports"], "list by containerPort,protocol"),
            (&["spec", "containers", "*", "args"], "leaf"),
            (&["spec", "nodeSelector"], "leaf"),
            (&["spec", "tolerations"], "leaf"),
            (&["spec", "containers", "*", "resources", "limits"], "map"),
            (&["status", "conditions"], "list by type"),
        ] {
            assert_eq!(at(&pod, path), shape, "{path:?}");
        }
        let revision = Schema::builtin("io.k8s.api.apps.v1.ControllerRevision").unwrap();
        assert_eq!(at(&revision, &["data"]), "leaf", "a raw extension");
        assert_eq!(at(&Schema::unstructured(), &["spec"]), "map", "no schema");
    }

    #[test]
    fn a_key_that_is_left_out_has_its_default() {
        let pod = Schema::builtin("io.k8s.api.core.v1.ContainerPort").unwrap();
        let item = TypeRef::root(pod.types(), pod.root());
        let keys: Vec<Text> = vec!["containerPort".into(), "protocol".into()];
        let element = |value: &Value| keyed_item(item, Keys::Many(&keys), value).map(|element| element.to_string());
        assert_eq!(element(&json!({"containerPort": 80})).unwrap(), r#"[containerPort=80,protocol="TCP"]"#);
        assert_eq!(element(&json!({"protocol": "UDP"})).unwrap(), r#"[containerPort=0,protocol="UDP"]"#);
        assert_eq!(element(&json!(null)), Err(ItemError::NullItem));
        assert_eq!(set_item(&json!("a")).unwrap().to_string(), r#"[="a"]"#);
        assert!(set_item(&json!({})).is_err());
    }
}
