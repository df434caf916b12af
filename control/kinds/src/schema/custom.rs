//! The types of a custom kind: its structural schema in an arena of its own, beside a copy of the built-in metadata.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use super::{Definition, Field, ListType, Merge, Node, Numbered, Numbers, Object, Schema, Type, TypeId, Types, Zero};
use crate::custom::structural::{Additional, Structural};

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Schema {
    /// The schema of a custom kind. `name` is that of its OpenAPI definition: `com.example.v1.Widget`.
    pub fn custom(name: &str, structural: &Structural) -> Schema {
        let mut builder = Builder::default();
        let metadata = builder.copy(Types::builtin().by_name(METADATA).expect("the data files define it"));
        let first = u32::try_from(builder.types.nodes.len()).expect("a few types");
        builder.types.lenient_from = Some(first);
        builder.text = builder.add(Type::String);
        builder.metadata = metadata;
        let root = builder.object(structural, true);
        let definition =
            Definition { name: name.to_owned().into(), description: structural.description.clone().into() };
        builder.types.nodes[root.0 as usize].definition = Some(definition);
        builder.types.by_name.insert(name.to_owned().into(), root);
        Schema { types: Arc::new(builder.types), root }
    }
}

struct Builder {
    types: Types,
    /// From ids of the built-in arena to ids of this one.
    copied: HashMap<TypeId, TypeId>,
    metadata: TypeId,
    text: TypeId,
}

impl Default for Builder {
    fn default() -> Self {
        Self { types: Types::default(), copied: HashMap::new(), metadata: TypeId(0), text: TypeId(0) }
    }
}

impl Builder {
    fn add(&mut self, r#type: Type) -> TypeId {
        let id = TypeId(u32::try_from(self.types.nodes.len()).expect("a schema of at most a few megabytes"));
        self.types.nodes.push(Node { r#type, definition: None });
        id
    }

    /// Copies a built-in type and all that it refers to.
    fn copy(&mut self, id: TypeId) -> TypeId {
        if let Some(known) = self.copied.get(&id) {
            return *known;
        }
        let builtin = Types::builtin();
        // Known before its parts are, which may refer to it.
        let copy = self.add(Type::Any);
        self.copied.insert(id, copy);
        let r#type = match builtin.get(id) {
            Type::Object(object) => Type::Object(self.copy_object(object)),
            Type::List(item) => Type::List(self.copy(*item)),
            Type::Map(value) => Type::Map(self.copy(*value)),
            Type::String => Type::String,
            Type::Bytes => Type::Bytes,
            Type::Time => Type::Time,
            Type::MicroTime => Type::MicroTime,
            Type::Quantity => Type::Quantity,
            Type::IntOrString => Type::IntOrString,
            Type::Int32 => Type::Int32,
            Type::Int64 => Type::Int64,
            Type::Double => Type::Double,
            Type::Bool => Type::Bool,
            Type::Any => Type::Any,
        };
        let definition = builtin.definition(id).cloned();
        if let Some(definition) = &definition {
            self.types.by_name.insert(definition.name.clone(), copy);
        }
        self.types.nodes[copy.0 as usize] = Node { r#type, definition };
        copy
    }

    fn copy_object(&mut self, object: &Object) -> Object {
        let fields = object.fields().iter().map(|field| Field {
            name: field.name.clone(),
            r#type: self.copy(field.r#type),
            description: field.description.clone(),
            required: field.required,
            zero: field.zero,
            merge: field.merge.clone(),
        });
        Object {
            fields: fields.collect(),
            numbers: copy_numbers(object.numbers()),
            names: OnceLock::new(),
            number_of: object.number_of.clone(),
            always_written: object.always_written.clone(),
            atomic: object.atomic,
            others: object.others.map(|others| self.copy(others)),
        }
    }

    fn of(&mut self, schema: &Structural) -> TypeId {
        let r#type = match schema.r#type.as_str() {
            _ if schema.int_or_string => Type::IntOrString,
            "object" => return self.object(schema, schema.embedded),
            _ if schema.preserve && !schema.properties.is_empty() => return self.object(schema, schema.embedded),
            "array" => match &schema.items {
                Some(items) => Type::List(self.of(items)),
                None => Type::List(self.add(Type::Any)),
            },
            "string" => Type::String,
            "integer" => Type::Int64,
            "number" => Type::Double,
            "boolean" => Type::Bool,
            _ => Type::Any,
        };
        self.add(r#type)
    }

    fn object(&mut self, schema: &Structural, is_resource: bool) -> TypeId {
        if let (Additional::Of(values), true, false) = (&schema.additional, schema.properties.is_empty(), is_resource) {
            let values = self.of(values);
            return self.add(Type::Map(values));
        }
        let mut fields: Vec<Field> = Vec::with_capacity(schema.properties.len());
        for (name, property) in &schema.properties {
            if is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let r#type = self.of(property);
            fields.push(Field { merge: merge(property), ..field(name, r#type) });
        }
        if is_resource {
            fields.extend([field("apiVersion", self.text), field("kind", self.text), field("metadata", self.metadata)]);
            fields.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let others = match &schema.additional {
            Additional::Of(values) => Some(self.of(values)),
            // As in Kubernetes: any values, but objects among them lose their fields.
            Additional::Any if !schema.preserve => Some(self.add(Type::Object(Object::default()))),
            Additional::None | Additional::Any => schema.preserve.then(|| self.add(Type::Any)),
        };
        let atomic = schema.map_type.as_deref() == Some("atomic");
        self.add(Type::Object(Object { fields, atomic, others, ..Object::default() }))
    }
}

fn copy_numbers(numbers: &Numbers) -> Numbers {
    let copy = |numbered: &Numbered| match numbered {
        Numbered::Field(at) => Numbered::Field(*at),
        Numbered::Embedded(inner) => Numbered::Embedded(copy_numbers(inner)),
    };
    numbers.iter().map(|(number, numbered)| (*number, copy(numbered))).collect()
}

fn field(name: &str, r#type: TypeId) -> Field {
    let (name, description) = (name.to_owned().into(), "".into());
    Field { name, r#type, description, required: false, zero: Zero::Kept, merge: Merge::default() }
}

fn merge(schema: &Structural) -> Merge {
    let list = match schema.list_type.as_deref() {
        Some("set") => Some(ListType::Set),
        Some("map") => Some(ListType::Map(schema.list_map_keys.iter().map(|key| key.clone().into()).collect())),
        Some(_) => Some(ListType::Atomic),
        None => None,
    };
    Merge { list, atomic_map: schema.map_type.as_deref() == Some("atomic"), ..Merge::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn schema() -> Schema {
        let structural = Structural::read(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer"},
                "port": {"x-kubernetes-int-or-string": true},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}}}}}}}));
        Schema::custom("com.example.v1.Widget", &structural)
    }

    #[test]
    fn unknown_fields_are_told_of_and_other_types_kept() {
        let text = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "nope": 1},
            "extra": 1,
            "spec": {"size": "x", "port": null, "unknown": {"a": 1}, "free": {"any": {"b": 1.0}}, "labels": {"a": 1},
                "template": {"kind": "T", "metadata": {"name": "t"}, "gone": 1}, "ports": [{"name": "p",
                    "other": 2}]}});
        let decoded = schema().decode(text.to_string().as_bytes()).unwrap();
        let words: Vec<String> = decoded.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "unknown field \"metadata.nope\"",
                "unknown field \"extra\"",
                "unknown field \"spec.unknown\"",
                "unknown field \"spec.template.gone\"",
                "unknown field \"spec.ports[0].other\"",
            ]
        );
        let spec: Value = json!({"size": "x", "port": null, "free": {"any": {"b": 1}}, "labels": {"a": 1},
            "template": {"kind": "T", "metadata": {"name": "t"}}, "ports": [{"name": "p"}]});
        assert_eq!(decoded.value["spec"], spec);
    }

    #[test]
    fn metadata_is_as_strict_as_that_of_built_in_kinds() {
        let error = schema().decode(br#"{"metadata":{"labels":{"a":1}}}"#).unwrap_err();
        let words = "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string";
        assert_eq!(error.to_string(), words);
    }

    #[test]
    fn server_side_apply_finds_the_list_types() {
        let schema = schema();
        let types = schema.types();
        let spec = types.object(schema.root()).and_then(|root| root.field("spec")).unwrap();
        let ports = types.object(spec.r#type).and_then(|spec| spec.field("ports")).unwrap();
        assert_eq!(ports.merge.list, Some(ListType::Map(vec!["name".into()])));
        assert_eq!(schema.name(), "com.example.v1.Widget");
        let metadata = types.object(schema.root()).and_then(|root| root.field("metadata")).unwrap();
        assert!(types.object(metadata.r#type).and_then(|metadata| metadata.field("ownerReferences")).is_some());
    }
}
