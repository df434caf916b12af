//! The documents in the older form, `GET /openapi/v2`: all versions in one, as JSON (Swagger 2.0) and as the protobuf
//! that kubectl before 1.27 asks for.
//!
//! The protobuf is `openapi.v2.Document` of gnostic-models; only the fields that occur are written.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Media type of the protobuf form. Without the `@` that newer clients put into it, which older ones cannot read.
pub const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Spellings of its subtype that clients ask with.
pub const PROTOBUF_SUBTYPES: [&str; 2] =
    ["com.github.proto-openapi.spec.v2.v1.0+protobuf", "com.github.proto-openapi.spec.v2@v1.0+protobuf"];

/// The Swagger document of all `paths` and `definitions`, which are in the form of OpenAPI v3.
pub fn document(paths: &Map<String, Value>, definitions: &BTreeMap<String, Value>) -> Value {
    let definitions: Map<String, Value> =
        definitions.iter().map(|(name, definition)| (name.clone(), flattened(definition.clone()))).collect();
    let paths: Map<String, Value> = paths.iter().map(|(path, item)| (path.clone(), older(item))).collect();
    json!({"swagger": "2.0", "info": {"title": "Kubernetes",
            "version": concat!("fairlead-", env!("CARGO_PKG_VERSION"))},
        "paths": paths, "definitions": definitions, "security": [{"BearerToken": []}],
        "securityDefinitions": {"BearerToken": super::bearer_token()}})
}

/// References alone: an `allOf` of one crashes kubectl 1.20, and `oneOf` is unknown to this version.
///
/// Only schemas are looked into: a property may have any name, `oneOf` as well.
fn flattened(schema: Value) -> Value {
    let Value::Object(mut map) = schema else { return schema };
    if let Some(all_of) = map.shift_remove("allOf")
        && let Some(reference) = all_of[0]["$ref"].as_str()
    {
        map.insert("$ref".into(), reference.into());
    }
    if map.shift_remove("oneOf").is_some() {
        map.insert("type".into(), "string".into());
    }
    if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
        let reference = reference.replace("#/components/schemas/", "#/definitions/");
        map.insert("$ref".into(), reference.into());
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(schema) = map.get_mut(inner) {
            *schema = flattened(schema.take());
        }
    }
    for (_, property) in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        *property = flattened(property.take());
    }
    Value::Object(map)
}

/// A path item of v3 as one of v2: schemas of parameters stand in the parameter, bodies are parameters, and media types
/// stand beside what they are of.
fn older(item: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in item.as_object().into_iter().flatten() {
        match key.as_str() {
            "parameters" => drop(out.insert(key.clone(), parameters(value))),
            _ => drop(out.insert(key.clone(), older_operation(value))),
        }
    }
    Value::Object(out)
}

fn older_operation(operation: &Value) -> Value {
    let mut out = operation.clone();
    let types = |content: &Value| -> Vec<Value> { entries(content).map(|(name, _)| name.as_str().into()).collect() };
    let schema = |content: &Value| entries(content).next().map(|(_, media)| flattened(media["schema"].clone()));
    let mut all = Vec::new();
    let sent = &operation["requestBody"]["content"];
    if let Some(schema) = schema(sent) {
        let mut body = json!({"in": "body", "name": "body", "schema": schema});
        if operation["requestBody"]["required"] == true {
            body["required"] = true.into();
        }
        all.push(body);
    }
    all.extend(parameters(&operation["parameters"]).as_array().into_iter().flatten().cloned());
    let answers: Map<String, Value> = entries(&operation["responses"])
        .map(|(code, response)| {
            let mut older = json!({"description": response["description"]});
            if let Some(schema) = schema(&response["content"]) {
                older["schema"] = schema;
            }
            (code.clone(), older)
        })
        .collect();
    let consumes = if sent.is_object() { types(sent) } else { vec!["*/*".into()] };
    let produces = entries(&operation["responses"]).next().map(|(_, first)| types(&first["content"]));
    if let Some(map) = out.as_object_mut() {
        map.shift_remove("requestBody");
        map.insert("consumes".into(), consumes.into());
        map.insert("parameters".into(), all.into());
        map.insert("produces".into(), produces.unwrap_or_default().into());
        map.insert("responses".into(), answers.into());
        map.insert("schemes".into(), json!(["https"]));
    }
    out
}

fn parameters(list: &Value) -> Value {
    let older = |parameter: &Value| {
        let mut parameter = parameter.clone();
        if let Some(map) = parameter.as_object_mut() {
            for (key, value) in entries(&map.shift_remove("schema").unwrap_or_default()) {
                map.insert(key.clone(), value.clone());
            }
        }
        parameter
    };
    list.as_array().into_iter().flatten().map(older).collect()
}

/// The protobuf form of a [`document`].
pub fn protobuf(document: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (path, item) in entries(&document["paths"]) {
            paths.named(2, path, |out| path_item(out, item));
        }
    });
    out.message(9, |definitions| {
        for (name, definition) in entries(&document["definitions"]) {
            definitions.named(1, name, |out| schema(out, definition));
        }
    });
    out.0
}

fn path_item(out: &mut Writer, item: &Value) {
    for (method, number) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if item[method].is_object() {
            out.message(number, |out| operation(out, &item[method]));
        }
    }
    for one in item["parameters"].as_array().into_iter().flatten() {
        out.message(9, |out| parameter(out, one));
    }
}

fn operation(out: &mut Writer, operation: &Value) {
    let texts = |out: &mut Writer, number: u32, field: &str| {
        for text in operation[field].as_array().into_iter().flatten() {
            out.text(number, text);
        }
    };
    texts(out, 1, "tags");
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    texts(out, 6, "produces");
    texts(out, 7, "consumes");
    for one in operation["parameters"].as_array().into_iter().flatten() {
        out.message(8, |out| parameter(out, one));
    }
    out.message(9, |responses| {
        for (code, response) in entries(&operation["responses"]) {
            responses.named(1, code, |value| {
                value.message(1, |out| {
                    out.text(1, &response["description"]);
                    if response["schema"].is_object() {
                        out.message(2, |item| item.message(1, |out| schema(out, &response["schema"])));
                    }
                });
            });
        }
    });
    texts(out, 10, "schemes");
    extensions(out, 13, operation);
}

/// `ParametersItem { Parameter { BodyParameter | NonBodyParameter { query | path } } }`
fn parameter(out: &mut Writer, parameter: &Value) {
    if parameter["in"] == "body" {
        out.message(1, |out| {
            out.message(1, |body| {
                body.text(2, &parameter["name"]);
                body.text(3, &parameter["in"]);
                if parameter["required"] == true {
                    body.varint(4, 1);
                }
                body.message(5, |out| schema(out, &parameter["schema"]));
            });
        });
        return;
    }
    let in_path = parameter["in"] == "path";
    out.message(1, |out| {
        out.message(2, |out| {
            out.message(if in_path { 4 } else { 3 }, |out| {
                if parameter["required"] == true {
                    out.varint(1, 1);
                }
                out.text(2, &parameter["in"]);
                out.text(3, &parameter["description"]);
                out.text(4, &parameter["name"]);
                out.text(if in_path { 5 } else { 6 }, &parameter["type"]);
                out.varint(if in_path { 18 } else { 20 }, 1);
            });
        });
    });
}

fn schema(out: &mut Writer, value: &Value) {
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(4, &value["description"]);
    for required in value["required"].as_array().into_iter().flatten() {
        out.text(19, required);
    }
    match &value["additionalProperties"] {
        Value::Bool(any) => out.message(21, |out| out.varint(2, u64::from(*any))),
        inner if inner.is_object() => out.message(21, |out| out.message(1, |out| schema(out, inner))),
        _ => {}
    }
    if value["type"].is_string() {
        out.message(22, |out| out.text(1, &value["type"]));
    }
    if value["items"].is_object() {
        out.message(23, |out| out.message(1, |out| schema(out, &value["items"])));
    }
    if value["properties"].is_object() {
        out.message(25, |properties| {
            for (name, property) in entries(&value["properties"]) {
                properties.named(1, name, |out| schema(out, property));
            }
        });
    }
    extensions(out, 31, value);
}

/// `x-…` fields as `NamedAny { name, Any { yaml } }`; JSON is YAML.
fn extensions(out: &mut Writer, number: u32, value: &Value) {
    for (name, extension) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
        out.named(number, name, |any| any.text(2, &Value::String(format!("{extension}\n"))));
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Writes protobuf fields.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn raw_varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn varint(&mut self, number: u32, value: u64) {
        self.raw_varint(u64::from(number) << 3);
        self.raw_varint(value);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.raw_varint(u64::from(number) << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Nothing, if `value` is no text.
    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn message(&mut self, number: u32, write: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        write(&mut inner);
        self.bytes(number, &inner.0);
    }

    /// `Named… { name = 1, value = 2 }`
    fn named(&mut self, number: u32, name: &str, write: impl FnOnce(&mut Writer)) {
        self.message(number, |out| {
            out.bytes(1, name.as_bytes());
            out.message(2, write);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_may_have_the_names_of_keywords() {
        let schema = json!({"type": "object", "properties": {
            "type": {"type": "string"}, "oneOf": {"type": "array", "items": {"$ref": "#/components/schemas/a"}},
            "allOf": {"type": "array", "items": {"type": "string"}}, "$ref": {"type": "string"}}});
        let expected = json!({"type": "object", "properties": {
            "type": {"type": "string"}, "oneOf": {"type": "array", "items": {"$ref": "#/definitions/a"}},
            "allOf": {"type": "array", "items": {"type": "string"}}, "$ref": {"type": "string"}}});
        assert_eq!(flattened(schema), expected);
    }

    #[test]
    fn references_stand_alone_and_in_the_older_place() {
        let schema = json!({"description": "d", "allOf": [{"$ref": "#/components/schemas/a.B"}]});
        assert_eq!(flattened(schema), json!({"description": "d", "$ref": "#/definitions/a.B"}));
    }

    #[test]
    fn fields_are_written_with_number_length_and_content() {
        let mut out = Writer::default();
        out.named(1, "a", |value| value.varint(26, 300));
        assert_eq!(out.0, [0x0a, 0x09, 0x0a, 0x01, b'a', 0x12, 0x04, 0xd0, 0x01, 0xac, 0x02]);
    }
}
