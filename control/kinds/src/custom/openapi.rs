//! What OpenAPI publishes of a custom kind: its schema with the built-in metadata, in the form of version 3 and, less
//! what that cannot say, of version 2.

use serde_json::{Map, Value, json};

use crate::schema::unescaped;

/// `com.example.v1.Widget`, as Kubernetes names the definition of `example.com/v1` Widget.
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

/// The schema as version 3 publishes it.
pub fn v3(schema: &Value) -> Value {
    let mut published = published(schema);
    with_metadata(&mut published);
    published
}

/// The schema as version 2 publishes it: nothing that its clients (kubectl before 1.27) cannot read. They refuse each
/// field that a definition with properties does not have: one of unknown fields has none. Source: `buildKubeNative` in
/// `apiextensions-apiserver/pkg/controller/openapi/builder`.
pub fn v2(schema: &Value) -> Value {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return json!({"type": "object"});
    }
    let mut published = without_v3(published(schema));
    with_metadata(&mut published);
    published
}

/// As it was written, but for what only the server reads.
fn published(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(map) = schema.as_object_mut() {
        map.shift_remove("example");
        map.shift_remove("externalDocs");
        map.entry("type").or_insert_with(|| "object".into());
    }
    schema
}

/// `apiVersion`, `kind` and `metadata` as every kind has them.
fn with_metadata(schema: &mut Value) {
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let text = |field: &str| unescaped(field).into_owned();
    schema["properties"]["apiVersion"] = json!({"type": "string", "description": text(API_VERSION)});
    schema["properties"]["kind"] = json!({"type": "string", "description": text(KIND)});
    let reference = json!({"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"});
    schema["properties"]["metadata"] = json!({"allOf": [reference],
        "description": "Standard object's metadata. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"});
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
    convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer \
this \
    from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// Source: `apiextensions-apiserver/pkg/controller/openapi/v2/conversion.go`.
fn without_v3(schema: Value) -> Value {
    let Value::Object(mut map) = schema else { return schema };
    for field in ["oneOf", "anyOf", "not"] {
        map.shift_remove(field);
    }
    if map.shift_remove("nullable") == Some(Value::Bool(true)) || map.get("x-kubernetes-int-or-string").is_some() {
        map.shift_remove("type");
        map.shift_remove("items");
        map.shift_remove("properties");
    }
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        map.shift_remove("items");
        map.shift_remove("properties");
    }
    let inner = |value: Value| if value.is_object() { without_v3(value) } else { value };
    let each = |list: Value| match list {
        Value::Array(list) => list.into_iter().map(inner).collect(),
        other => other,
    };
    let map: Map<String, Value> = map
        .into_iter()
        .map(|(key, value)| match key.as_str() {
            "items" | "additionalProperties" => (key, inner(value)),
            "allOf" => (key, each(value)),
            "properties" => match value {
                Value::Object(fields) => (key, fields.into_iter().map(|(name, field)| (name, inner(field))).collect()),
                other => (key, other),
            },
            _ => (key, value),
        })
        .collect();
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_leaves_out_what_it_cannot_say() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string", "nullable": true}, "b": {"type": "integer", "oneOf": [{"minimum": 1}]}}}}});
        let spec = &v2(&schema)["properties"]["spec"]["properties"];
        assert_eq!(*spec, json!({"a": {}, "b": {"type": "integer"}}));
        assert_eq!(v3(&schema)["properties"]["spec"], schema["properties"]["spec"]);
        assert!(v3(&schema)["properties"]["metadata"]["allOf"].is_array());
        assert_eq!(definition_name("stable.example.com", "v1", "Cron"), "com.example.stable.v1.Cron");
    }
}
