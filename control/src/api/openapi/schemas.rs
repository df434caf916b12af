//! Types as OpenAPI definitions, in the form Kubernetes publishes: references alone, or in an `allOf` beside a
//! description.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::schema::{Field, ListType, Merge, Schema, Type, TypeId, Types, unescaped};

/// The definitions of `schemas` and all that they refer to, references as `#/components/schemas/NAME`.
pub fn definitions(schemas: impl IntoIterator<Item = Schema>) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for schema in schemas {
        add(schema.types(), schema.root(), &mut found);
    }
    found
}

fn add(types: &Types, root: TypeId, found: &mut BTreeMap<String, Value>) {
    let mut ids = vec![root];
    while let Some(id) = ids.pop() {
        match types.get(id) {
            Type::List(inner) | Type::Map(inner) => ids.push(*inner),
            r#type => {
                let Some(definition) = types.definition(id).filter(|d| !found.contains_key(&*d.name)) else { continue };
                let mut schema = plain(types, r#type);
                describe(&mut schema, &definition.description);
                found.insert(definition.name.to_string(), Value::Object(schema));
                if let Type::Object(object) = r#type {
                    ids.extend(object.fields().iter().map(|field| field.r#type));
                }
            }
        }
    }
}

/// A reference to a type that has a name, else the type itself.
fn schema(types: &Types, id: TypeId) -> Map<String, Value> {
    match types.definition(id) {
        Some(definition) => map(json!({"$ref": format!("#/components/schemas/{}", definition.name)})),
        None => plain(types, types.get(id)),
    }
}

fn plain(types: &Types, r#type: &Type) -> Map<String, Value> {
    map(match r#type {
        Type::Object(object) => {
            let mut out = map(json!({"type": "object"}));
            let properties: Map<String, Value> =
                object.fields().iter().map(|f| (f.name.to_string(), property(types, f))).collect();
            if !properties.is_empty() {
                out.insert("properties".into(), properties.into());
            }
            let required: Vec<&str> = object.fields().iter().filter(|f| f.required).map(|f| &*f.name).collect();
            if !required.is_empty() {
                out.insert("required".into(), required.into());
            }
            if object.atomic {
                out.insert("x-kubernetes-map-type".into(), "atomic".into());
            }
            if object.others.is_some() {
                out.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
            }
            return out;
        }
        Type::List(item) => json!({"type": "array", "items": schema(types, *item)}),
        Type::Map(value) => json!({"type": "object", "additionalProperties": schema(types, *value)}),
        Type::String => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Time | Type::MicroTime => json!({"type": "string", "format": "date-time"}),
        Type::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Type::IntOrString => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Any => json!({"type": "object"}),
    })
}

fn property(types: &Types, field: &Field) -> Value {
    let mut out = schema(types, field.r#type);
    let extensions = extensions(&field.merge);
    if (!field.description.is_empty() || !extensions.is_empty())
        && let Some(reference) = out.shift_remove("$ref")
    {
        out.insert("allOf".into(), json!([{ "$ref": reference }]));
    }
    describe(&mut out, &field.description);
    out.extend(extensions);
    Value::Object(out)
}

fn describe(schema: &mut Map<String, Value>, description: &str) {
    if !description.is_empty() {
        schema.insert("description".into(), unescaped(description).into());
    }
}

/// How a field merges, as the extensions that clients read.
fn extensions(merge: &Merge) -> Map<String, Value> {
    let mut out = Map::new();
    match &merge.list {
        Some(ListType::Atomic) => drop(out.insert("x-kubernetes-list-type".into(), "atomic".into())),
        Some(ListType::Set) => drop(out.insert("x-kubernetes-list-type".into(), "set".into())),
        Some(ListType::Map(keys)) => {
            out.insert("x-kubernetes-list-map-keys".into(), json!(keys));
            out.insert("x-kubernetes-list-type".into(), "map".into());
        }
        None => {}
    }
    if merge.atomic_map {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if let Some(key) = merge.key.as_deref().filter(|key| !key.is_empty()) {
        out.insert("x-kubernetes-patch-merge-key".into(), key.into());
    }
    let strategy = match (merge.key.is_some(), merge.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => return out,
    };
    out.insert("x-kubernetes-patch-strategy".into(), strategy.into());
    out
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str) -> Value {
        definitions(Schema::builtin(name))[name].clone()
    }

    #[test]
    fn a_definition_brings_all_it_refers_to() {
        let definitions = definitions(Schema::builtin("io.k8s.api.core.v1.Pod"));
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                    Some(reference) if key == "$ref" => found.push(reference.to_owned()),
                    _ => references(value, found),
                }),
                Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        definitions.values().for_each(|d| references(d, &mut found));
        assert!(found.len() > 100);
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(definitions.contains_key(name), "{reference}");
        }
    }

    #[test]
    fn extensions_are_spelled_as_kubernetes_publishes_them() {
        let ports = &definition("io.k8s.api.core.v1.ServiceSpec")["properties"]["ports"];
        assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["port", "protocol"]));
        assert_eq!(ports["x-kubernetes-list-type"], "map");
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
        assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(ports["items"], json!({"$ref": "#/components/schemas/io.k8s.api.core.v1.ServicePort"}));
        let volumes = &definition("io.k8s.api.core.v1.PodSpec")["properties"]["volumes"];
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let selector = &definition("io.k8s.api.core.v1.NodeSelector")["x-kubernetes-map-type"];
        assert_eq!(selector, "atomic");
    }

    #[test]
    fn special_values_have_the_forms_that_kubectl_explains() {
        let port = &definition("io.k8s.api.core.v1.ServicePort")["properties"]["targetPort"];
        let reference = "#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString";
        assert_eq!(port["allOf"], json!([{ "$ref": reference }]));
        let data = &definition("io.k8s.api.core.v1.Secret")["properties"]["data"];
        assert_eq!(data["additionalProperties"], json!({"type": "string", "format": "byte"}));
        assert_eq!(definition("io.k8s.apimachinery.pkg.apis.meta.v1.Time")["format"], "date-time");
    }
}
